package origin

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestResolveLocation(t *testing.T) {
	t.Parallel()
	base := location{"https", "a.example", "/dir/sub/file?old=1"}
	for text, want := range map[string]location{
		"http://b.example/x%2Fy?q=%41&;+//#frag": {"http", "b.example", "/x%2Fy?q=%41&;+//"},
		"HTTPS://B.Example.:443":                 {"https", "b.example", "/"},
		"https://b.example?q":                    {"https", "b.example", "/?q"},
		"http://b.example:80/":                   {"http", "b.example", "/"},
		"http://b.example:/":                     {"http", "b.example", "/"},
		"//b.example/p":                          {"https", "b.example", "/p"},
		"//b.example":                            {"https", "b.example", "/"},
		"https://b.example//double//":            {"https", "b.example", "//double//"},
		"/abs/./path/../x":                       {"https", "a.example", "/abs/x"},
		"/..%2f/../../x?a=/../b":                 {"https", "a.example", "/x?a=/../b"},
		"/a/..":                                  {"https", "a.example", "/"},
		"/a/b/.":                                 {"https", "a.example", "/a/b/"},
		"/.well-known/x":                         {"https", "a.example", "/.well-known/x"},
		"rel?n=2":                                {"https", "a.example", "/dir/sub/rel?n=2"},
		"../up":                                  {"https", "a.example", "/dir/up"},
		"./a:b":                                  {"https", "a.example", "/dir/sub/a:b"},
		"?new=1":                                 {"https", "a.example", "/dir/sub/file?new=1"},
		"#top":                                   {"https", "a.example", "/dir/sub/file?old=1"},
	} {
		if got, err := resolveLocation(base, text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"ftp://b.example/", "javascript:alert(1)", "https:/b.example/", "http:b", "https://user@b.example/", "https://user:pw@b.example/",
		"https://b.example:8443/", "https://b.example:80/", "http://b.example:443/", "https://b.example:x/", "https:///path", "https://b_..example/",
		"https://[::1]/", "https://[::1]:443/", "https://b.example\\@c.example/", "https://b.example\\.c/", "/a b", "/é", "/x\x00", "/\t",
		"/" + strings.Repeat("a", maxLocation),
	} {
		if got, err := resolveLocation(base, text); err == nil {
			t.Errorf("%.60q leads to %+v", text, got)
		}
	}
}

// site is a server for which every path but /end redirects by a table.
func site(t *testing.T, conf *tls.Config, status int, to map[string]string) (address string, heads <-chan []string) {
	ch := make(chan []string, 100)
	return rawServer(t, conf, func(conn net.Conn, br *bufio.Reader) {
		for {
			head, err := readHead(br)
			if err != nil {
				return
			}
			ch <- head
			path := strings.Fields(head[0])[1]
			if l, ok := to[path]; ok {
				body := "moved"
				if strings.HasPrefix(head[0], "HEAD") {
					body = ""
				}
				fmt.Fprintf(conn, "HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 5\r\n\r\n%s", status, l, body)
				continue
			}
			if strings.HasPrefix(head[0], "HEAD") {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
				continue
			}
			io.WriteString(conn, answerOK)
		}
	}), ch
}

// listed follows to the hosts of a table and to no others.
func listed(hosts map[string]Endpoint) func(scheme, host, target string) (Endpoint, string, bool) {
	return func(scheme, host, target string) (Endpoint, string, bool) {
		ep, ok := hosts[scheme+"://"+host]
		return ep, target, ok
	}
}

func TestRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	secure, secureHeads := site(t, serverTLS(t, anHour(), "b.example"), 302, nil)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, method := range []string{"GET", "HEAD"} {
			first, firstHeads := site(t, nil, status, map[string]string{
				"/start?" + secret: "/second%2F?x=1", "/second%2F?x=1": "https://B.example:443//end%20;+?P1=" + secret + "#f",
			})
			b := Endpoint{Scheme: "https", Host: "b.example", Address: secure, Roots: authority().pool}
			c := newClient(t, Config{NodeID: "n"})
			resp, body := get(t, c, &Request{
				Endpoint: plainEndpoint(first), Method: method, Target: "/start?" + secret,
				Header: http.Header{"Range": {"bytes=0-1"}, "If-Range": {`"e"`}, "Authorization": {"Bearer x"}, "Cookie": {"c=d"}, "X-A": {"b"}},
				Follow: listed(map[string]Endpoint{"http://files.example.com": plainEndpoint(first), "https://b.example": b}),
			})
			if resp.Status != 200 || method == "GET" && body != "ok" || resp.ContentLength != 2 || resp.Endpoint != b {
				t.Errorf("%d %s: got %d %q from %+v", status, method, resp.Status, body, resp.Endpoint)
			}
			<-firstHeads
			second, last := <-firstHeads, <-secureHeads
			if want := method + " /second%2F?x=1 HTTP/1.1"; second[0] != want || !hasLine(second, "Authorization: Bearer x") || !hasLine(second, "Range: bytes=0-1") {
				t.Errorf("second request %q", second)
			}
			if want := method + " //end%20;+?P1=" + secret + " HTTP/1.1"; last[0] != want {
				t.Errorf("got %q, want %q", last[0], want)
			}
			for _, line := range []string{"Range: bytes=0-1", `If-Range: "e"`, "X-A: b", "Via: 1.1 larder-n", "Host: b.example", "Accept-Encoding: identity"} {
				if !hasLine(last, line) {
					t.Errorf("%d %s: no %q in %q", status, method, line, last)
				}
			}
			if hasLine(last, "Authorization: Bearer x") || hasLine(last, "Cookie: c=d") {
				t.Errorf("another host is told secrets: %q", last)
			}
			if n := metric(t, c, "larder_origin_redirects_total"); n != 2 {
				t.Errorf("%v redirects counted", n)
			}
			if n := metric(t, c, "larder_origin_opened_connections_total"); n != 2 {
				t.Errorf("%v connections opened, want one for each host", n)
			}
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{
		"http://evil.example/?" + secret:             KindRedirect,
		"http://files.example.com:8080/":             KindRedirect,
		"http://" + password + "@files.example.com/": KindRedirect,
		"ftp://files.example.com/" + secret:          KindRedirect,
		"http://[::1]/":                              KindRedirect,
		"http://files.example.com/\xe9" + secret:     KindRedirect,
		"/start":                                     KindRedirect, // itself
		"x/../../start#" + secret:                    KindRedirect,
		"/ring":                                      KindRedirect,
		"/1":                                         KindRedirect, // one too many
		"http://private.example/":                    KindForbidden,
		"http://127.0.0.1/":                          KindForbidden,
		"http://localhost/":                          KindForbidden,
	}
	for where, kind := range kinds {
		address, _ := site(t, nil, 302, map[string]string{
			"/start": where, "/ring": "/start", "/1": "/2", "/2": "/3", "/3": "/4", "/4": "/5", "/5": "/end",
		})
		own := plainEndpoint(address)
		c := newClient(t, Config{Lookup: lookup("10.0.0.1")})
		_, err := c.Do(t.Context(), &Request{Endpoint: own, Target: "/start", Follow: listed(map[string]Endpoint{
			"http://files.example.com": own,
			"http://private.example":   {Scheme: "http", Host: "private.example"},
			"http://127.0.0.1":         {Scheme: "http", Host: "127.0.0.1"},
			"http://localhost":         {Scheme: "http", Host: "localhost"},
		})})
		if err == nil {
			t.Errorf("%s was followed", where)
			continue
		}
		wantError(t, err, 502, kind)
		for _, o := range c.origins.values() {
			if len(o.slots) > 0 || o.users > 0 {
				t.Errorf("%s: %s is still in use", where, o.name)
			}
		}
	}
	address, _ := site(t, nil, 302, map[string]string{"/1": "/2", "/2": "/3", "/3": "/4", "/4": "/5", "/5": "/end"})
	own := plainEndpoint(address)
	get(t, newClient(t, Config{}), &Request{Endpoint: own, Target: "/1", Follow: listed(map[string]Endpoint{"http://files.example.com": own})})
}

func TestRedirectIsReturned(t *testing.T) {
	t.Parallel()
	address, _ := site(t, nil, 302, map[string]string{"/a": "http://evil.example/", "/b": "/end"})
	c := newClient(t, Config{})
	follow := listed(map[string]Endpoint{"http://files.example.com": plainEndpoint(address)})
	for name, r := range map[string]*Request{
		"nobody follows": {Target: "/a"},
		"POST":           {Target: "/b", Method: "POST", Follow: follow},
		"with a body":    {Target: "/b", Body: strings.NewReader("x"), ContentLength: 1, Follow: follow},
	} {
		r.Endpoint = plainEndpoint(address)
		if resp, body := get(t, c, r); resp.Status != 302 || body != "moved" || resp.Header.Get("Location") == "" {
			t.Errorf("%s: got %d %q", name, resp.Status, body)
		}
	}
	for _, answer := range []string{
		"HTTP/1.1 304 Not Modified\r\nLocation: /x\r\nContent-Length: 10\r\n\r\n", "HTTP/1.1 300 Multiple Choices\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
	} {
		address, _ := answering(t, nil, answer)
		if resp, _ := get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "/", Follow: follow}); resp.Status/100 != 3 {
			t.Errorf("got %d", resp.Status)
		}
	}
}

func TestRedirectFromTLSToPlain(t *testing.T) {
	t.Parallel()
	plain, plainHeads := site(t, nil, 302, map[string]string{"/up": "https://files.example.com/down"})
	secure, _ := site(t, serverTLS(t, anHour(), "files.example.com"), 302, map[string]string{
		"/down": "http://plain.example/end", "/mapped": "https://mapped.example/end",
	})
	hosts := map[string]Endpoint{
		"http://plain.example":      {Scheme: "http", Host: "plain.example", Address: plain},
		"https://files.example.com": tlsEndpoint(secure),
		"https://mapped.example":    {Scheme: "http", Host: "mapped.example"},
	}
	c := newClient(t, Config{})
	for _, path := range []string{"/down", "/mapped"} {
		_, err := c.Do(t.Context(), &Request{Endpoint: tlsEndpoint(secure), Target: path, Follow: listed(hosts)})
		wantError(t, err, 502, KindRedirect)
	}
	if len(plainHeads) > 0 {
		t.Fatal("asked in clear")
	}
	// Who began in clear loses nothing.
	get(t, c, &Request{Endpoint: plainEndpoint(plain), Target: "/up", Follow: listed(hosts)})
}

func TestSlowRedirectsShareOneTime(t *testing.T) {
	t.Parallel()
	address := rawServer(t, nil, func(conn net.Conn, br *bufio.Reader) {
		for n := 0; ; n++ {
			if _, err := readHead(br); err != nil {
				return
			}
			<-time.After(200 * time.Millisecond)
			fmt.Fprintf(conn, "HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n", n)
		}
	})
	c := newClient(t, Config{SilenceTimeout: 500 * time.Millisecond})
	// With a time for each they would end as too many.
	_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/", Follow: listed(map[string]Endpoint{"http://files.example.com": plainEndpoint(address)})})
	wantError(t, err, 504, KindTimeout)
}
