package origin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestConnsPerOrigin(t *testing.T) {
	t.Parallel()
	var (
		mu        sync.Mutex
		now, most int
	)
	release := make(chan struct{})
	address := rawServer(t, nil, func(conn net.Conn, br *bufio.Reader) {
		for _, err := readHead(br); err == nil; _, err = readHead(br) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			<-release
			mu.Lock()
			now--
			mu.Unlock()
			io.WriteString(conn, answerOK)
		}
	})
	c := newClient(t, Config{ConnsPerOrigin: 3})
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
	}
	eventually(t, "three requests arrived", func() bool { mu.Lock(); defer mu.Unlock(); return now == 3 })
	close(release)
	wg.Wait()
	if most != 3 {
		t.Errorf("%d requests at once, want 3", most)
	}
	if n := metric(t, c, "larder_origin_opened_connections_total"); n > 3 {
		t.Errorf("%v connections", n)
	}
}

func TestWaitingForAConnection(t *testing.T) {
	t.Parallel()
	address, _ := endless(t, "x")
	c := newClient(t, Config{ConnsPerOrigin: 1, SilenceTimeout: 200 * time.Millisecond})
	r := &Request{Endpoint: plainEndpoint(address), Target: "/?" + secret}
	first, err := c.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = c.Do(t.Context(), r)
	wantError(t, err, 503, KindLimit)
	if d := time.Since(start); d < 200*time.Millisecond || d > 3*time.Second {
		t.Errorf("waited %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Do(ctx, r)
	wantError(t, err, 503, KindCanceled)
	first.Body.Close()
	if o := c.origins.values()[0]; len(o.slots) != 0 || o.users != 0 {
		t.Errorf("%d slots held, %d users", len(o.slots), o.users)
	}
}

func TestOriginsAreForgotten(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, answerOK)
	busyAddress, _ := endless(t, "x")
	c := newClient(t, Config{})
	busy, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "http", Host: "busy.example", Address: busyAddress}, Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Body.Close()
	for i := range maxOrigins + 20 {
		get(t, c, &Request{Endpoint: Endpoint{Scheme: "http", Host: fmt.Sprintf("h%d.example", i), Address: address}, Target: "/"})
	}
	if n := c.origins.order.Len(); n > maxOrigins {
		t.Errorf("%d origins kept", n)
	}
	eventually(t, "idle connections of forgotten origins are closed", func() bool {
		return metric(t, c, "larder_origin_open_connections") <= maxOrigins
	})
	hosts := c.Hosts()
	if len(hosts) != maxHosts || hosts[0].Host != fmt.Sprintf("h%d.example", maxOrigins+19) {
		t.Errorf("%d hosts, the first is %s", len(hosts), hosts[0].Host)
	}
	if _, err := io.ReadFull(busy.Body, make([]byte, 1)); err != nil {
		t.Errorf("a transfer of an origin used longest ago broke: %v", err)
	}
}

func TestEndpointsDoNotShareConnections(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, serverTLS(t, anHour(), "files.example.com"), answerOK)
	c := newClient(t, Config{})
	get(t, c, &Request{Endpoint: tlsEndpoint(address), Target: "/"})
	// The same server under another trust, and under another name.
	distrust := tlsEndpoint(address)
	distrust.Roots = nil
	other := tlsEndpoint(address)
	other.Host = "other.example"
	for _, ep := range []Endpoint{distrust, other} {
		_, err := c.Do(t.Context(), &Request{Endpoint: ep, Target: "/"})
		wantError(t, err, 502, KindTLS)
	}
	// A name that is guarded does not get the connection of one that is not.
	c = newClient(t, Config{Lookup: lookup("127.0.0.1")})
	_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "https", Host: "files.example.com"}, Target: "/"})
	wantError(t, err, 502, KindForbidden)
}

func TestHosts(t *testing.T) {
	t.Parallel()
	good, _ := answering(t, nil, answerOK)
	bad, _ := answering(t, nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	c := newClient(t, Config{})
	for range 2 {
		get(t, c, &Request{Endpoint: Endpoint{Scheme: "http", Host: "good.example", Address: good}, Target: "/"})
	}
	get(t, c, &Request{Endpoint: Endpoint{Scheme: "http", Host: "bad.example", Address: bad}, Target: "/"})
	hosts := c.Hosts()
	if len(hosts) != 2 {
		t.Fatalf("got %+v", hosts)
	}
	if h := hosts[0]; h.Host != "bad.example" || h.OK != 0 || h.Failures != 1 || h.LastErr != "answered 503" || h.LastErrAt.IsZero() || !h.LastOKAt.IsZero() || h.Conns != 1 {
		t.Errorf("got %+v", h)
	}
	if h := hosts[1]; h.Host != "good.example" || h.OK != 2 || h.Failures != 0 || h.LastErr != "" || h.LastOKAt.IsZero() || h.Conns != 1 {
		t.Errorf("got %+v", h)
	}
}

func TestRangesAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		defer c.Close()
		if got := c.Ranges("a"); got != RangesUnknown {
			t.Errorf("at first: %v", got)
		}
		c.LearnRanges("a", false)
		c.LearnRanges("b", true)
		time.Sleep(rangesDecay - time.Second)
		if a, b := c.Ranges("a"), c.Ranges("b"); a != RangesNo || b != RangesYes {
			t.Errorf("after a day: %v, %v", a, b)
		}
		c.LearnRanges("b", false)
		time.Sleep(time.Second)
		if a, b := c.Ranges("a"), c.Ranges("b"); a != RangesUnknown || b != RangesNo {
			t.Errorf("after more than a day: %v, %v", a, b)
		}
		for i := range 2 * maxRanges {
			c.LearnRanges(fmt.Sprint(i), true)
		}
		if n := c.ranges.order.Len(); n != maxRanges || len(c.ranges.m) != maxRanges {
			t.Errorf("%d remembered", n)
		}
	})
}
