package front

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// one is a Body of one piece that does not allocate.
type one struct {
	p    Piece
	sent bool
}

func (b *one) Next() (Piece, error) {
	if b.sent {
		return Piece{}, io.EOF
	}
	b.sent = true
	return b.p, nil
}

func (b *one) Close() { b.sent = false }

// typical answers with a part of a file and the fields that content has.
func typical(p Piece) Handler {
	b := &one{p: p}
	return func(x *Exchange) {
		x.Add("Content-Type", "application/octet-stream")
		x.Add("ETag", `"0123456789abcdef"`)
		x.Add("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
		x.Add("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
		x.Add("Accept-Ranges", "bytes")
		x.Add("Age", "12345")
		x.Add("Via", "1.1 larder-0123456789abcdef")
		x.Add("Cache-Status", "Larder; hit")
		x.Send(http.StatusOK, p.Len, b)
	}
}

// exchanger asks for the same thing again and again, without allocating.
type exchanger struct {
	net.Conn
	request []byte
	buf     []byte
	size    int // of one whole answer
}

func newExchanger(b *testing.B, addr string, secure bool) *exchanger {
	c := &client{}
	if secure {
		c = dialTLS(b, addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS13})
	} else {
		c = dial(b, addr)
	}
	c.SetDeadline(time.Time{})
	e := &exchanger{Conn: c.Conn, buf: make([]byte, 256<<10)}
	e.request = []byte("GET /filestreamingservice/files/0123?P1=1&P2=2 HTTP/1.1\r\nHost: dl.delivery.test\r\n" +
		"User-Agent: Microsoft-Delivery-Optimization/10.1\r\nAccept: */*\r\n\r\n")
	e.Write(e.request)
	n, err := e.Read(e.buf)
	if err != nil {
		b.Fatal(err)
	}
	for head := 0; head < n; head++ {
		if string(e.buf[head:min(head+4, n)]) == "\r\n\r\n" {
			var length int
			fmt.Sscanf(string(e.buf[:n]), "HTTP/1.1 200 OK\r\nContent-Length: %d", &length)
			e.size = head + 4 + length
			break
		}
	}
	e.rest(b, e.size-n)
	return e
}

func (e *exchanger) rest(b *testing.B, n int) {
	for n > 0 {
		k, err := e.Read(e.buf)
		if err != nil {
			b.Fatal(err)
		}
		n -= k
	}
}

func BenchmarkAnswer(b *testing.B) {
	f, _ := file(b, 1<<20)
	for _, size := range []int64{4 << 10, 1 << 20} {
		for _, secure := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/tls=%t", size>>10, secure), func(b *testing.B) {
				var cfg *tls.Config
				if secure {
					cfg = serverTLS()
				}
				_, addr := start(b, Config{Handler: typical(Piece{File: f, Len: size})}, cfg)
				e := newExchanger(b, addr, secure)
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					e.Write(e.request)
					e.rest(b, e.size)
				}
			})
		}
	}
}

// allocsPerAnswer is the most that one answer may allocate in the front and its
// engine, the client's side included.
const allocsPerAnswer = 3

func TestAllocations(t *testing.T) {
	r := testing.Benchmark(func(b *testing.B) {
		f, _ := file(b, 4<<10)
		_, addr := start(b, Config{Handler: typical(Piece{File: f, Len: 4 << 10})}, nil)
		e := newExchanger(b, addr, false)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			e.Write(e.request)
			e.rest(b, e.size)
		}
	})
	if n := r.AllocsPerOp(); n > allocsPerAnswer {
		t.Errorf("%d allocations per answer; want at most %d", n, allocsPerAnswer)
	}
}

// BenchmarkIdle reports what a connection costs that has been served and is idle.
func BenchmarkIdle(b *testing.B) {
	f, _ := file(b, 4<<10)
	const n = 1000
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%t", secure), func(b *testing.B) {
			var cfg *tls.Config
			if secure {
				cfg = serverTLS()
			}
			for b.Loop() {
				h := typical(Piece{File: f, Len: 4 << 10})
				s, addr := start(b, Config{Handler: h, IdleTimeout: time.Minute}, cfg)
				before := inUse()
				list := make([]*exchanger, n)
				for i := range list {
					list[i] = newExchanger(b, addr, secure)
					list[i].buf = nil
				}
				b.ReportMetric(float64(inUse()-before)/n, "busy-B/conn")
				for tick := time.Tick(50 * time.Millisecond); s.engine.GetCurrentConcurrency() > 0; {
					<-tick
				}
				b.ReportMetric(float64(inUse()-before)/n, "idle-B/conn")
				for _, e := range list {
					e.Close()
				}
			}
		})
	}
}

func inUse() uint64 {
	for range 4 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
