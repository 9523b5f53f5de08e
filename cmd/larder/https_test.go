package main_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// handshake connects and returns what was agreed upon.
func handshake(t testing.TB, addr string, config *tls.Config) tls.ConnectionState {
	t.Helper()
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatalf("handshake with %s: %v", addr, err)
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState()
}

func TestHTTPSOpensWithTheFirstCertificate(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{plain: true})
	l.origin.Add("/a", 1000)
	if l.HTTPS != "" {
		t.Fatalf("the node listens on %s without a certificate", l.HTTPS)
	}
	if !strings.Contains(l.Output(), "HTTP only") {
		t.Error("the node does not say that it serves HTTP only")
	}
	l.get(t, "/a").wantContent(t, "/a", 1, 1000, 0, 1000)

	ca := lardertest.NewCA(t)
	ca.Leaf(t, "127.0.0.1").Install(t, l.Dir+"/tls", "first")
	lardertest.Eventually(t, "the node listens for HTTPS", func() bool { return l.Refresh() && l.HTTPS != "" })
	r := ask(t, question{addr: l.HTTPS, tls: &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}, target: "/a"})
	r.wantContent(t, "/a", 1, 1000, 0, 1000)
}

func TestHTTPSSwappedCertificateDropsNoConnection(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	l := newLab(t, labOptions{})
	l.origin.Add("/slow", size)
	gate := make(chan struct{})
	l.origin.Set("/slow", lardertest.Behaviour{Before: func(lardertest.Recorded) { <-gate }})
	addr, config := l.addr("https")
	old := handshake(t, addr, config).PeerCertificates[0].SerialNumber

	// An answer is under way, and another connection is idle.
	q := question{addr: addr, tls: config, target: "/slow"}
	idle, err := q.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	type answer struct {
		r   *reply
		err error
	}
	busy := make(chan answer, 1)
	go func() {
		r, err := q.send(t.Context())
		busy <- answer{r, err}
	}()
	lardertest.Eventually(t, "the origin is asked", func() bool { return len(l.origin.RequestsFor("/slow")) > 0 })

	next := l.ca.Leaf(t, "127.0.0.1", "node.test")
	next.Install(t, l.Dir+"/tls", "next")
	lardertest.Eventually(t, "the new certificate is served", func() bool {
		got := handshake(t, addr, config).PeerCertificates[0].SerialNumber
		if got.Cmp(old) != 0 && got.Cmp(next.Cert.SerialNumber) != 0 {
			t.Fatalf("a third certificate is served: %v", got)
		}
		return got.Cmp(next.Cert.SerialNumber) == 0
	})
	close(gate)
	a := <-busy
	if a.err != nil {
		t.Fatalf("the answer under way: %v", a.err)
	}
	a.r.wantContent(t, "/slow", 1, size, 0, size)
	r, body, err := q.sendOn(idle)
	if err != nil {
		t.Fatalf("the idle connection: %v", err)
	}
	if n, err := io.Copy(io.Discard, body); err != nil || n != size || r.status != http.StatusOK {
		t.Errorf("the idle connection: %d, %d bytes, %v", r.status, n, err)
	}
}

func TestHTTPSBadPairLeavesTheOldInUse(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/a", 1000)
	addr, config := l.addr("https")
	old := handshake(t, addr, config).PeerCertificates[0].SerialNumber
	broken := l.ca.Leaf(t, "127.0.0.1")
	broken.KeyPEM = l.ca.Leaf(t, "127.0.0.1").KeyPEM // of another certificate
	broken.Install(t, l.Dir+"/tls", "broken")
	lardertest.Eventually(t, "the metric tells", func() bool { return l.Metric("larder_livecert_reload_failures_total") > 0 })
	if got := handshake(t, addr, config).PeerCertificates[0].SerialNumber; got.Cmp(old) != 0 {
		t.Errorf("serial number %v is served, want the old one, %v", got, old)
	}
	ask(t, question{addr: addr, tls: config, target: "/a"}).wantContent(t, "/a", 1, 1000, 0, 1000)
}

func TestHTTPSVersions(t *testing.T) {
	t.Parallel()
	const size = 2<<20 + 5
	l := newLab(t, labOptions{})
	l.origin.Add("/a", size)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		addr, config := l.addr("https")
		config.MinVersion, config.MaxVersion = version, version
		if got := handshake(t, addr, config).Version; got != version {
			t.Errorf("spoke %s, want %s", tls.VersionName(got), tls.VersionName(version))
		}
		q := question{addr: addr, tls: config, target: "/a"}
		ask(t, q).wantContent(t, "/a", 1, size, 0, size) // cold, then warm
		q.fields = []string{"Range: bytes=1048570-1048590"}
		ask(t, q).wantContent(t, "/a", 1, size, 1048570, 1048591)
	}
	addr, config := l.addr("https")
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 was spoken")
	}
}

func TestHTTPSServerNameIsNotTheHost(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/a", 1000)
	for _, name := range []string{"node.test", "127.0.0.1", "cdn.test", "nobody.example"} {
		t.Run(name, func(t *testing.T) {
			addr, config := l.addr("https")
			config.ServerName = name
			config.InsecureSkipVerify = true // what the certificate says is not the question
			for _, q := range []question{
				{target: "/a"},
				{target: "/a?cacheHostOrigin=" + cdnHost, host: fmt.Sprintf("node.test:%s", addr[strings.LastIndexByte(addr, ':')+1:])},
			} {
				q.addr, q.tls = addr, config
				ask(t, q).wantContent(t, "/a", 1, 1000, 0, 1000)
			}
		})
	}
	if got := l.origin.RequestsFor("/a"); len(got) != 1 || got[0].Host != cdnHost {
		t.Errorf("the origin was asked %d times, first for %+v", len(got), got)
	}
}

func TestHTTPSAndHTTPShareTheStore(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/a", 1000)
	for _, scheme := range []string{"https", "http", "https"} {
		addr, config := l.addr(scheme)
		ask(t, question{addr: addr, tls: config, target: "/a"}).wantContent(t, "/a", 1, 1000, 0, 1000)
	}
	l.wantSent(t, "/a", 1000, 1000)
}

func TestHTTPSPublishersSchemesAreKept(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{publisher: strings.Replace(labPublisher, "freshness:", "schemes: [http]\nfreshness:", 1)})
	l.origin.Add("/a", 1000)
	addr, config := l.addr("https")
	r := ask(t, question{addr: addr, tls: config, target: "/a"})
	r.want(t, http.StatusForbidden)
	r.wantSentence(t)
	l.get(t, "/a").wantContent(t, "/a", 1, 1000, 0, 1000)
}
