package link

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"larder/internal/fleet"
	"larder/internal/sys/durable"
)

// buffer keeps minutes until they are acknowledged, on disk. Its file begins
// with a header and then holds a minute a line; minutes are appended, and the
// file is written anew, as a whole, when some were acknowledged.
type buffer struct {
	file string
	node string
	keep time.Duration
	most int64 // bytes of the file

	mu      sync.Mutex
	seq     int64          // the last one given out; guarded by mu
	loaded  int64          // seq when the file was read: what is above is of this process; guarded by mu
	minutes []fleet.Minute // not acknowledged, oldest first; guarded by mu
	size    int64          // of the file; guarded by mu
	dropped int64          // minutes thrown away since the start; guarded by mu
}

type bufferHeader struct {
	Node string `json:"node"`
	Seq  int64  `json:"seq"` // the last one given out when this was written
}

func bufferFile(dir string) string { return filepath.Join(dir, "minutes.jsonl") }

// openBuffer reads what waits. The last line may have been cut by a crash: it is
// left out. What belongs to another node is thrown away.
func openBuffer(dir, node string, keep time.Duration, most int64) (*buffer, error) {
	b := &buffer{file: bufferFile(dir), node: node, keep: keep, most: most}
	data, err := os.ReadFile(b.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the minutes that wait: %w", err)
	}
	b.read(data)
	b.loaded = b.seq
	return b, b.rewrite()
}

func (b *buffer) read(data []byte) {
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 1<<20)
	var h bufferHeader
	if !s.Scan() || json.Unmarshal(s.Bytes(), &h) != nil || h.Node != b.node || h.Seq < 0 {
		return
	}
	b.seq = h.Seq
	for s.Scan() {
		var m fleet.Minute
		if json.Unmarshal(s.Bytes(), &m) != nil || m.Seq < 1 {
			continue
		}
		if n := len(b.minutes); n > 0 && m.Seq <= b.minutes[n-1].Seq {
			continue
		}
		b.minutes = append(b.minutes, m)
		b.seq = max(b.seq, m.Seq)
	}
}

// rewrite writes the file anew. b.mu is held, or b is not shared yet.
func (b *buffer) rewrite() error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	if err := e.Encode(bufferHeader{b.node, b.seq}); err != nil {
		return err
	}
	for i := range b.minutes {
		if err := e.Encode(&b.minutes[i]); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(b.file, out.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the minutes that wait: %w", err)
	}
	b.size = int64(out.Len())
	return nil
}

// add numbers a minute and keeps it. If the disk takes nothing it is kept in
// memory alone, and the error says so.
func (b *buffer) add(m fleet.Minute, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	m.Seq = b.seq
	b.minutes = append(b.minutes, m)
	drop := 0
	for drop < len(b.minutes)-1 && now.Sub(b.minutes[drop].End) > b.keep {
		drop++
	}
	line, err := json.Marshal(&m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if b.size+int64(len(line)) > b.most {
		// A tenth at once, so that not every minute writes all anew.
		drop = max(drop, len(b.minutes)/10+1)
	}
	if drop > 0 {
		b.dropped += int64(drop)
		b.minutes = append([]fleet.Minute(nil), b.minutes[drop:]...)
		return b.rewrite()
	}
	f, err := os.OpenFile(b.file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("keeping a minute: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(line); err != nil {
		// Half a line would spoil the next one.
		return errors.Join(fmt.Errorf("keeping a minute: %w", err), b.rewrite())
	}
	b.size += int64(len(line))
	return f.Sync()
}

// next returns up to n minutes, oldest first.
func (b *buffer) next(n int) []fleet.Minute {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]fleet.Minute(nil), b.minutes[:min(n, len(b.minutes))]...)
}

// acknowledged forgets all minutes up to seq. A seq above all that were given
// out means that this directory is older than what was delivered, such as a
// back-up: numbers go on above it.
func (b *buffer) acknowledged(seq int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(b.minutes) && b.minutes[n].Seq <= seq {
		n++
	}
	if n == 0 && seq <= b.seq {
		return nil
	}
	if seq > b.seq {
		// What was read from the older file was delivered back then. What was
		// counted since has numbers that are taken, and gets new ones.
		for n = 0; n < len(b.minutes) && b.minutes[n].Seq <= b.loaded; n++ {
		}
		b.seq = seq
		for i := n; i < len(b.minutes); i++ {
			b.seq++
			b.minutes[i].Seq = b.seq
		}
		b.loaded = seq
	}
	b.minutes = append([]fleet.Minute(nil), b.minutes[n:]...)
	return b.rewrite()
}

// waiting is how many minutes wait, and how many were thrown away.
func (b *buffer) waiting() (n int, dropped int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.minutes), b.dropped
}
