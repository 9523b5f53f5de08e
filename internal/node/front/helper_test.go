package front

import (
	"bufio"
	"context"
	"io"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// startWith serves ln and returns what stops it.
func startWith(s *Server, ln net.Listener) (stop func()) {
	over := make(chan error, 1)
	go func() { over <- s.Serve(ln, nil) }()
	return func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		<-over
	}
}

// counter reads a counter.
func counter(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }
