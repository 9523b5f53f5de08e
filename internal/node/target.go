package node

import (
	"strings"
)

// asked is what a request asks for, before the catalogue had its say.
type asked struct {
	scheme string // as the client came: http or https
	host   string // without port
	port   string // of an absolute-form target or of cacheHostOrigin; "" when there is none
	path   string // as sent
	query  string // as sent, without cacheHostOrigin
	hasQ   bool   // there is a query, be it empty
	named  bool   // by cacheHostOrigin or an absolute-form target, not by Host alone
}

// target returns the request target for the origin: path and query byte for byte.
func (a *asked) target() string {
	if !a.hasQ {
		return a.path
	}
	return a.path + "?" + a.query
}

// parseAsked says who and what a request is for: cacheHostOrigin (the last one
// wins, and it is cut out), else the Host of an absolute-form target, else the
// Host field (docs/protocol.md). The sentence is for the client when ok is false.
func parseAsked(target, hostField string, tls bool) (a asked, sentence string, ok bool) {
	a.scheme = "http"
	if tls {
		a.scheme = "https"
	}
	host := hostField
	rest := target
	if !strings.HasPrefix(target, "/") {
		scheme, after, found := strings.Cut(target, "://")
		if !found {
			return a, "The request target must be a path or a whole URL.", false
		}
		switch strings.ToLower(scheme) {
		case "http", "https":
			a.scheme = strings.ToLower(scheme)
		default:
			return a, "Only http and https URLs are served.", false
		}
		end := strings.IndexAny(after, "/?#")
		if end < 0 {
			end = len(after)
		}
		host, rest = after[:end], after[end:]
		if strings.Contains(host, "@") {
			return a, "A URL with user information is not served.", false
		}
		if !strings.HasPrefix(rest, "/") {
			rest = "/" + rest
		}
		a.named = true
	}
	if strings.Contains(rest, "#") {
		return a, "The request target holds a fragment.", false
	}
	a.path, a.query, a.hasQ = strings.Cut(rest, "?")
	if origin, query, found := cutCacheHostOrigin(a.query); found {
		a.query = query
		a.hasQ = query != ""
		a.named = true
		if origin, ok = unescapeHost(origin); !ok {
			return a, "cacheHostOrigin is not a host name.", false
		}
		host = origin
	}
	a.host, a.port, ok = splitHost(host)
	if !ok {
		return a, "The host asked for is not a host name.", false
	}
	if !a.named {
		a.port = "" // the node's own, as the client knows it
	}
	if a.host == "" {
		return a, "The request names no host.", false
	}
	return a, "", true
}

// cutCacheHostOrigin removes every cacheHostOrigin parameter from a raw query
// and returns the value of the last. All other bytes stay as they are.
func cutCacheHostOrigin(query string) (origin, rest string, found bool) {
	const name = "cacheHostOrigin"
	if len(query) <= len(name) {
		return "", query, false
	}
	var b strings.Builder
	start, kept := 0, false
	for start <= len(query) {
		end := strings.IndexByte(query[start:], '&')
		if end < 0 {
			end = len(query)
		} else {
			end += start
		}
		p := query[start:end]
		if len(p) > len(name) && p[len(name)] == '=' && strings.EqualFold(p[:len(name)], name) {
			origin, found = p[len(name)+1:], true
		} else {
			if kept {
				b.WriteByte('&')
			}
			b.WriteString(p)
			kept = true
		}
		start = end + 1
	}
	if !found {
		return "", query, false
	}
	return origin, b.String(), true
}

// unescapeHost decodes the percent-encoding a client may have put into a host
// name, such as %2E; what is left encoded is no host name.
func unescapeHost(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, s != ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), b.Len() > 0
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// splitHost cuts host[:port] and refuses what is neither a name nor an address.
func splitHost(s string) (host, port string, ok bool) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", false
		}
		host, s = s[:end+1], s[end+1:]
	} else {
		end := strings.IndexByte(s, ':')
		if end < 0 {
			end = len(s)
		}
		host, s = s[:end], s[end:]
	}
	if s != "" {
		if s[0] != ':' {
			return "", "", false
		}
		port = s[1:]
		for i := range len(port) {
			if port[i] < '0' || port[i] > '9' {
				return "", "", false
			}
		}
	}
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '.', c == '-', c == '_', c >= 0x80:
		case c == '[' || c == ']' || c == ':':
			if host[0] != '[' {
				return "", "", false
			}
		default:
			return "", "", false
		}
	}
	return host, port, true
}
