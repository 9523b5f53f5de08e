package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// CacheStatus says how a request was answered, in one word.
type CacheStatus string

// The words of CacheStatus.
const (
	Hit         CacheStatus = "hit"         // all of it was here
	Miss        CacheStatus = "miss"        // none of it was
	Partial     CacheStatus = "partial"     // some of it was
	Revalidated CacheStatus = "revalidated" // it was here, and upstream said it is current
	Stale       CacheStatus = "stale"       // it was here and old, and upstream could not be asked
	Pass        CacheStatus = "pass"        // not cacheable
	Refused     CacheStatus = "refused"     // not served here
	Error       CacheStatus = "error"       // upstream or the node failed
)

// Record is what is written about a request. Empty texts are left out of the
// line; numbers are always there.
type Record struct {
	Time        time.Time     // when the request came: "time", UTC with milliseconds
	Remote      netip.Addr    // of the client: "remote"
	Method      string        // "method"
	Scheme      string        // "scheme"
	Host        string        // that was asked for: "host"
	Path        string        // as received: "path"
	Query       string        // as received; written redacted: "query"
	Range       string        // the request's field: "range"
	Status      int           // "status"; 0: the client left before there was one
	Bytes       int64         // of the body that left: "bytes"
	Duration    time.Duration // "duration_seconds"
	TTFB        time.Duration // until the first byte left: "ttfb_seconds"
	Publisher   string        // "publisher"
	ContentType string        // the catalogue's word for reports: "content_type"
	CacheStatus CacheStatus   // "cache"
	Upstream    int64         // bytes fetched for this request: "upstream_bytes"
	UserAgent   string        // "user_agent"
	Err         string        // what went wrong; written with URLs redacted: "error"
}

// appendRecord appends r as a line of JSON.
func (n *line) appendRecord(b []byte, r *Record) []byte {
	b = append(b, `{"time":"`...)
	b = appendTime(b, r.Time.UTC())
	b = append(b, '"')
	if r.Remote.IsValid() {
		b = append(b, `,"remote":"`...)
		b = r.Remote.Unmap().AppendTo(b) // its zone, if it has one, is an interface's name
		b = append(b, '"')
	}
	b = appendText(b, `,"method":`, r.Method)
	b = appendText(b, `,"scheme":`, r.Scheme)
	b = appendText(b, `,"host":`, r.Host)
	b = appendText(b, `,"path":`, r.Path)
	if r.Query != "" {
		n.redact = appendRedacted(n.redact[:0], r.Query)
		b = appendText(b, `,"query":`, n.redact)
	}
	b = appendText(b, `,"range":`, r.Range)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, r.Bytes, 10)
	b = append(b, `,"duration_seconds":`...)
	b = appendSeconds(b, r.Duration)
	b = append(b, `,"ttfb_seconds":`...)
	b = appendSeconds(b, r.TTFB)
	b = appendText(b, `,"publisher":`, r.Publisher)
	b = appendText(b, `,"content_type":`, r.ContentType)
	b = appendText(b, `,"cache":`, string(r.CacheStatus))
	b = append(b, `,"upstream_bytes":`...)
	b = strconv.AppendInt(b, r.Upstream, 10)
	b = appendText(b, `,"user_agent":`, r.UserAgent)
	if r.Err != "" {
		n.redact = appendRedactedText(n.redact[:0], r.Err)
		b = appendText(b, `,"error":`, n.redact)
	}
	return append(b, '}', '\n')
}

// appendTime writes t as RFC 3339 with milliseconds. AppendFormat would parse
// its layout each time.
func appendTime(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, time.RFC3339)
	}
	hour, minute, second := t.Clock()
	b = append2(append2(b, year/100), year%100)
	b = append2(append(b, '-'), int(month))
	b = append2(append(b, '-'), day)
	b = append2(append(b, 'T'), hour)
	b = append2(append(b, ':'), minute)
	b = append2(append(b, ':'), second)
	ms := t.Nanosecond() / 1e6
	b = append(b, '.', byte('0'+ms/100))
	return append(append2(b, ms%100), 'Z')
}

// append2 writes n as two digits.
func append2(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

// appendSeconds writes a duration as seconds with microseconds. A clock that
// was set back gives 0.
func appendSeconds(b []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	us %= 1e6
	return append2(append2(append2(b, int(us/1e4)), int(us/100%100)), int(us%100))
}

// asIs are the bytes that stand for themselves in a JSON string.
var asIs = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendText appends key and text as a JSON string, or nothing when there is
// no text. As in encoding/json, bytes that are no UTF-8 become U+FFFD each.
func appendText[T string | []byte](b []byte, key string, text T) []byte {
	if len(text) == 0 {
		return b
	}
	b = append(b, key...)
	b = append(b, '"')
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		if asIs[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			size, valid := runeLen(text, i)
			if !valid {
				b = append(b, text[start:i]...)
				b = append(b, `\ufffd`...)
				start = i + size
			}
			i += size
			continue
		}
		b = append(b, text[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
		start = i
	}
	b = append(b, text[start:]...)
	return append(b, '"')
}

// runeLen returns the length of the rune at text[i], 1 when it is none.
func runeLen[T string | []byte](text T, i int) (size int, valid bool) {
	var four [utf8.UTFMax]byte
	n := copy(four[:], text[i:min(i+utf8.UTFMax, len(text))])
	r, size := utf8.DecodeRune(four[:n])
	return size, r != utf8.RuneError || size != 1
}
