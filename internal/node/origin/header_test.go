package origin

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequestHeader(t *testing.T) {
	t.Parallel()
	address, heads := answering(t, nil, answerOK)
	c := newClient(t, Config{NodeID: "n1"})
	for _, tt := range []struct {
		name  string
		given http.Header
		want  []string
	}{
		{"nothing given", nil, []string{"Accept-Encoding: identity", "User-Agent: larder", "Via: 1.1 larder-n1"}},
		{"passed on", http.Header{
			"User-Agent": {"Microsoft-Delivery-Optimization/10.0"}, "Range": {"bytes=0-1"}, "If-Range": {`"e"`},
			"Ms-Cv": {"vector"}, "Accept": {"*/*"},
		}, []string{
			"Accept-Encoding: identity", "Accept: */*", `If-Range: "e"`, "Ms-Cv: vector", "Range: bytes=0-1",
			"User-Agent: Microsoft-Delivery-Optimization/10.0", "Via: 1.1 larder-n1",
		}},
		{"removed", http.Header{
			"Connection": {"keep-alive, X-Secret", "x-other"}, "X-Secret": {"1"}, "X-Other": {"2"}, "Keep-Alive": {"timeout=5"},
			"Te": {"trailers"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"},
			"Proxy-Authorization": {"Basic x"}, "Proxy-Connection": {"Keep-Alive"}, "Proxy-Authenticate": {"Basic"},
			"X-Forwarded-For": {"10.0.0.9"}, "X-Forwarded-Host": {"h"}, "x-forwarded-proto": {"https"}, "Forwarded": {"for=10.0.0.9"},
			"X-Real-Ip": {"10.0.0.9"}, "Host": {"evil.example"}, "Content-Length": {"99"}, "Expect": {"100-continue"},
			"Accept-Encoding": {"gzip, br"},
		}, []string{"Accept-Encoding: identity", "User-Agent: larder", "Via: 1.1 larder-n1"}},
		{"via continued", http.Header{"Via": {"1.0 fred (a, b)", "HTTP/1.1 proxy.example:80"}},
			[]string{"Accept-Encoding: identity", "User-Agent: larder", "Via: 1.0 fred (a, b), HTTP/1.1 proxy.example:80, 1.1 larder-n1"}},
		{"via that would hide what follows", http.Header{"Via": {"1.1 evil (open", "1.1 good"}},
			[]string{"Accept-Encoding: identity", "User-Agent: larder", "Via: 1.1 good, 1.1 larder-n1"}},
	} {
		before := tt.given.Clone()
		get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "/", Header: tt.given})
		head := (<-heads)[2:]
		slices.Sort(head)
		if d := cmp.Diff(tt.want, head); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
		if d := cmp.Diff(before, tt.given); d != "" {
			t.Errorf("%s: the caller's header was changed\n%s", tt.name, d)
		}
	}
	_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/", Header: http.Header{"X-A": {"v\r\nInjected: " + secret}}})
	wantError(t, err, 502, KindProtocol)
}

func TestResponseHeader(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, strings.Join([]string{
		"HTTP/1.1 206 Partial Content", "Content-Length: 2", "Content-Range: bytes 0-1/10", `ETag: "e"`,
		"Connection: keep-alive, x-hop, content-length, Content-Range", "X-Hop: 1", "Keep-Alive: timeout=5",
		"Proxy-Authenticate: Basic", "Upgrade: h2c", "Content-Encoding: gzip", "Set-Cookie: a=b", "X-Latin: caf\xe9", "X Spaced: a", "", "ok",
	}, "\r\n"))
	c := newClient(t, Config{})
	resp, body := get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	want := http.Header{
		"Content-Length": {"2"}, "Content-Range": {"bytes 0-1/10"}, "Etag": {`"e"`}, "Content-Encoding": {"gzip"},
		"Set-Cookie": {"a=b"}, "X-Latin": {"caf\xe9"},
	}
	if d := cmp.Diff(want, resp.Header); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if resp.Status != 206 || resp.ContentLength != 2 || body != "ok" {
		t.Errorf("got %d, length %d, body %q", resp.Status, resp.ContentLength, body)
	}
}

func TestHeadsThatAreNotSafe(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"bare CR in a value":          "HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
		"NUL in a value":              "HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"two lengths":                 "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"negative length":             "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"another protocol":            "SSH-2.0-OpenSSH_9.9\r\n\r\n",
		"the request's own words":     "GET /x?" + secret + " HTTP/1.1\r\n\r\n",
		"HTTP/2 in the status line":   "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"switching protocols":         "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"status below 100":            "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
		"status above 599":            "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
		"a transfer coding unknown":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"a huge head":                 "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 70<<10) + "\r\nContent-Length: 0\r\n\r\n",
		"many fields":                 "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: a\r\n", 10000) + "Content-Length: 0\r\n\r\n",
		"interim answers without end": strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := answering(t, nil, answer)
			c := newClient(t, Config{})
			_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/x?" + secret})
			wantError(t, err, 502, KindProtocol)
			eventually(t, "the connection is closed", func() bool { return metric(t, c, "larder_origin_open_connections") == 0 })
			if n := metric(t, c, "larder_origin_requests_total", "outcome", KindProtocol); n != 1 {
				t.Errorf("%v requests counted", n)
			}
		})
	}
}

func TestInterimAnswersAreSkipped(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+answerOK)
	c := newClient(t, Config{})
	resp, body := get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if resp.Status != 200 || body != "ok" || resp.Header.Get("Link") != "" {
		t.Errorf("got %d %q %v", resp.Status, body, resp.Header)
	}
}

func TestTrailer(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Keep-Alive\r\nConnection: close\r\n\r\n"+
		"2\r\nok\r\n0\r\nX-Sum: 1234\r\nKeep-Alive: x\r\nContent-Range: bytes 0-1/2\r\n\r\n")
	c := newClient(t, Config{})
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if len(resp.Trailer()) != 0 || resp.ContentLength != -1 {
		t.Errorf("before the body: trailer %v, length %d", resp.Trailer(), resp.ContentLength)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
		t.Fatalf("body %q, %v", b, err)
	}
	if d := cmp.Diff(http.Header{"X-Sum": {"1234"}}, resp.Trailer()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
