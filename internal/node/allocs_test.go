package node

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/node/config"
)

// How many allocations a cached request may cost the whole node, from the
// request's first byte to the answer's last; all is counted, so a change that
// makes it more is one that somebody has to look at. The access log is off: it
// is written by who wants it.
var allocsPerHit = map[string]float64{
	"immutable, a small file":        7,
	"immutable, a piece of a file":   8,
	"immutable, a file of 3 MiB":     7,
	"immutable, seen by its address": 7,
	"standard, fresh, a small file":  9,
	"standard, fresh, not modified":  10,
}

var (
	emptyLine = []byte("\r\n\r\n")
	lengthIs  = []byte("Content-Length: ")
	unchanged = []byte("HTTP/1.1 304")
)

// whole reads one answer and allocates nothing.
func whole(c net.Conn, buf []byte) error {
	for n := 0; ; {
		k, err := c.Read(buf[n:])
		if err != nil {
			return err
		}
		n += k
		end := bytes.Index(buf[:n], emptyLine)
		if end < 0 {
			continue
		}
		length := 0
		if at := bytes.Index(buf[:end], lengthIs); at >= 0 && !bytes.HasPrefix(buf, unchanged) {
			for _, d := range buf[at+len(lengthIs) : end] {
				if d < '0' || d > '9' {
					break
				}
				length = length*10 + int(d-'0')
			}
		}
		if n >= end+len(emptyLine)+length {
			return nil
		}
	}
}

func TestAllocationsOfAHit(t *testing.T) {
	if lardertest.Race {
		t.Skip("the race detector allocates, too")
	}
	content := strings.Repeat("x", 3<<20)
	r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Cache-Control", "max-age=3600")
		size := len(content)
		if strings.HasPrefix(r.URL.Path, "/small") {
			size = 4000
		}
		http.ServeContent(w, r, "x.bin", time.Unix(1e9, 0), strings.NewReader(content[:size]))
	}), map[string]string{
		"std.yaml": standardPublisher,
		"imm.yaml": "name: imm\nhosts: [imm.example]\nfreshness: immutable\norigin: {address: \"$ORIGIN\"}\n",
	}, func(c *config.Config) { c.Log.Access = "" })
	addr := r.Addresses().HTTP[0]
	for name, request := range map[string]string{
		"immutable, a small file":        "GET /small HTTP/1.1\r\nHost: imm.example\r\nUser-Agent: Microsoft-Delivery-Optimization/10.1\r\nAccept: */*\r\n\r\n",
		"immutable, a piece of a file":   "GET /large HTTP/1.1\r\nHost: imm.example\r\nUser-Agent: Microsoft-Delivery-Optimization/10.1\r\nRange: bytes=1048576-1050000\r\n\r\n",
		"immutable, a file of 3 MiB":     "GET /large HTTP/1.1\r\nHost: imm.example\r\nUser-Agent: Microsoft-Delivery-Optimization/10.1\r\n\r\n",
		"immutable, seen by its address": "GET /small?cacheHostOrigin=imm.example HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: Microsoft-Delivery-Optimization/10.1\r\n\r\n",
		"standard, fresh, a small file":  "GET /small HTTP/1.1\r\nHost: std.example\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
		"standard, fresh, not modified":  "GET /small HTTP/1.1\r\nHost: std.example\r\nUser-Agent: curl/8\r\nIf-None-Match: \"a\"\r\n\r\n",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		asked, buf := []byte(request), make([]byte, 4<<20)
		hit := func() {
			if _, err := c.Write(asked); err != nil {
				t.Fatal(err)
			}
			if err := whole(c, buf); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		hit() // this one may be fetched
		// The node does other things, too: what was just stored goes into the
		// index. The quietest of some runs is the request's.
		most, got := allocsPerHit[name], testing.AllocsPerRun(100, hit)
		for round := 0; round < 50 && got > most; round++ {
			got = min(got, testing.AllocsPerRun(100, hit))
		}
		if got > most || got < most-4 {
			t.Errorf("%s: %g allocations, want %g at most (and the bound near it)", name, got, most)
		}
	}
}
