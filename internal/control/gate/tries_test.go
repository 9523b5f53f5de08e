package gate

import (
	"fmt"
	"testing"
	"time"
)

func TestTries(t *testing.T) {
	t.Parallel()
	tr, now := newTries(), time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	const addr = "192.0.2.1:1"
	for i := range triesAtOnce {
		if w := tr.wait(addr, now); w != 0 {
			t.Fatalf("after %d failures it waits %s", i, w)
		}
		tr.failed(addr, now)
	}
	for remote, want := range map[string]time.Duration{
		addr: triesEvery, "192.0.2.1:2": triesEvery, "[::ffff:192.0.2.1]:3": triesEvery, "192.0.2.2:1": 0, "[2001:db8::1]:1": 0, "@": 0,
	} {
		if w := tr.wait(remote, now); w != want {
			t.Errorf("%s waits %s, want %s", remote, w, want)
		}
	}
	now = now.Add(triesEvery)
	if w := tr.wait(addr, now); w != 0 {
		t.Errorf("a while later it waits %s", w)
	}
	// A network of IPv6 is one; what is long over is forgotten.
	for range triesAtOnce {
		tr.failed("[2001:db8::1]:1", now)
	}
	if w := tr.wait("[2001:db8::2]:1", now); w == 0 {
		t.Error("the same network does not wait")
	}
	for i := range 2 * maxTries {
		tr.failed(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
		now = now.Add(triesEvery)
	}
	if len(tr.by) > maxTries {
		t.Errorf("%d addresses are remembered", len(tr.by))
	}
}
