package origin

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// secret stands in the queries of requests, password in a proxy's URL;
	// neither may be in any error. See wantError.
	secret   = "P4-signature-SECRET"
	password = "hunter2-SECRET"
)

var registries sync.Map // *Client → *prometheus.Registry

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	if cfg.Lookup == nil {
		cfg.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			t.Error("a test asked the system's resolver")
			return nil, errors.New("no resolver in tests")
		}
	}
	c := New(cfg)
	registries.Store(c, reg)
	c.beforeDial = func(_ context.Context, addr netip.AddrPort) error {
		if !addr.Addr().IsLoopback() {
			return errors.New("a test dialled " + addr.String())
		}
		return nil
	}
	t.Cleanup(func() { c.Close(); registries.Delete(c) })
	return c
}

// metric sums all series of a metric whose labels include the given
// name, value pairs.
func metric(t testing.TB, c *Client, name string, labels ...string) float64 {
	t.Helper()
	reg, _ := registries.Load(c)
	families, err := reg.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				ok := false
				for _, l := range m.GetLabel() {
					ok = ok || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !ok {
					continue series
				}
			}
			found = true
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if !found {
		t.Fatalf("no metric %s %v", name, labels)
	}
	return sum
}

// eventually polls a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-tick.C
	}
}

// wantError checks an error's answer and kind, and that it tells no secrets.
func wantError(t testing.TB, err error, status int, kind string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *Error of kind %s", err, kind)
	}
	if e.Status != status || e.Kind != kind {
		t.Fatalf("got %d %s (%v), want %d %s", e.Status, e.Kind, e, status, kind)
	}
	if strings.Contains(err.Error(), "SECRET") {
		t.Fatalf("error tells a secret: %v", err)
	}
	return e
}

// authority is the CA of all tests.
var authority = sync.OnceValue(func() (ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}) {
	var err error
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &ca.key.PublicKey, ca.key)
	if err != nil {
		panic(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	ca.pool = x509.NewCertPool()
	ca.pool.AddCert(ca.cert)
	return ca
})

// serverTLS returns a configuration with a certificate for the names that is
// valid until the given time.
func serverTLS(t testing.TB, until time.Time, names ...string) *tls.Config {
	t.Helper()
	ca := authority()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test server"}, DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func anHour() time.Time { return time.Now().Add(time.Hour) }

// rawServer accepts connections and gives each to serve, which may read whole
// heads with readHead. It returns its address.
func rawServer(t testing.TB, conf *tls.Config, serve func(conn net.Conn, br *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn // guarded by mu
		over  bool       // guarded by mu
	)
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			if over {
				conn.Close()
			}
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		over = true
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return address
}

// readHead reads a request's head: its lines without the empty one.
func readHead(br *bufio.Reader) ([]string, error) {
	var lines []string
	for {
		l, err := br.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if l = strings.TrimSuffix(l, "\r\n"); l == "" {
			return lines, nil
		}
		lines = append(lines, l)
	}
}

// answering is a rawServer that answers every request with the same bytes and
// hands over the heads it received.
func answering(t testing.TB, conf *tls.Config, answer string) (address string, heads <-chan []string) {
	t.Helper()
	ch := make(chan []string, 1000)
	return rawServer(t, conf, func(conn net.Conn, br *bufio.Reader) {
		for {
			head, err := readHead(br)
			if err != nil {
				return
			}
			ch <- head
			io.WriteString(conn, answer)
			if strings.Contains(answer, "Connection: close") || !strings.Contains(answer, "Content-Length") {
				return
			}
		}
	}), ch
}

// shortIf is the time-out of tests that wait for it, and of those that do not.
func shortIf(waits bool) time.Duration {
	if waits {
		return 300 * time.Millisecond
	}
	return 10 * time.Second
}

const answerOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func plainEndpoint(address string) Endpoint {
	return Endpoint{Scheme: "http", Host: "files.example.com", Address: address}
}

func tlsEndpoint(address string) Endpoint {
	return Endpoint{Scheme: "https", Host: "files.example.com", Address: address, Roots: authority().pool}
}

// get does a request and reads the whole answer.
func get(t testing.TB, c *Client, r *Request) (*Response, string) {
	t.Helper()
	resp, err := c.Do(t.Context(), r)
	if err != nil {
		t.Fatalf("Do: %v", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the body: %v", err)
	}
	return resp, string(b)
}
