package freshness

import (
	"net/http"
	"strings"
	"time"
)

// Outcome is what the preconditions of a request come to.
type Outcome int

const (
	Proceed            Outcome = iota // as if there were none
	NotModified                       // answer 304
	PreconditionFailed                // answer 412
)

func (o Outcome) String() string {
	switch o {
	case Proceed:
		return "proceed"
	case NotModified:
		return "not-modified"
	case PreconditionFailed:
		return "precondition-failed"
	}
	return "unknown"
}

// Evaluate holds the preconditions of r against a representation, in the order
// of RFC 9110, 13.2.2: If-Match, else If-Unmodified-Since; then If-None-Match,
// else If-Modified-Since. If-Range is left to IfRange.
//
// The validators are given as received, "" for none; a date condition without
// lastModified is ignored (13.1.3, 13.1.4). It is for requests whose answer
// would be a 200 otherwise (13.2.1). A cache may give the Date of its answer, "" for
// none, which stands in for a missing Last-Modified in If-Modified-Since, and
// there alone (RFC 9111, 4.3.2).
func Evaluate(r *Request, etag, lastModified, date string) Outcome {
	modified, dated := ParseDate(lastModified, time.Time{})
	if match := r.Header("If-Match"); match != "" {
		if !anyTag(match, etag, strongly) {
			return PreconditionFailed
		}
	} else if since := r.Header("If-Unmodified-Since"); since != "" && dated {
		if t, ok := ParseDate(since, modified); ok && modified.After(t) {
			return PreconditionFailed
		}
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if none := r.Header("If-None-Match"); none != "" {
		if anyTag(none, etag, weakly) {
			if read {
				return NotModified
			}
			return PreconditionFailed
		}
	} else if since := r.Header("If-Modified-Since"); since != "" && read {
		if !dated {
			modified, dated = ParseDate(date, time.Time{})
		}
		if t, ok := ParseDate(since, modified); dated && ok && !modified.After(t) {
			return NotModified
		}
	}
	return Proceed
}

// IfRange says whether the Range of a request may be honoured, given its
// If-Range (RFC 9110, 13.1.5), "" for none. The validators are those of the
// representation; lastModified must be "" if it is not a strong validator
// (8.8.2.2). A date must be the very same, not just later.
func IfRange(value, etag, lastModified string) bool {
	switch value = trim(value); {
	case value == "":
		return true
	case strings.HasSuffix(value, `"`):
		return strongly(value, etag)
	}
	modified, ok := ParseDate(lastModified, time.Time{})
	if !ok {
		return false
	}
	t, ok := ParseDate(value, modified)
	return ok && t.Equal(modified)
}

// anyTag says whether one of the entity tags in list compares equal to etag;
// "*" does to any representation, with or without one. A tag that is not well
// formed ends the list: what follows cannot be told apart.
func anyTag(list, etag string, equal func(a, b string) bool) bool {
	if trim(list) == "*" {
		return true
	}
	for {
		list = strings.TrimLeft(list, " \t,")
		quote := strings.IndexByte(list, '"')
		if quote != 0 && !(quote == 2 && strings.HasPrefix(list, "W/")) {
			return false
		}
		end := strings.IndexByte(list[quote+1:], '"')
		if end < 0 {
			return false
		}
		tag := list[:quote+1+end+1]
		list = strings.TrimLeft(list[len(tag):], " \t")
		if list != "" && list[0] != ',' {
			return false
		}
		if equal(tag, etag) {
			return true
		}
		if list == "" {
			return false
		}
	}
}

// wellFormed says whether s is an entity tag (RFC 9110, 8.8.3).
func wellFormed(s string) bool {
	s = strings.TrimPrefix(s, "W/")
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	for i := 1; i < len(s)-1; i++ {
		if s[i] <= ' ' || s[i] == '"' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func strong(etag string) bool { return wellFormed(etag) && etag[0] == '"' }

// strongly and weakly are the comparisons of RFC 9110, 8.8.3.2.
func strongly(a, b string) bool { return a == b && strong(a) }

func weakly(a, b string) bool {
	return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/") && wellFormed(a)
}
