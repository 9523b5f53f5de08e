package gate

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"larder/internal/fleet"
	"larder/internal/httpsrv"
	"larder/internal/lardertest"
	"larder/internal/lardertest/dbtest"
	"larder/internal/pki/authority"
)

// drive makes a change of a node's document.
func (w *world) drive(drain bool) {
	w.t.Helper()
	err := w.d.Tx(w.t.Context(), func(tx *sql.Tx) error {
		n, err := w.r.Node(w.t.Context(), tx, nodeID)
		if err != nil {
			return err
		}
		n.Spec.Drain = drain
		return w.r.UpdateNode(w.t.Context(), tx, n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.r.Refresh(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// A poll waits outside of the server; its connection comes back and goes on.
func TestPollsAreParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	lot := NewLot()
	w.lot = lot
	w.table = w.gate(w.d)
	ctx, cancel := context.WithCancel(context.Background())
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := authority.NewServer(w.a.Authority(), func() []string { return []string{fleet.ServerName} }, 0)
	ln := lot.Listener(tls.NewListener(inner, &tls.Config{GetCertificate: server.GetCertificate, ClientAuth: tls.RequestClientCert}))
	done := make(chan error, 2)
	go func() { done <- w.g.Run(ctx) }()
	go func() { done <- httpsrv.Serve(ctx, ln, w.table, slog.New(slog.DiscardHandler)) }()
	m, key := newKeyed(t)
	w.register(m, nodeID)
	trust, err := authority.TrustRoots(w.a.Authority().RootsPEM())
	if err != nil {
		t.Fatal(err)
	}
	trust.ServerName = fleet.ServerName
	trust.Certificates = []tls.Certificate{{Certificate: [][]byte{m.certs[0].Raw}, PrivateKey: key}}
	tr := &http.Transport{TLSClientConfig: trust}
	client := &http.Client{Transport: tr}
	dialled := 0
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		tctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if !i.Reused {
				dialled++
			}
		}})
		req, err := http.NewRequestWithContext(tctx, method, "https://"+inner.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := ask("GET", fleet.PathDesired+"?wait=0.05", ""); code != 204 || body != "" {
		t.Errorf("a poll for which nothing happens: %d %s", code, body)
	}
	for i := range 3 {
		held := make(chan struct{})
		go func() {
			defer close(held)
			code, body := ask("GET", fleet.PathDesired+"?wait=50&after="+string(rune('0'+i)), "")
			var d fleet.Desired
			if err := json.Unmarshal([]byte(body), &d); err != nil || code != 200 || d.Number != int64(i+1) {
				t.Errorf("the held poll: %d %s", code, body)
			}
		}()
		lardertest.Eventually(t, "the poll waits", func() bool { return lot.Len() == 1 })
		w.drive(i%2 == 0)
		<-held
		if code, body := ask("POST", fleet.PathReports, `{"protocol":1,"instance":"i"}`); code != 200 {
			t.Errorf("a report on the same connection: %d %s", code, body)
		}
	}
	if dialled != 1 {
		t.Errorf("%d connections were made", dialled)
	}
	// One whose identity ends meanwhile gets no more documents.
	ended := make(chan int, 1)
	go func() {
		code, _ := ask("GET", fleet.PathDesired+"?wait=50&after=3", "")
		ended <- code
	}()
	lardertest.Eventually(t, "the poll waits", func() bool { return lot.Len() == 1 })
	if err := w.r.Revoke(t.Context(), w.d, nodeID, "stolen", w.clock()); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The client asks again on a new connection, and is told.
	if code := <-ended; code != 0 && code != 403 {
		t.Errorf("a poll of a revoked node: %d", code)
	}
	w.register(m, nodeID)
	trust.Certificates[0].Certificate = [][]byte{m.certs[0].Raw}
	tr.CloseIdleConnections()
	// A node that leaves leaves nothing behind but until its time is over.
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	req, err := http.NewRequestWithContext(short, "GET", "https://"+inner.Addr().String()+fleet.PathDesired+"?wait=0.2&after=3", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Do(req); err == nil {
		t.Error("it was answered")
	}
	stop()
	lardertest.Eventually(t, "the lot is empty", func() bool { return lot.Len() == 0 })
	// At the end all that wait are cut, at once.
	cut := make(chan int, 1)
	go func() {
		code, _ := ask("GET", fleet.PathDesired+"?wait=50&after=3", "")
		cut <- code
	}()
	lardertest.Eventually(t, "the poll waits", func() bool { return lot.Len() == 1 })
	cancel()
	if code := <-cut; code != 0 {
		t.Errorf("the last poll: %d", code)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	tr.CloseIdleConnections()
	if lot.Len() != 0 {
		t.Error("something waits still")
	}
}
