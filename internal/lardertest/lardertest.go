// Package lardertest is what tests put around a node: origins that misbehave
// on demand, models of the clients that will come, throwaway certificates and
// the real binary under supervision. Product code never imports it.
package lardertest

import (
	"testing"
	"time"
)

// patience is how long Eventually and the node's start may take. It bounds a
// test that fails; one that passes does not feel it.
const patience = 30 * time.Second

// Eventually waits until cond is true and ends the test if that takes longer
// than half a minute. What says what was waited for: "all connections closed".
// It is for what cannot be waited for in another way: another process, or a
// counter without a signal.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !poll(patience, cond) {
		t.Fatalf("waited %v for: %s", patience, what)
	}
}

// poll reports whether cond became true within limit. It asks at once, then
// in growing steps of 1 to 20 ms.
func poll(limit time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for step := time.Millisecond; ; step = min(2*step, 20*time.Millisecond) {
		if cond() {
			return true
		}
		pause := time.NewTimer(step)
		select {
		case <-pause.C:
		case <-deadline.C:
			pause.Stop()
			return cond()
		}
	}
}
