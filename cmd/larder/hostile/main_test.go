package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

func TestMain(m *testing.M) { lardertest.Main(m) }

// publisher is one that takes every host, as a reverse proxy does.
const publisher = `
name: site
default: true
freshness: standard
origin: {scheme: http, address: %q}
`

// site starts a node before an origin.
func site(t *testing.T, origin http.HandlerFunc) *lardertest.Node {
	t.Helper()
	srv := httptest.NewServer(origin)
	t.Cleanup(srv.Close)
	return lardertest.StartNode(t, lardertest.NodeConfig{Files: map[string]string{"catalog.d/site.yaml": fmt.Sprintf(publisher, srv.Listener.Addr())}})
}

// say sends bytes and reads one answer; nil for a connection that was closed
// without one.
func say(t *testing.T, addr, text string) *answer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	if err != nil {
		if _, ok := err.(*net.OpError); ok || os.IsTimeout(err) {
			return nil
		}
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{resp.StatusCode, resp.Header, string(b)}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a *answer) String() string {
	if a == nil {
		return "no answer"
	}
	return fmt.Sprintf("%d %q %v", a.status, a.body, a.header)
}
