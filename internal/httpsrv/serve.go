// Package httpsrv is what every net/http listener of Larder shares: how errors
// become answers, how slow clients are bounded, and who may call.
package httpsrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The bounds of every listener. There is no WriteTimeout: it would cover the
// whole answer and cut long ones; who streams sets a deadline per piece.
const (
	ReadHeaderTimeout = 10 * time.Second
	IdleTimeout       = 2 * time.Minute
	MaxHeaderBytes    = 64 << 10

	// Grace is how long Serve lets running requests finish.
	Grace = 10 * time.Second
)

// Serve answers the connections of ln with h until ctx ends, then lets
// requests that are running finish for Grace, ends their contexts, and cuts
// what is left. It returns when no request is running any more: nil after ctx
// ended, else why ln failed. It closes ln. For TLS, ln is a tls.NewListener.
// A nil log discards.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, ln, h, log, Grace)
}

func serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger, grace time.Duration) error {
	log = orDiscard(log)
	// Requests outlive ctx by the grace they are given.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	var running sync.RWMutex // requests read-lock it; the end locks it for good
	recovered := Recover(log, h)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !running.TryRLock() {
				panic(http.ErrAbortHandler) // read just before its connection was cut
			}
			defer running.RUnlock()
			recovered.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: ReadHeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		// What clients do wrong below HTTP, such as a broken handshake.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serving on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
		last, stop := context.WithTimeout(requests, grace)
		defer stop()
		if e := srv.Shutdown(last); errors.Is(e, context.DeadlineExceeded) {
			log.WarnContext(ctx, "requests were cut at the end", "address", ln.Addr().String(), "grace", grace)
		}
		<-failed // http.ErrServerClosed: we did that
	}
	cancel()
	_ = srv.Close() // what is still open was given its time
	running.Lock()
	return err
}
