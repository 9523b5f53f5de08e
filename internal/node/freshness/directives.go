package freshness

import (
	"net/http"
	"strings"
	"time"
)

// responseDirectives is what a response's cache directives say to a shared cache.
type responseDirectives struct {
	maxAge, sMaxAge                    delta
	staleWhileRevalidate, staleIfError delta

	noStore, noCache, private, public, mustRevalidate, proxyRevalidate, mustUnderstand bool

	fields    []string // named by private="…" or no-cache="…": fields not to be kept
	targeted  bool     // read from CDN-Cache-Control; Cache-Control and Expires do not count
	malformed bool     // a quoted string does not end: who knows what was meant
}

// requestDirectives is what a client's cache directives say.
type requestDirectives struct {
	maxAge, minFresh, maxStale, staleIfError delta

	noCache, noStore, onlyIfCached, anyStale bool
}

// delta is a directive with a number of seconds.
type delta struct {
	d   time.Duration
	set bool
}

// allows says whether staleness is inside the window that d gives, which is
// none if it was not sent.
func (d delta) allows(staleness time.Duration) bool { return d.set && staleness <= d.d }

// add takes one more value of the directive. A value that is no number, or
// that contradicts an earlier one, leaves zero: RFC 9111, 4.2.1 has such an
// answer considered stale.
func (d *delta) add(arg string) {
	n, ok := parseSeconds(arg)
	if !ok || d.set && n != d.d {
		n = 0
	}
	d.d, d.set = n, true
}

// parseResponse reads the directives that count: those of CDN-Cache-Control
// if it is valid (RFC 9213), else those of Cache-Control. Pragma means
// nothing in a response (RFC 9111, 5.4).
func parseResponse(h http.Header) responseDirectives {
	var r responseDirectives
	if lines := h["Cdn-Cache-Control"]; len(lines) > 0 {
		if t, ok := parseTargeted(strings.Join(lines, ", ")); ok {
			return t
		}
	}
	for _, line := range h["Cache-Control"] {
		if !eachDirective(line, r.add) {
			r.malformed = true
		}
	}
	return r
}

// add takes one directive. Directives that restrict count whatever argument
// they come with; those that permit must be as the grammar has them.
func (r *responseDirectives) add(name, arg string, hasArg bool) {
	switch name {
	case "max-age":
		r.maxAge.add(arg)
	case "s-maxage":
		r.sMaxAge.add(arg)
	case "stale-while-revalidate":
		r.staleWhileRevalidate.add(arg)
	case "stale-if-error":
		r.staleIfError.add(arg)
	case "no-store":
		r.noStore = true
	case "no-cache":
		r.noCache = !r.addFields(arg) || r.noCache
	case "private":
		r.private = !r.addFields(arg) || r.private
	case "public":
		r.public = r.public || !hasArg
	case "must-revalidate":
		r.mustRevalidate = true
	case "proxy-revalidate":
		r.proxyRevalidate = true
	case "must-understand":
		r.mustUnderstand = true
	}
}

// addFields takes the field names of the qualified form of no-cache and
// private (RFC 9111, 5.2.2.4 and 5.2.2.7). It is false if there are none, or
// something else: then the directive is about the whole answer.
func (r *responseDirectives) addFields(arg string) bool {
	found := false
	for name := range strings.SplitSeq(arg, ",") {
		if name = trim(name); name == "" {
			continue
		}
		for i := range len(name) {
			if !tchar(name[i]) {
				return false
			}
		}
		r.fields = append(r.fields, http.CanonicalHeaderKey(name))
		found = true
	}
	return found
}

// parseRequest reads Cache-Control and, without it, Pragma (RFC 9111, 5.4).
// A number that makes no sense is read in the way that asks the origin.
func parseRequest(r *Request) requestDirectives {
	var q requestDirectives
	line := r.Header("Cache-Control")
	if line == "" {
		if pragma := r.Header("Pragma"); pragma != "" {
			eachDirective(pragma, func(name, _ string, _ bool) { q.noCache = q.noCache || name == "no-cache" })
		}
		return q
	}
	if !eachDirective(line, q.add) {
		q.noCache = true
	}
	return q
}

func (q *requestDirectives) add(name, arg string, hasArg bool) {
	switch name {
	case "max-age":
		q.maxAge.add(arg)
	case "min-fresh":
		if _, ok := parseSeconds(arg); !ok {
			q.noCache = true
		}
		q.minFresh.add(arg)
	case "max-stale":
		if !hasArg {
			q.anyStale = true // of any age
			return
		}
		q.maxStale.add(arg)
	case "stale-if-error":
		q.staleIfError.add(arg)
	case "no-cache":
		q.noCache = true
	case "no-store":
		q.noStore = true
	case "only-if-cached":
		q.onlyIfCached = true
	}
}

// eachDirective calls f with every directive of a Cache-Control line, the name
// in lower case, the argument without its quotes (RFC 9111, 5.2). It is false
// if the line is malformed such that directives may have been overlooked;
// what can be read of it is read all the same.
func eachDirective(line string, f func(name, arg string, hasArg bool)) bool {
	whole := true
	for line != "" {
		end := strings.IndexAny(line, ",=")
		if end < 0 {
			end = len(line)
		}
		name := line[:end]
		if end == len(line) || line[end] == ',' {
			line = line[min(end+1, len(line)):]
			call(f, name, "", false)
			continue
		}
		line = line[end+1:]
		var arg string
		if value := strings.TrimLeft(line, " \t"); strings.HasPrefix(value, `"`) {
			var ok bool
			if arg, line, ok = quoted(value); ok {
				rest, after, _ := strings.Cut(line, ",")
				if trim(rest) != "" {
					arg = spoilt + arg
				}
				call(f, name, arg, true)
				line = after
				continue
			}
			// The quote does not end. It may hide directives: look at them.
			whole, line = false, value[1:]
		}
		arg, line, _ = strings.Cut(line, ",")
		call(f, name, strings.TrimRight(arg, " \t"), true)
	}
	return whole
}

// spoilt at its beginning makes an argument neither a number nor a list of
// names: what stands in a place where the grammar wants something else may
// restrict, but never permit.
const spoilt = "="

// call is f with the name in lower case, whitespace before the "=" taken off.
func call(f func(name, arg string, hasArg bool), name, arg string, hasArg bool) {
	name = strings.TrimLeft(name, " \t")
	if t := strings.TrimRight(name, " \t"); len(t) != len(name) {
		name = t
		if hasArg {
			arg = spoilt + arg
		}
	}
	if name != "" {
		f(lower(name), arg, hasArg)
	}
}

// lower is strings.ToLower that costs nothing for what is lower case already.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// quoted takes the quoted-string off the front of s (RFC 9110, 5.6.4).
func quoted(s string) (text, rest string, ok bool) {
	escaped := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			text = s[1:i]
			if escaped {
				text = unescape(text)
			}
			return text, s[i+1:], true
		}
	}
	return "", s, false
}

func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// tchar says whether c may stand in a token (RFC 9110, 5.6.2).
func tchar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
