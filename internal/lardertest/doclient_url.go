package lardertest

import (
	"fmt"
	"strconv"
	"strings"
)

// httpURL is a URL in the parts that a Delivery Optimization client moves
// about. Path and query are the bytes as given; nothing is decoded.
type httpURL struct {
	scheme string // http or https
	host   string // lower case, IPv6 in brackets
	port   string // "" when the URL names none
	path   string // at least "/"
	query  string // without "?"
}

// parseURL accepts what the real client's check accepts, as far as the
// recorded rows tell: one host, one port.
func parseURL(raw string) (httpURL, error) {
	bad := func(what string) (httpURL, error) {
		return httpURL{}, fmt.Errorf("URL %q: %s", raw, what)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	u := httpURL{scheme: strings.ToLower(scheme)}
	if !ok || (u.scheme != "http" && u.scheme != "https") {
		return bad("expected http:// or https://")
	}
	rest, _, _ = strings.Cut(rest, "#")
	authority := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, rest = rest[:i], rest[i:]
	} else {
		rest = ""
	}
	u.path, u.query, _ = strings.Cut(rest, "?")
	if u.path == "" {
		u.path = "/"
	}

	host, port := authority, ""
	if end := strings.IndexByte(authority, ']'); strings.HasPrefix(authority, "[") && end > 0 {
		host = authority[:end+1]
		if after := authority[end+1:]; after != "" {
			if port, ok = strings.CutPrefix(after, ":"); !ok {
				return bad("text after the address")
			}
		}
	} else if i := strings.IndexByte(authority, ':'); i >= 0 {
		host, port = authority[:i], authority[i+1:]
		if port == "" {
			return bad("empty port")
		}
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("bad port")
		}
	}
	if host == "" {
		return bad("no host")
	}
	if host[0] != '[' && strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-_~%") != "" {
		return bad("bad host")
	}
	u.host, u.port = strings.ToLower(host), port
	return u, nil
}

// String puts the URL together again.
func (u httpURL) String() string { return u.scheme + "://" + u.authority() + u.target() }

// authority is what goes into Host.
func (u httpURL) authority() string {
	if u.port == "" {
		return u.host
	}
	return u.host + ":" + u.port
}

// target is what goes into the request line.
func (u httpURL) target() string {
	if u.query == "" {
		return u.path
	}
	return u.path + "?" + u.query
}

// address is host and port to connect to, the key of DOClient.Connect.
func (u httpURL) address() string {
	if u.port != "" {
		return u.host + ":" + u.port
	}
	if u.scheme == "https" {
		return u.host + ":443"
	}
	return u.host + ":80"
}

// swapHost makes the URL under which a cache is asked for the content of raw:
// the host becomes the cache's, and the original one goes to the end of the
// query. Scheme, port, path and query stay byte for byte.
func swapHost(raw, cacheHost string) (string, error) {
	u, err := parseURL(raw)
	if err != nil {
		return "", err
	}
	query := u.query
	if query != "" && !strings.HasSuffix(query, "&") {
		query += "&"
	}
	query += "cacheHostOrigin=" + u.host
	port := ""
	if u.port != "" {
		port = ":" + u.port
	}
	// Not parsed into parts: a cache host with a port of its own and a URL
	// with one make two, and that is for the check to refuse.
	swapped := u.scheme + "://" + cacheHost + port + u.path + "?" + query
	if _, err := parseURL(swapped); err != nil {
		return "", err
	}
	return swapped, nil
}

// resolveLocation returns where a redirect leads.
func resolveLocation(from httpURL, location string) (httpURL, error) {
	switch {
	case strings.Contains(location, "://"):
		return parseURL(location)
	case strings.HasPrefix(location, "//"):
		return parseURL(from.scheme + ":" + location)
	case strings.HasPrefix(location, "/"):
		return parseURL(from.scheme + "://" + from.authority() + location)
	default:
		dir := from.path[:strings.LastIndexByte(from.path, '/')+1]
		return parseURL(from.scheme + "://" + from.authority() + dir + location)
	}
}
