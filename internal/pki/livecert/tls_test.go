package livecert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// handshake lets a client and a server with these configurations meet, and
// returns what the client saw.
func handshake(t testing.TB, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	deadline := time.Now().Add(20 * time.Second)
	_ = a.SetDeadline(deadline)
	_ = b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		s := tls.Server(b, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // carries the session ticket along
		}
		if err != nil {
			b.Close()
		}
		done <- err
	}()
	c := tls.Client(a, client)
	_, err := c.Read(make([]byte, 1))
	a.Close()
	return c.ConnectionState(), errors.Join(err, <-done)
}

func TestTLSConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := issue(t, nil, nil, authority)
	intermediate := issue(t, ca, nil, authority)
	m := issue(t, intermediate, nil, nil)
	m.certPEM = append(m.certPEM, intermediate.certPEM...)
	install(t, dir, m)
	c := open(t, dir)
	config := c.TLSConfig(nil)
	if len(config.Certificates) > 0 || !config.DynamicRecordSizingDisabled || config.SessionTicketsDisabled {
		t.Errorf("%+v", config)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)

	for _, name := range []string{"cache.example.com", "127.0.0.1"} { // an address is sent as no name at all
		state, err := handshake(t, config, &tls.Config{RootCAs: roots, ServerName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if state.Version != tls.VersionTLS13 || len(state.PeerCertificates) != 2 {
			t.Errorf("%s: version %x with %d certificates, want TLS 1.3 and the chain", name, state.Version, len(state.PeerCertificates))
		}
	}
	state, err := handshake(t, config, &tls.Config{InsecureSkipVerify: true, ServerName: "au.download.windowsupdate.com"})
	if err != nil || !state.PeerCertificates[0].Equal(m.cert) {
		t.Errorf("another name: %v", err)
	}
	state, err = handshake(t, config, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12})
	if err != nil || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
		t.Errorf("TLS 1.2: %v, %s", err, tls.CipherSuiteName(state.CipherSuite))
	}
	for _, suite := range []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA} {
		if _, err := handshake(t, config, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}); err == nil {
			t.Errorf("%s was accepted", tls.CipherSuiteName(suite))
		}
	}
	if _, err := handshake(t, config, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	state, err = handshake(t, config, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2", "http/1.1"}})
	if err != nil || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("offered h2 and http/1.1: %v, %q", err, state.NegotiatedProtocol)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		for i, resumed := range []bool{false, true} {
			if state, err := handshake(t, config, client); err != nil || state.DidResume != resumed {
				t.Errorf("version %x, connection %d: %v, resumed %v", version, i+1, err, state.DidResume)
			}
		}
	}
}

// running runs c until the test ends.
func running(t *testing.T, c *Cert) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// until waits for a change that makes ok true.
func until(t *testing.T, c *Cert, what string, ok func() bool) {
	t.Helper()
	late := time.After(20 * time.Second) // less than checkEvery: somebody must have told
	for {
		changed := c.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: not within 20 s; status %+v", what, c.Status())
		}
	}
}

// TestSwapUnderLoad swaps the pair again and again, in the ways that people
// and programs do it, while clients come and stay.
func TestSwapUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := issue(t, nil, nil, authority)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	install(t, dir, issue(t, ca, nil, nil))
	c := open(t, dir)
	running(t, c)
	addr := echo(t, c.TLSConfig(nil))
	client := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}

	stop := make(chan struct{})
	var handshakes atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() { // come and go
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := ask(addr, client); err != nil {
					t.Errorf("a client: %v", err)
					return
				}
				handshakes.Add(1)
			}
		})
	}
	stayed, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer stayed.Close()

	swaps := []struct {
		name string
		swap func(m *material)
	}{
		{"files of another name, active.yaml replaced", func(m *material) {
			name := m.cert.Subject.CommonName
			write(t, filepath.Join(dir, "certs", name+".crt"), m.certPEM)
			write(t, filepath.Join(dir, "keys", name+".key"), m.keyPEM)
			replace(t, filepath.Join(dir, "active.yaml"), fmt.Appendf(nil, "certificate: certs/%s.crt\nkey: keys/%s.key\n", name, name))
		}},
		{"back to the usual names", func(m *material) {
			write(t, filepath.Join(dir, "certs", "node.crt"), m.certPEM)
			write(t, filepath.Join(dir, "keys", "node.key"), m.keyPEM)
			replace(t, filepath.Join(dir, "active.yaml"), []byte(activeText))
		}},
		{"both files replaced", func(m *material) {
			replace(t, filepath.Join(dir, "keys", "node.key"), m.keyPEM)
			replace(t, filepath.Join(dir, "certs", "node.crt"), m.certPEM)
		}},
		{"both files rewritten in place", func(m *material) {
			write(t, filepath.Join(dir, "certs", "node.crt"), m.certPEM)
			write(t, filepath.Join(dir, "keys", "node.key"), m.keyPEM)
		}},
		{"rewritten in small pieces", func(m *material) {
			f, err := os.Create(filepath.Join(dir, "certs", "node.crt"))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range m.certPEM {
				if _, err := f.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			f.Close()
			write(t, filepath.Join(dir, "keys", "node.key"), m.keyPEM)
		}},
		{"active.yaml removed and written again", func(m *material) {
			if err := os.Remove(filepath.Join(dir, "active.yaml")); err != nil {
				t.Fatal(err)
			}
			install(t, dir, m)
		}},
	}
	for _, s := range swaps {
		m := issue(t, ca, nil, nil)
		s.swap(m)
		until(t, c, s.name, func() bool { return served(t, c).Equal(m.cert) })
		state, err := ask(addr, client)
		if err != nil || !state.PeerCertificates[0].Equal(m.cert) {
			t.Errorf("%s: a new client: %v, not the new certificate", s.name, err)
		}
		if err := exchange(stayed); err != nil {
			t.Errorf("%s: the client that stayed: %v", s.name, err)
		}
	}
	close(stop)
	clients.Wait()
	if n := handshakes.Load(); n < int64(len(swaps)) {
		t.Errorf("only %d clients came and went: no load", n)
	}
	t.Logf("%d clients came and went during %d swaps", handshakes.Load(), len(swaps))
}

// TestFirstCertificate: it comes while the node runs, into directories that
// were not there, and goes again.
func TestFirstCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	running(t, c)
	m := issue(t, nil, nil, nil)
	install(t, dir, m)
	until(t, c, "the first certificate", c.Has)
	if !served(t, c).Equal(m.cert) {
		t.Error("another certificate is served")
	}
	if err := os.Remove(filepath.Join(dir, "active.yaml")); err != nil {
		t.Fatal(err)
	}
	until(t, c, "switched off", func() bool { return !c.Has() })
	if s := c.Status(); s.Err != "" || s.Subject != "" {
		t.Errorf("switched off: %+v", s)
	}
}

// echo serves TLS on loopback: one byte comes, the same goes.
func echo(t *testing.T, config *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

func ask(addr string, config *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", addr, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), exchange(conn)
}

func exchange(conn *tls.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// followed starts c.follow inside a synctest bubble, without a watcher: events
// are what the test sends.
func followed(t *testing.T, c *Cert) (events chan fsnotify.Event) {
	events = make(chan fsnotify.Event)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.follow(ctx, events, nil, func([]string) {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return events
}

// TestNobodySaysThatItChanged: the files are read every 30 seconds.
func TestNobodySaysThatItChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		install(t, dir, issue(t, nil, nil, nil))
		c := open(t, dir)
		followed(t, c)
		m := issue(t, nil, nil, nil)
		install(t, dir, m)
		time.Sleep(checkEvery - time.Second)
		synctest.Wait()
		if served(t, c).Equal(m.cert) {
			t.Error("read too early: what is this test about?")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !served(t, c).Equal(m.cert) {
			t.Error("not read after 30 seconds")
		}
	})
}

// TestEventsAreGathered: a burst is one look, and a stream does not put it off
// for ever.
func TestEventsAreGathered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir)
		events := followed(t, c)
		m := issue(t, nil, nil, nil)
		install(t, dir, m)
		start := time.Now()
		for !c.Has() && time.Since(start) < 10*settle {
			events <- fsnotify.Event{}
			time.Sleep(settle / 10)
			synctest.Wait()
		}
		if took := time.Since(start); !c.Has() || took < settle || took > 2*settle {
			t.Errorf("has %v after %v, want it after %v", c.Has(), took, settle)
		}
		close(events) // the watcher broke: go on without
		time.Sleep(checkEvery)
		synctest.Wait()
	})
}

// TestVanishing: active.yaml is believed to be gone after a second; a
// directory that is gone is not believed at all.
func TestVanishing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "tls")
		m := issue(t, nil, nil, nil)
		install(t, dir, m)
		c := open(t, dir)
		events := followed(t, c)
		file := filepath.Join(dir, "active.yaml")
		after := func(d time.Duration) {
			events <- fsnotify.Event{}
			time.Sleep(d)
			synctest.Wait()
		}

		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		after(10 * confirm)
		if s := c.Status(); !c.Has() || s.Err == "" {
			t.Errorf("the directory is gone: has %v, %q; want the old pair and an error", c.Has(), s.Err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		after(confirm)
		if s := c.Status(); !c.Has() || s.Err != "" {
			t.Errorf("the directory is back: has %v, %q", c.Has(), s.Err)
		}

		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		after(settle + confirm/2)
		if !c.Has() {
			t.Error("switched off too early")
		}
		write(t, file, []byte(activeText))
		time.Sleep(confirm)
		synctest.Wait()
		if s := c.Status(); !c.Has() || s.Err != "" {
			t.Errorf("active.yaml is back: has %v, %q", c.Has(), s.Err)
		}

		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		after(settle + confirm + time.Millisecond)
		if c.Has() {
			t.Error("not switched off")
		}
	})
}

// TestEnd: an ended certificate stays in use and says so, in the status and
// once in the log.
func TestEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		m := issue(t, nil, nil, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		})
		install(t, dir, m)
		c, log := logged(t, dir)
		followed(t, c)
		said := func() int { return countLines(log.String(), "not valid") }
		if s := c.Status(); !c.Has() || !contains(s.Err, "begins on", "clock") || said() != 1 {
			t.Errorf("not yet valid: has %v, %q, said %d times", c.Has(), s.Err, said())
		}
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		if s := c.Status(); s.Err != "" {
			t.Errorf("valid: %q", s.Err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := c.Status(); !c.Has() || !contains(s.Err, "ended on", "renew") || s.NotAfter.IsZero() {
			t.Errorf("ended: has %v, %+v", c.Has(), s)
		}
		if said() != 2 {
			t.Errorf("said %d times, want once for each: %s", said(), log)
		}
		if _, err := Check(dir); err == nil || !contains(err.Error(), "ended on") {
			t.Errorf("Check: %v", err)
		}
	})
}
