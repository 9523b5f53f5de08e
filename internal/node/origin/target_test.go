package origin

import (
	"net/url"
	"strings"
	"testing"
)

var uglyTargets = []string{
	"/é?ä=\xff", // not allowed, sent by some, and taken by servers
	"/",
	"/?",
	"/plain/path.cab",
	"/ok/a%2Fb;c=1/d+e%20f?x=%25&y=a+b",
	"/a%2fb%2F%41%7e",
	"//double/slash",
	"///three//inside///and/end//",
	"//",
	"//host.example/looks?like=authority",
	"//odd|and\"quoted<>^`{}\\",
	"//bad%zzescape%",
	"/path?",
	"/path??",
	"/path?a=b?c=d#not-a-fragment",
	"/a:b@c/user:pw@host",
	"/http://inner.example/x",
	"/;params;;x=1,2?;&&==",
	"/|\"<>\\^`{}[]",
	"/%",
	"/%zz%0",
	"/dots/../and/./more/..",
	"/!$&'()*+,-._~",
	"/x?P1=1700000000&P2=404&P3=2&P4=a%2bb%2Fc%3d%3D",
	"*",
}

func TestTargetIsSentByteForByte(t *testing.T) {
	t.Parallel()
	conf := serverTLS(t, anHour(), "files.example.com")
	long := "/" + strings.Repeat("long%20/", 2000)
	for _, way := range []struct {
		name string
		via  func(t *testing.T) (c *Client, ep Endpoint, prefix string, heads <-chan []string)
	}{
		{"plain", func(t *testing.T) (*Client, Endpoint, string, <-chan []string) {
			address, heads := answering(t, nil, answerOK)
			return newClient(t, Config{}), plainEndpoint(address), "", heads
		}},
		{"tls", func(t *testing.T) (*Client, Endpoint, string, <-chan []string) {
			address, heads := answering(t, conf, answerOK)
			return newClient(t, Config{}), tlsEndpoint(address), "", heads
		}},
		{"absolute-form through a proxy", func(t *testing.T) (*Client, Endpoint, string, <-chan []string) {
			proxy, heads := answering(t, nil, answerOK)
			return newClient(t, Config{Proxy: &url.URL{Scheme: "http", Host: proxy}}),
				Endpoint{Scheme: "http", Host: "files.example.com"}, "http://files.example.com", heads
		}},
		{"tls through a proxy", func(t *testing.T) (*Client, Endpoint, string, <-chan []string) {
			address, heads := answering(t, conf, answerOK)
			p := newProxy(t, nil, map[string]string{"files.example.com:443": address})
			return newClient(t, Config{Proxy: p.url}),
				Endpoint{Scheme: "https", Host: "files.example.com", Roots: authority().pool}, "", heads
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			c, ep, prefix, heads := way.via(t)
			for _, target := range append(uglyTargets, long, "/"+long) {
				method, sent := "GET", target
				if target == "*" {
					method = "OPTIONS"
					if prefix != "" {
						sent = "" // RFC 9112 section 3.2.4
					}
				}
				if _, body := get(t, c, &Request{Endpoint: ep, Method: method, Target: target}); body != "ok" {
					t.Errorf("target %q: body %q", target, body)
				}
				head := <-heads
				if want := method + " " + prefix + sent + " HTTP/1.1"; head[0] != want {
					t.Errorf("request line\n got %q\nwant %q", head[0], want)
				}
				if head[1] != "Host: files.example.com" {
					t.Errorf("got %q", head[1])
				}
			}
			if n := metric(t, c, "larder_origin_opened_connections_total"); n != 1 {
				t.Errorf("%v connections for requests one after the other, want 1", n)
			}
		})
	}
}

func TestTargetsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	address, heads := answering(t, nil, answerOK)
	c := newClient(t, Config{})
	for _, target := range []string{
		"", "path", "?q", "*", "http://files.example.com/", "files.example.com:443",
		"/a b", "/a?" + secret + " b", "/tab\t", "/nul\x00", "/line\r\nX: y", "/del\x7f",
	} {
		_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: target})
		wantError(t, err, 502, KindProtocol)
	}
	for _, method := range []string{"CONNECT", "GE T", "GET\r\n", "GÉT"} {
		_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Method: method, Target: "/"})
		wantError(t, err, 502, KindProtocol)
	}
	if len(heads) > 0 {
		t.Errorf("the server was asked: %q", <-heads)
	}
}
