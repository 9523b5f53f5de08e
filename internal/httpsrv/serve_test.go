package httpsrv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// A request that runs when the end comes is finished; Serve waits for it.
func TestServeLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	ln := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-leave
			if err := r.Context().Err(); err != nil {
				t.Errorf("the context of a request within its grace: %v", err)
			}
			_, _ = io.WriteString(w, "whole")
		}), nil, time.Minute)
	}()
	got := make(chan string, 1)
	c := client(t)
	go func() {
		resp, err := c.Get("http://" + ln.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(body)
	}()
	<-entered
	stop()
	select {
	case err := <-served:
		t.Fatalf("Serve returned %v with a request running", err)
	default:
	}
	close(leave)
	if body := <-got; body != "whole" {
		t.Errorf("got %q, want whole", body)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// One that does not finish within its grace is told by its context and cut.
func TestServeCutsAfterGrace(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	var logged bytes.Buffer
	entered := make(chan struct{})
	left := false
	ln := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			left = true
		}), slog.New(slog.NewTextHandler(&logged, nil)), time.Millisecond)
	}()
	c := client(t)
	answered := make(chan error, 1)
	go func() {
		resp, err := c.Get("http://" + ln.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-entered
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if !left {
		t.Error("Serve returned before the request")
	}
	<-answered
	if !strings.Contains(logged.String(), "requests were cut") {
		t.Errorf("the cut was not logged: %q", logged.String())
	}
}

func TestServeSaysWhyTheListenerFailed(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	ln.Close()
	err := Serve(t.Context(), ln, http.NotFoundHandler(), nil)
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("got %v, want net.ErrClosed with the address", err)
	}
}

func TestServeAnswersPanics(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	ln := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("bug") }), nil)
	}()
	resp, err := client(t).Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 500 {
		t.Errorf("got %d, want 500", resp.StatusCode)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// pipeListener hands out one connection in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A client that never ends its head, or comes back never, does not hold its
// connection; one that waits for a long answer does.
func TestSlowClientsAreBounded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, sent string
		want       time.Duration
	}{
		{"half a head", "GET / HTTP/1.1\r\nHost: local", ReadHeaderTimeout},
		{"idle after an answer", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", time.Hour + IdleTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				ln := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
				here, there := net.Pipe()
				ln.conns <- there
				served := make(chan error, 1)
				go func() {
					served <- Serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(time.Hour) // an answer may take as long as it must
					}), nil)
				}()
				start := time.Now()
				if _, err := io.WriteString(here, tt.sent); err != nil {
					t.Fatal(err)
				}
				answer, err := io.ReadAll(here)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start).Round(time.Second); took != tt.want {
					t.Errorf("cut after %v (%q), want %v", took, answer, tt.want)
				}
				stop()
				if err := <-served; err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
		})
	}
}
