package store

import (
	"errors"
	"sync/atomic"
	"time"
)

// A drive that hangs answers nothing, not even with an error: whoever reads from
// it waits, in the system, for as long as it hangs. What can be done is to notice
// it, and to ask it for nothing more.

// hangAfter is how long the system may take for one read, write or sync.
const hangAfter = 30 * time.Second

var errHangs = errors.New("hangs: the system did not come back from a read or write for too long")

// watch knows since when the oldest thing asked of a drive is under way, in
// quarters of the time it may take.
type watch struct {
	quarter time.Duration
	begun   [8]atomic.Int64 // under way, by the quarter they began in
}

func (w *watch) slot(now time.Time) int {
	return int(now.UnixNano() / int64(w.quarter) % int64(len(w.begun)))
}

// begin notes that something is asked; end takes what it returned.
func (w *watch) begin() int {
	i := w.slot(time.Now())
	w.begun[i].Add(1)
	return i
}

func (w *watch) end(i int) { w.begun[i].Add(-1) }

// stuck reports whether something is under way for four quarters or more.
func (w *watch) stuck(now time.Time) bool {
	n := len(w.begun)
	for age := 5; age < n; age++ {
		if w.begun[(w.slot(now)-age+n)%n].Load() > 0 {
			return true
		}
	}
	return false
}

// watchdog ends the volume when its drive hangs. Its own goroutine asks the drive
// for nothing.
func (v *volume) watchdog() {
	ticker := time.NewTicker(v.watch.quarter)
	defer ticker.Stop()
	for {
		select {
		case <-v.done:
			return
		case <-v.quit:
			return
		case now := <-ticker.C:
			if v.watch.stuck(now) {
				v.fail(stateFailed, errHangs)
				return
			}
		}
	}
}
