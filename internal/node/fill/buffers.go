package fill

import (
	"context"
	"slices"
	"sync"
	"time"
)

// buffers hands out the memory of chunks under way, so much and no more. A chunk
// begins in a small piece, which is not counted, and gets memory for all of it
// when that is full: origins that fall silent early hold up nobody.
// Chunks that only wait for slow readers because the disk refused them give
// their memory to whoever needs it: neither a slow reader nor a full disk can
// keep others from fetching.
type buffers struct {
	mu      sync.Mutex    // innermost of all locks
	free    [][]byte      // last in, first out, so that few are ever touched; guarded by mu
	left    int           // how many may still be made; guarded by mu
	kept    []*chunk      // refused by the disk, oldest first; guarded by mu
	waiting []chan []byte // oldest first; guarded by mu
	armed   bool          // reclaim will be called; guarded by mu
}

// grace is how long a kept chunk stays for who was reading it as it came.
const grace = 50 * time.Millisecond

// smallSize is where a chunk begins.
const smallSize = 64 << 10

// idle is how many free buffers are kept for the next fetches.
const idle = 16

var smalls = sync.Pool{New: func() any { b := make([]byte, smallSize); return &b }}

// small returns memory for the beginning of a chunk.
func small() []byte { return *smalls.Get().(*[]byte) }

// get returns memory for one chunk, waiting for it if need be. No lock is held.
func (b *buffers) get(ctx context.Context) ([]byte, error) {
	b.mu.Lock()
	if n := len(b.free); n > 0 {
		buf := b.free[n-1]
		b.free = b.free[:n-1]
		b.mu.Unlock()
		return buf, nil
	}
	if b.left > 0 {
		b.left--
		b.mu.Unlock()
		return make([]byte, ChunkSize), nil
	}
	ready := make(chan []byte, 1)
	b.waiting = append(b.waiting, ready)
	b.mu.Unlock()
	b.reclaim()
	select {
	case buf := <-ready:
		return buf, nil
	case <-ctx.Done():
		b.mu.Lock()
		k := slices.Index(b.waiting, ready)
		if k >= 0 {
			b.waiting = slices.Delete(b.waiting, k, k+1)
		}
		b.mu.Unlock()
		if k < 0 {
			b.put(<-ready) // it came at the same moment
		}
		return nil, context.Cause(ctx)
	}
}

// put gives memory back.
func (b *buffers) put(buf []byte) {
	if len(buf) == smallSize {
		smalls.Put(&buf)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 {
		b.waiting[0] <- buf
		b.waiting = b.waiting[1:]
		return
	}
	if len(b.free) == idle {
		b.left++
		return
	}
	b.free = append(b.free, buf)
}

// keep notes that ch is whole and may be reclaimed.
func (b *buffers) keep(ch *chunk) {
	b.mu.Lock()
	ch.since = time.Now()
	b.kept = append(b.kept, ch)
	b.mu.Unlock()
}

// drop is put for the memory of a chunk, kept or not.
func (b *buffers) drop(ch *chunk) {
	b.mu.Lock()
	if k := slices.Index(b.kept, ch); k >= 0 {
		b.kept = slices.Delete(b.kept, k, k+1)
	}
	b.mu.Unlock()
	b.put(ch.buf)
	ch.buf = nil
}

// reclaim takes kept chunks from their readers, the oldest first, while somebody
// waits for memory. No lock is held.
func (b *buffers) reclaim() {
	for ch := b.oldest(); ch != nil; ch = b.oldest() {
		ch.c.forgo(ch)
	}
}

func (b *buffers) oldest() *chunk {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.armed || len(b.waiting) == 0 || len(b.kept) == 0 {
		return nil
	}
	ch := b.kept[0]
	if rest := grace - time.Since(ch.since); rest > 0 {
		b.armed = true
		time.AfterFunc(rest, func() {
			b.mu.Lock()
			b.armed = false
			b.mu.Unlock()
			b.reclaim()
		})
		return nil
	}
	b.kept = b.kept[1:]
	return ch
}
