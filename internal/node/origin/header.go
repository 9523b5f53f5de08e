package origin

import (
	"net/http"
	"strings"
)

// hopByHop are the fields that concern one connection only (RFC 9110 section
// 7.6.1, and those that older software treats so).
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// framing are the fields that say which bytes a body is. An origin cannot
// take them away by naming them in Connection.
var framing = map[string]bool{
	"Content-Length": true, "Content-Range": true, "Content-Encoding": true, "Content-Type": true,
}

// requestHeader makes the header to send from what the caller gave.
func (c *Client) requestHeader(given http.Header) http.Header {
	h := make(http.Header, len(given)+3)
	for name, values := range given {
		switch name = http.CanonicalHeaderKey(name); {
		case name == "Host", name == "Content-Length", name == "Via", name == "Expect", name == "Accept-Encoding":
		case strings.HasPrefix(name, "X-Forwarded-"), name == "Forwarded", name == "X-Real-Ip", name == "Client-Ip", name == "True-Client-Ip", name == "X-Client-Ip":
			// Who asked is nobody's business upstream.
		default:
			h[name] = append(h[name], values...)
		}
	}
	removeHopByHop(h, nil)
	h.Set("Accept-Encoding", "identity")
	h.Set("Via", c.continueVia(valuesFold(given, "Via")))
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", "larder")
	}
	return h
}

// valuesFold returns the values of a field however its name is spelt.
func valuesFold(h http.Header, name string) (values []string) {
	for n, vs := range h {
		if strings.EqualFold(n, name) {
			values = append(values, vs...)
		}
	}
	return values
}

// cleanResponse removes from an answer's header, or from its trailer, what
// concerned the connection and what would not be safe to pass on.
func cleanResponse(h http.Header) {
	removeHopByHop(h, framing)
	for name, values := range h {
		if !validToken(name) {
			delete(h, name)
			continue
		}
		for _, v := range values {
			if !validValue(v) {
				delete(h, name)
				break
			}
		}
	}
}

func removeHopByHop(h http.Header, except map[string]bool) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); name != "" && !except[name] {
				delete(h, name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// trailer returns the fields of a received trailer that may be passed on.
func trailer(received http.Header) http.Header {
	h := make(http.Header, len(received))
	for name, values := range received {
		if len(values) > 0 && !framing[name] {
			h[name] = values
		}
	}
	cleanResponse(h)
	return h
}

// validToken reports whether s is a token (RFC 9110 section 5.6.2).
func validToken(s string) bool {
	for i := range len(s) {
		b := s[i]
		if !(b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0) {
			return false
		}
	}
	return s != ""
}

// validValue reports whether s can stand in a field line (RFC 9110 section
// 5.5): no control characters but the tab.
func validValue(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}
