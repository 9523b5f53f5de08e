package preflight

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"larder/internal/lardertest"
)

// No visit, look-up or connection outlives Run.
func TestMain(m *testing.M) {
	if os.Getenv(asNobody) != "" {
		reportAsNobody()
		return
	}
	goleak.VerifyTestMain(m)
}

// here is a machine as the tests want it: its address is one of loopback, so
// that everything stays on this one.
func here(addresses ...string) *machine {
	m := &machine{host: "node1", synchronised: func() (bool, error) { return true, nil }, privileged: os.Geteuid() == 0}
	for _, a := range addresses {
		m.addresses = append(m.addresses, address{netip.MustParseAddr(a), "eth0"})
	}
	return m
}

// quiet are options that ask nobody outside of the test.
func quiet(t testing.TB, o Options) Options {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "tls")
	}
	if o.Resolver == nil {
		o.Resolver = resolver(t, nil)
	}
	if o.Proxy == nil {
		o.Proxy = func(*url.URL) (*url.URL, error) { return nil, nil }
	}
	if o.machine == nil {
		o.machine = here("127.0.0.1")
	}
	return o
}

// of returns the checks of a kind.
func of(checks []Check, id string) (found []Check) {
	for _, c := range checks {
		if c.ID == id {
			found = append(found, c)
		}
	}
	return found
}

// one returns the only check of a kind.
func one(t testing.TB, checks []Check, id string) Check {
	t.Helper()
	found := of(checks, id)
	if len(found) != 1 {
		t.Fatalf("%d checks of kind %q, want 1: %+v", len(found), id, checks)
	}
	return found[0]
}

// want complains about a check that came out otherwise, or does not say what
// it should in Found and Do together.
func want(t testing.TB, c Check, r Result, words ...string) {
	t.Helper()
	if c.Result != r {
		t.Errorf("%s: %s, want %s: %s\ndo: %s", c.Title, c.Result, r, c.Found, c.Do)
	}
	for _, w := range words {
		if !strings.Contains(c.Found+"\n"+c.Do, w) {
			t.Errorf("%s: %q is missing in:\n%s\ndo: %s", c.Title, w, c.Found, c.Do)
		}
	}
	if c.Why == "" || c.Found == "" {
		t.Errorf("%s: says nothing: %+v", c.Title, c)
	}
	if (c.Result == Failed || c.Result == Warning) && c.Do == "" || c.Result == OK && c.Do != "" {
		t.Errorf("%s: %s, and to do is %q", c.Title, c.Result, c.Do)
	}
}

// freePort is an address that is free and stays so: where the system has more
// than one address for loopback, nobody else uses this one. To have listened
// there oneself would not do: programs that other tests are starting at that
// moment hold it for a moment longer. For the same reason it is good for one
// Run that finds it free.
func freePort(t testing.TB) (addr string, number int) {
	t.Helper()
	b := make([]byte, 3)
	_, _ = rand.Read(b) // it does not fail
	if u, err := net.ListenPacket("udp", fmt.Sprintf("127.%d.%d.%d:0", b[0], b[1], max(2, b[2]&127))); err == nil {
		defer u.Close()
		return u.LocalAddr().String(), u.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String(), l.Addr().(*net.TCPAddr).Port
}

func hostOf(t testing.TB, addr string) string {
	t.Helper()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// serveTLS serves until the test ends.
func serveTLS(t testing.TB, addr string, config *tls.Config) net.Listener {
	t.Helper()
	l, err := tls.Listen("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, l, func(conn net.Conn) {
		if n, _ := conn.Read(make([]byte, 1<<12)); n > 0 {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	return l
}

// accepting gives every connection of l to serve, until the test ends.
func accepting(t testing.TB, l net.Listener, serve func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}

// node is what serves HTTPS as a node does.
func node(t testing.TB, pair lardertest.Pair) (NodeState, string, int) {
	t.Helper()
	l := serveTLS(t, "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair.TLS}, NextProtos: []string{"http/1.1"}})
	addr := l.Addr().String()
	return NodeState{Running: true, Version: "v1.2.0", HTTPS: []string{addr}, ServedSHA256: sha256Of(pair.Cert)}, addr, l.Addr().(*net.TCPAddr).Port
}

// resolver asks a DNS server of this test for names: where each leads, or
// what it is called by its address (keys such as "1.0.0.127.in-addr.arpa").
func resolver(t testing.TB, names map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, err := answerDNS(buf[:n], names); err == nil && answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	var mu sync.Mutex
	var asking []net.Conn // guarded by mu; who left before an answer came has a reader waiting for it still
	t.Cleanup(func() {
		conn.Close()
		<-done
		mu.Lock()
		defer mu.Unlock()
		for _, c := range asking {
			c.Close()
		}
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			asking = append(asking, c)
		}
		return c, err
	}
	return &net.Resolver{PreferGo: true, Dial: dial}
}

// silent is what a name of the responder leads to that gets no answer.
const silent = "silent"

func answerDNS(query []byte, names map[string][]string) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	leads, known := names[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	if len(leads) == 1 && leads[0] == silent {
		return nil, nil
	}
	response := dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionAvailable: true}
	if !known {
		response.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, response)
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	err = errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers())
	for _, to := range leads {
		a, errAddr := netip.ParseAddr(to)
		switch {
		case errAddr != nil && q.Type == dnsmessage.TypePTR:
			err = errors.Join(err, b.PTRResource(head, dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(to + ".")}))
		case errAddr == nil && a.Is4() && q.Type == dnsmessage.TypeA:
			err = errors.Join(err, b.AResource(head, dnsmessage.AResource{A: a.As4()}))
		case errAddr == nil && a.Is6() && q.Type == dnsmessage.TypeAAAA:
			err = errors.Join(err, b.AAAAResource(head, dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// proxy is an HTTP proxy for CONNECT. With inspect set it opens TLS and closes
// it again with certificates of its own, as appliances do; it lets nobody in
// without the password, if there is one.
type proxy struct {
	inspect  *lardertest.CA
	password string
	status   string            // an answer other than 200
	leads    map[string]string // where names lead, by host:port
}

func (p proxy) start(t testing.TB) func(*url.URL) (*url.URL, error) {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(t, w, r) })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	u := &url.URL{Scheme: "http", Host: l.Addr().String()}
	if p.password != "" {
		u.User = url.UserPassword("cache", p.password)
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }
}

func (p proxy) serve(t testing.TB, w http.ResponseWriter, r *http.Request) {
	r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
	_, password, _ := r.BasicAuth()
	switch {
	case r.Method != http.MethodConnect:
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	case password != p.password:
		http.Error(w, "who are you", http.StatusProxyAuthRequired)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if p.status != "" {
		_, _ = io.WriteString(conn, "HTTP/1.1 "+p.status+"\r\n\r\n")
		return
	}
	to := r.Host
	if p.leads[to] != "" {
		to = p.leads[to]
	}
	up, err := net.Dial("tcp", to)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer up.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	if p.inspect == nil {
		joinConns(conn, up)
		return
	}
	// The other side first: its certificate is what ours is modelled on.
	server := tls.Client(up, &tls.Config{InsecureSkipVerify: true})
	if err := server.Handshake(); err != nil {
		return
	}
	host, _, _ := net.SplitHostPort(r.Host)
	forged := p.inspect.Leaf(t, host)
	client := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{forged.TLS}})
	if err := client.Handshake(); err != nil {
		return
	}
	joinConns(client, server)
}

func joinConns(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
		})
	}
	wg.Wait()
}
