package origin

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// body is an answer's body: limited, counted, and ended by its context, by
// silence or by Close, at once in each case.
type body struct {
	*transfer
	src      io.ReadCloser
	received prometheus.Counter
	host     *hostRecord

	// Owned by the reader.
	silence *time.Timer
	err     error // how it ended
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if e := b.client.leftOr(b.ctx, b.host.name); e != nil {
		return 0, b.finish(e)
	}
	slice := b.client.bucket.slice()
	if slice > 0 && slice < len(p) {
		p = p[:slice]
	}
	if b.silence == nil {
		b.silence = time.AfterFunc(b.client.cfg.SilenceTimeout, func() { b.cancel(errSilent) })
	} else {
		b.silence.Reset(b.client.cfg.SilenceTimeout)
	}
	n, err := b.src.Read(p)
	b.silence.Stop()
	if n > 0 {
		b.received.Add(float64(n))
		if slice > 0 {
			start := time.Now()
			left := b.client.bucket.take(b.ctx, n)
			b.client.metrics.limited.Add(time.Since(start).Seconds())
			if left != nil {
				return 0, b.finish(b.client.leftOr(b.ctx, b.host.name))
			}
		}
	}
	if err != nil {
		return n, b.finish(err)
	}
	return n, nil
}

// finish notes how the body ended, gives its connection back or closes it,
// and returns what the reader is told.
func (b *body) finish(err error) error {
	var e *Error
	switch {
	case err == io.EOF:
		b.err = err
		b.end()
		return err
	case errors.As(err, &e):
	case b.ctx.Err() != nil:
		err = b.client.leftOr(b.ctx, b.host.name)
		errors.As(err, &e)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = io.ErrUnexpectedEOF
	case isBroken(err):
		e = fail(http.StatusBadGateway, KindConnect, err, "%s broke off within a body", b.host.name)
		err = e
	default:
		e = fail(http.StatusBadGateway, KindProtocol, err, "%s: the body is not valid HTTP/1.1", b.host.name)
		err = e
	}
	b.err = err
	if e == nil || e.Kind != KindCanceled {
		b.client.metrics.broken.Inc()
		text := b.host.name + " ended a body early"
		if e != nil {
			text = e.Error()
		}
		b.host.failed(text)
	}
	b.src.Close()
	b.end()
	return err
}

// Close ends the transfer; a body that is not read to its end takes its
// connection with it, because reading the rest could cost gigabytes.
func (b *body) Close() error {
	b.src.Close()
	b.end()
	b.upload.forget()
	return nil
}

var errForgotten = errors.New("the request is over")

// upload is a request body whose reader is not touched after forget. The
// transport may still be sending when the answer is already complete.
type upload struct {
	mu sync.Mutex
	r  io.Reader // guarded by mu; nil when forgotten
	ok bool      // guarded by mu; false after a read that failed
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.r == nil {
		return 0, errForgotten
	}
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		u.ok = false
	}
	return n, err
}

func (u *upload) Close() error { return nil }

// failed reports whether the body could not be read. u may be nil.
func (u *upload) failed() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.ok
}

// forget waits for a read that is under way. u may be nil.
func (u *upload) forget() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.r = nil
}
