package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the dumbest correct thing: what was put, in maps.
type model struct {
	t    *rapid.T
	opts Options
	s    *Store
	keys map[string]*modelObject
	held []*heldObject
	// tight: the budget is so small that what is neither pinned nor held may
	// be gone.
	tight bool
	// doubt: what changed since the last commit may be as before it.
	past map[string][]*modelObject
}

type modelObject struct {
	gen    uint64
	size   int64
	chunks map[int64][]byte
	pinned bool
}

type heldObject struct {
	o *Object
	m *modelObject
}

func TestModel(t *testing.T) {
	t.Parallel()
	for _, tight := range []bool{false, true} {
		t.Run(fmt.Sprintf("tight=%v", tight), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				dir, err := os.MkdirTemp("", "larder-model-")
				if err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(dir)
				m := &model{t: t, tight: tight, keys: map[string]*modelObject{}, past: map[string][]*modelObject{}}
				budget := int64(1000 * mib)
				if tight {
					budget = 4 * mib
				}
				m.opts = Options{Reserve: 1, MaxOpen: shards, batchDelay: time.Hour, // commits happen when the test says so
					Drives: []Drive{{Path: dir + "/a", Budget: budget}, {Path: dir + "/b", Budget: budget / 2}}}
				m.open()
				defer func() { m.releaseAll(); m.s.Close() }()
				t.Repeat(map[string]func(*rapid.T){
					"":        func(*rapid.T) {},
					"create":  m.create,
					"put":     m.put,
					"get":     m.get,
					"doom":    m.doom,
					"hold":    m.hold,
					"release": m.release,
					"purge":   m.purge,
					"pin":     m.pin,
					"list":    m.list,
					"scrub":   m.scrub,
					"commit":  func(*rapid.T) { m.commit() },
					"reopen":  m.reopen,
					"crash":   m.crash,
				})
				for key := range m.keys {
					m.compare(key)
				}
			})
		})
	}
}

func (m *model) open() {
	s, err := Open(m.t.Context(), m.opts)
	if err != nil {
		m.t.Fatal(err)
	}
	m.s = s
}

func (m *model) key(t *rapid.T) string {
	return fmt.Sprintf("p%d\n/k%d", rapid.IntRange(0, 2).Draw(t, "publisher"), rapid.IntRange(0, 4).Draw(t, "key"))
}

// remember keeps the present state of a key as one that a crash may bring back.
func (m *model) remember(key string) {
	var c *modelObject
	if o := m.keys[key]; o != nil {
		c = &modelObject{gen: o.gen, size: o.size, pinned: o.pinned, chunks: o.chunks}
	}
	m.past[key] = append(m.past[key], c)
}

func (m *model) create(t *rapid.T) {
	key := m.key(t)
	size := rapid.SampledFrom([]int64{0, 1, 10_000, 300_000, mib, mib + 7}).Draw(t, "size")
	o, err := m.s.Create(key, Meta{Publisher: key[:2], URL: "https://" + key[:2] + ".example" + key[3:], Size: size})
	if errors.Is(err, ErrFull) && m.tight {
		return
	}
	if err != nil {
		m.t.Fatalf("create %q: %v", key, err)
	}
	m.remember(key)
	old := m.keys[key]
	now := &modelObject{gen: o.Generation(), size: size, chunks: map[int64][]byte{}}
	if old != nil && old.pinned {
		now.pinned = true
	}
	// With the older one evicted, its pin can only have been there if it was not pinned.
	m.keys[key] = now
	o.Release()
}

// with gets the object of a key that the model has.
func (m *model) with(key string, f func(*Object, *modelObject)) {
	mo := m.keys[key]
	o, err := m.s.Get(key)
	if errors.Is(err, ErrNotFound) {
		if mo != nil && (!m.tight || mo.pinned) {
			m.t.Fatalf("%q is gone", key)
		}
		delete(m.keys, key)
		return
	}
	if err != nil {
		m.t.Fatalf("get %q: %v", key, err)
	}
	defer o.Release()
	if mo == nil {
		m.t.Fatalf("%q is there, generation %d", key, o.Generation())
	}
	if o.Generation() != mo.gen || o.Meta().Size != mo.size {
		m.t.Fatalf("%q: generation %d size %d, want %d %d", key, o.Generation(), o.Meta().Size, mo.gen, mo.size)
	}
	f(o, mo)
}

func (m *model) put(t *rapid.T) {
	key := m.key(t)
	m.with(key, func(o *Object, mo *modelObject) {
		if o.Chunks() == 0 {
			return
		}
		i := rapid.Int64Range(0, o.Chunks()-1).Draw(t, "chunk")
		b := content(key, mo.gen, mo.size, i)
		err := o.Put(i, b)
		if errors.Is(err, ErrFull) && m.tight {
			return
		}
		if err != nil {
			m.t.Fatalf("put %q %d: %v", key, i, err)
		}
		mo.chunks[i] = b // older states share the map: a chunk more is no lie after a crash
	})
}

func (m *model) compare(key string) {
	m.with(key, func(o *Object, mo *modelObject) { m.compareObject(o, mo, true) })
}

// compareObject compares an object with the model; all: nothing may be missing.
func (m *model) compareObject(o *Object, mo *modelObject, all bool) {
	for i := range o.Chunks() {
		want, ok := mo.chunks[i]
		if !o.Has(i) {
			if ok && all {
				m.t.Fatalf("%q has lost chunk %d", o.Key(), i)
			}
			delete(mo.chunks, i)
			continue
		}
		if !ok {
			m.t.Fatalf("%q has chunk %d, which was never put", o.Key(), i)
		}
		got, err := read(o, mo.size, i)
		if err != nil || !bytes.Equal(got, want) {
			m.t.Fatalf("%q chunk %d is not what was put (%v)", o.Key(), i, err)
		}
	}
	if complete := int64(len(mo.chunks)) == o.Chunks(); o.Complete() != complete {
		m.t.Fatalf("%q complete: %v, want %v", o.Key(), o.Complete(), complete)
	}
}

func (m *model) get(t *rapid.T) { m.compare(m.key(t)) }

func (m *model) doom(t *rapid.T) {
	key := m.key(t)
	m.with(key, func(o *Object, _ *modelObject) {
		m.remember(key)
		o.Doom()
		delete(m.keys, key)
		if err := o.Put(0, nil); !errors.Is(err, ErrGone) {
			m.t.Fatalf("put after doom: %v", err)
		}
	})
}

func (m *model) hold(t *rapid.T) {
	if len(m.held) >= 3 {
		return
	}
	m.with(m.key(t), func(o *Object, mo *modelObject) {
		o.Retain()
		m.held = append(m.held, &heldObject{o, mo})
	})
}

func (m *model) release(t *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	h := m.held[0]
	m.held = m.held[1:]
	m.compareObject(h.o, h.m, true) // whatever became of it since: it is there for who holds it
	h.o.Release()
}

func (m *model) releaseAll() {
	for _, h := range m.held {
		h.o.Release()
	}
	m.held = nil
}

func (m *model) filter(t *rapid.T) (Filter, func(key string) bool) {
	key := m.key(t)
	switch rapid.IntRange(0, 2).Draw(t, "by") {
	case 0:
		return Filter{Key: key}, func(k string) bool { return k == key }
	case 1:
		return Filter{Publisher: key[:2]}, func(k string) bool { return k[:2] == key[:2] }
	}
	return Filter{Prefix: key[:2] + ".example/k"}, func(k string) bool { return k[:2] == key[:2] }
}

func (m *model) purge(t *rapid.T) {
	f, selects := m.filter(t)
	dry, err := m.s.Purge(f, true)
	if err != nil {
		m.t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "dry") {
		return
	}
	res, err := m.s.Purge(f, false)
	if err != nil || res != dry {
		m.t.Fatalf("purged %+v, %v; the dry run said %+v", res, err, dry)
	}
	n := 0
	for key := range m.keys {
		if selects(key) {
			m.remember(key)
			delete(m.keys, key)
			n++
		}
	}
	if res.Objects > n || res.Objects < n && !m.tight {
		m.t.Fatalf("purged %d of %d", res.Objects, n)
	}
	m.past = map[string][]*modelObject{} // purging commits
}

func (m *model) pin(t *rapid.T) {
	f, selects := m.filter(t)
	on := rapid.IntRange(0, 3).Draw(t, "on") == 0
	if _, err := m.s.Pin(f, on); err != nil {
		m.t.Fatal(err)
	}
	infos, err := m.s.List(f, "", 0)
	if err != nil {
		m.t.Fatal(err)
	}
	pinned := map[string]bool{}
	for _, in := range infos {
		pinned[in.Key] = in.Pinned
	}
	for key, mo := range m.keys {
		if !selects(key) {
			continue
		}
		got, there := pinned[key]
		if there && got != on || !there && (!m.tight || mo.pinned) {
			m.t.Fatalf("%q: there %v, pinned %v, want %v", key, there, got, on)
		}
		if !there {
			delete(m.keys, key)
			continue
		}
		mo.pinned = on
	}
	m.past = map[string][]*modelObject{}
}

func (m *model) list(t *rapid.T) {
	f, selects := m.filter(t)
	var keys []string
	for after := ""; ; {
		infos, err := m.s.List(f, after, 2)
		if err != nil {
			m.t.Fatal(err)
		}
		if len(infos) == 0 {
			break
		}
		for _, in := range infos {
			mo := m.keys[in.Key]
			if mo == nil || !selects(in.Key) || in.Size != mo.size || in.ChunksPresent != int64(len(mo.chunks)) || in.Pinned != mo.pinned {
				m.t.Fatalf("listed %+v, the model has %+v", in, mo)
			}
			if in.Key <= after {
				m.t.Fatalf("%q listed after %q", in.Key, after)
			}
			after = in.Key
			keys = append(keys, in.Key)
		}
	}
	m.past = map[string][]*modelObject{} // listing commits
	if m.tight {
		return
	}
	for key := range m.keys {
		if selects(key) && !strings.Contains(fmt.Sprintf("%q", keys), fmt.Sprintf("%q", key)) {
			m.t.Fatalf("%q is not in %q", key, keys)
		}
	}
}

func (m *model) scrub(t *rapid.T) {
	res, err := m.s.Scrub(t.Context(), Filter{}, 0)
	if err != nil || res.BadChunks != 0 {
		m.t.Fatalf("scrub: %+v, %v", res, err)
	}
	m.past = map[string][]*modelObject{}
}

func (m *model) commit() {
	for _, v := range m.s.volumes() {
		if err := v.flush(); err != nil {
			m.t.Fatal(err)
		}
	}
	m.past = map[string][]*modelObject{}
	if len(m.held) == 0 {
		audit(m.t, m.s)
	}
}

func (m *model) reopen(*rapid.T) {
	m.releaseAll()
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.past = map[string][]*modelObject{}
	m.open()
	audit(m.t, m.s)
}

// crash stops the store in the middle. Each key is then as it is in the model,
// or as it was at some time since the last commit.
func (m *model) crash(*rapid.T) {
	m.releaseAll()
	abandon(m.s)
	m.open()
	audit(m.t, m.s)
	keys := map[string]bool{}
	for key := range m.keys {
		keys[key] = true
	}
	for key := range m.past {
		keys[key] = true
	}
	for key := range keys {
		m.settle(key)
	}
	m.past = map[string][]*modelObject{}
}

// settle makes the model say of a key what the store says, if that may be.
func (m *model) settle(key string) {
	may := append(m.past[key], m.keys[key])
	o, err := m.s.Get(key)
	if errors.Is(err, ErrNotFound) {
		for _, mo := range may {
			// Never committed, or evicted.
			if mo == nil || m.tight && !mo.pinned {
				delete(m.keys, key)
				return
			}
		}
		m.t.Fatalf("%q is gone after the crash", key)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	defer o.Release()
	for _, mo := range may {
		if mo != nil && mo.gen == o.Generation() {
			m.compareObject(o, mo, false)
			mo.pinned = o.pinned.Load()
			m.keys[key] = mo
			return
		}
	}
	m.t.Fatalf("%q has generation %d after the crash, which it never had since the last commit", key, o.Generation())
}
