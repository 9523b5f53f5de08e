package main_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"larder/internal/demo"
	"larder/internal/lardertest"
)

// Many clients at once, and clients who leave.

func TestStampede(t *testing.T) {
	t.Parallel()
	needTime(t)
	for _, tt := range []struct {
		name, scheme string
		how          lardertest.Behaviour
	}{
		{"http", "http", lardertest.Behaviour{}},
		{"https", "https", lardertest.Behaviour{}},
		{"an origin without ranges", "http", lardertest.Behaviour{IgnoreRange: true}},
		{"an origin without a length", "http", lardertest.Behaviour{IgnoreRange: true, Chunked: true}},
		{"an origin that breaks off", "http", lardertest.Behaviour{Truncate: true, After: 2*mib + 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			file := demo.File{Path: "/stampede.bin", Size: 16 * mib}
			body, err := io.ReadAll(file.Content().Reader())
			if err != nil {
				t.Fatal(err)
			}
			l.origin.AddBytes(file.Path, body)
			l.origin.Set(file.Path, tt.how)
			l.origin.SetLatency(20 * time.Millisecond)
			addr, config := l.addr(tt.scheme)
			res, err := demo.Burst(t.Context(), demo.BurstConfig{
				NodeURL: tt.scheme + "://" + addr, Host: cdnHost, TLS: config,
				Clients: 32, Connections: 2, Files: []demo.File{file}, Timeout: time.Minute, Seed: 1,
			})
			if err != nil || !res.OK() || res.Incomplete {
				t.Fatalf("%v\n%s", err, res)
			}
			if res.Asked < 32*file.Size {
				t.Errorf("the clients got %d bytes, want %d at least", res.Asked, 32*file.Size)
			}
			l.wantSent(t, file.Path, file.Size, file.Size)
		})
	}
}

func TestReaderWhoLeavesHarmsNobody(t *testing.T) {
	t.Parallel()
	const size = 4 * mib
	l := newLab(t, labOptions{})
	l.origin.Add("/left", size)
	l.origin.Set("/left", lardertest.Behaviour{Pace: 4 * mib})
	q := question{addr: l.HTTP, target: "/left"}
	var leavers []net.Conn
	for range 3 {
		conn, err := q.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, body, err := q.sendOn(conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		leavers = append(leavers, conn)
	}
	stays := make(chan *reply, 1)
	go func() {
		r, err := q.send(t.Context())
		if err != nil {
			t.Error(err)
		}
		stays <- r
	}()
	lardertest.Eventually(t, "the one who stays is there", func() bool {
		return l.Metric("larder_front_connections") >= 4
	})
	for _, conn := range leavers {
		_ = conn.Close() // the one who caused the fetch first
	}
	if r := <-stays; r != nil {
		r.wantContent(t, "/left", 1, size, 0, size)
	}
	l.wantSent(t, "/left", size, size)
}

func TestAloneReaderWhoLeavesEndsTheFetch(t *testing.T) {
	t.Parallel()
	const size = 64 * mib
	l := newLab(t, labOptions{})
	l.origin.Add("/left", size)
	l.origin.SetRate(8 * mib)
	q := question{addr: l.HTTP, target: "/left"}
	conn, err := q.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := q.sendOn(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	lardertest.Eventually(t, "the fetch is over", func() bool { return l.Metric("larder_fill_active_runs") == 0 })
	l.wantSent(t, "/left", 1, size/2)
	// What came is not fetched again.
	l.origin.SetRate(0)
	before := l.origin.BytesSent("/left")
	l.get(t, "/left").wantContent(t, "/left", 1, size, 0, size)
	if again := l.origin.BytesSent("/left") - before; again > size {
		t.Errorf("%d bytes were fetched for %d", again, size)
	}
}

// Whoever waits for an origin that is silent holds up nobody who does not.
func TestStalledOriginsDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{plain: true})
	const stalled = 120
	ctx := t.Context()
	for i := range stalled {
		path := fmt.Sprintf("/stalled/%d", i)
		l.origin.Add(path, 2*mib)
		l.origin.Set(path, lardertest.Behaviour{Stall: true, After: 1000})
		go func() { // ends with the test's context or the node
			_, _ = question{addr: l.HTTP, host: fmt.Sprintf("bad%d.cdn.test", i%4), target: path}.send(ctx)
		}()
	}
	lardertest.Eventually(t, "all wait for a silent origin", func() bool {
		n := 0
		for _, q := range l.origin.Requests() {
			if q.Sent > 0 {
				n++
			}
		}
		return n >= stalled
	})
	for i := range 5 {
		path := fmt.Sprintf("/good/%d", i)
		l.origin.Add(path, 2*mib)
		r := l.get(t, path)
		r.wantContent(t, path, 1, 2*mib, 0, 2*mib)
		r.wantQuick(t, 2*time.Second)
	}
}

// Ranges that nobody asks for together are still right while versions change.
func TestCrowdWhileTheContentChanges(t *testing.T) {
	t.Parallel()
	const size, readers = 4*mib + 11, 24
	l := newLab(t, labOptions{})
	l.origin.Add("/c", size)
	l.origin.SetRate(16 * mib)
	replies := make(chan *reply, readers)
	for i := range readers {
		go func() {
			q := question{addr: l.HTTP, target: "/c"}
			if i%2 == 1 {
				q.fields = []string{"Range: bytes=1048570-"}
			}
			r, err := q.send(t.Context())
			if err != nil {
				t.Error(err)
			}
			replies <- r
		}()
		if i == readers/2 {
			lardertest.Eventually(t, "the first bytes are on their way", func() bool { return l.origin.BytesSent("/c") > mib })
			l.origin.SetVersion("/c", 2, size)
		}
	}
	for range readers {
		r := <-replies
		if r == nil || r.status >= 500 {
			continue
		}
		from := int64(0)
		if r.status == http.StatusPartialContent {
			from = 1048570
		}
		tag := r.header.Get("ETag")
		version := 1
		if tag == lardertest.ETag("/c", 2, size) {
			version = 2
		}
		if wrong := lardertest.Content("/c", version, size).Wrong(r.body, from); wrong != 0 {
			t.Errorf("%d of %d bytes are not of version %d, which the head names", wrong, len(r.body), version)
		}
		if r.err == nil && int64(len(r.body)) != size-from {
			t.Errorf("%d bytes look whole, want %d", len(r.body), size-from)
		}
	}
}
