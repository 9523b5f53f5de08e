package origin

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

// maxRedirects is how many redirects of one request are followed.
const maxRedirects = 5

// maxLocation bounds a Location that is looked at, in bytes.
const maxLocation = 16 << 10

// location is a URL taken apart, its target byte for byte as received.
type location struct{ scheme, host, target string }

// redirects reports whether an answer is a redirect that may be followed: the
// method stays what it was with all of these for GET and HEAD.
func redirects(method string, resp *http.Response) bool {
	if method != http.MethodGet && method != http.MethodHead {
		return false
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// resolveLocation says where text leads from base (RFC 9110 section 10.2.2,
// RFC 3986 section 5.2). Errors do not hold path or query.
func resolveLocation(base location, text string) (location, error) {
	if len(text) > maxLocation {
		return location{}, fmt.Errorf("a Location of %d bytes", len(text))
	}
	if !visible(text) {
		return location{}, fmt.Errorf("a Location with a space, control or non-ASCII character")
	}
	text, _, _ = strings.Cut(text, "#")
	to := base
	if i := strings.IndexAny(text, ":/?"); i > 0 && text[i] == ':' {
		if to.scheme = strings.ToLower(text[:i]); to.scheme != "http" && to.scheme != "https" {
			return location{}, fmt.Errorf("scheme %s", printable(to.scheme))
		}
		if text = text[i+1:]; !strings.HasPrefix(text, "//") {
			return location{}, fmt.Errorf("a Location without a host")
		}
	}
	if rest, ok := strings.CutPrefix(text, "//"); ok {
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		var err error
		if to.host, err = redirectHost(to.scheme, rest[:end]); err != nil {
			return location{}, err
		}
		if text = rest[end:]; !strings.HasPrefix(text, "/") {
			text = "/" + text
		}
	}
	basePath, _, _ := strings.Cut(base.target, "?")
	switch {
	case text == "":
		to.target = base.target
	case text[0] == '/':
		to.target = removeDots(text)
	case text[0] == '?':
		to.target = basePath + text
	default:
		to.target = removeDots(basePath[:strings.LastIndexByte(basePath, '/')+1] + text)
	}
	return to, nil
}

// redirectHost checks the authority of a Location: a host name, at most with
// the scheme's own port, without userinfo.
func redirectHost(scheme, authority string) (string, error) {
	if strings.Contains(authority, "@") {
		return "", fmt.Errorf("userinfo in the Location")
	}
	host := authority
	if h, port, err := net.SplitHostPort(authority); err == nil {
		host = h
		if want := map[string]string{"http": "80", "https": "443"}[scheme]; port != "" && port != want {
			return "", fmt.Errorf("port %s", printable(port))
		}
	}
	if host = strings.TrimSuffix(strings.ToLower(host), "."); !validName(host) {
		return "", fmt.Errorf("host %s", printable(host))
	}
	return host, nil
}

// removeDots resolves the dot segments of a target's path (RFC 3986 section
// 5.2.4) and leaves everything else as it is. The target begins with a slash.
func removeDots(target string) string {
	path, query, asked := strings.Cut(target, "?")
	if strings.Contains(path, "/.") {
		segments := strings.Split(path[1:], "/")
		kept := make([]string, 0, len(segments))
		for i, s := range segments {
			last := i == len(segments)-1
			switch {
			case s == "..":
				kept = kept[:max(0, len(kept)-1)]
				fallthrough
			case s == ".":
				if last {
					kept = append(kept, "")
				}
			default:
				kept = append(kept, s)
			}
		}
		path = "/" + strings.Join(kept, "/")
	}
	if asked {
		return path + "?" + query
	}
	return path
}

// visible reports whether s has only visible ASCII characters, as a request
// target must (RFC 9112 section 3.2).
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
