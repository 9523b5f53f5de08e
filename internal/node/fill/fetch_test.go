package fill

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/byterange"
)

// stampede lets readers ask for every MiB of the object, each in its own
// order, as Delivery Optimization does.
func stampede(t testing.TB, u *upstream, f *Filler, readers int) {
	size := int64(len(u.body))
	var wg sync.WaitGroup
	for k := range readers {
		wg.Go(func() {
			for _, i := range rand.New(rand.NewPCG(1, uint64(k))).Perm(int((size + mib - 1) / mib)) {
				start := int64(i) * mib
				end := min(start+mib, size)
				c, err := content(t.Context(), f, u, Want{Range: byterange.Range{Start: start, End: end}})
				if err != nil {
					t.Error(err)
					return
				}
				got, _, err := readRange(t.Context(), c, start, end)
				c.Close()
				if err != nil || !bytes.Equal(got, u.body[start:end]) {
					t.Errorf("reader %d, chunk %d: %d bytes, %v; want the right %d", k, i, len(got), err, end-start)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestEachChunkIsFetchedOnceHoweverManyAsk(t *testing.T) {
	t.Parallel()
	u := newUpstream(16*mib + 4711)
	f := newFiller(t, u, Config{})
	stampede(t, u, f, 64)
	u.mu.Lock()
	defer u.mu.Unlock()
	if size := int64(len(u.body)); u.asked != size || u.read != size {
		t.Errorf("asked for %d bytes and read %d of an object of %d", u.asked, u.read, size)
	}
}

func BenchmarkStampede(b *testing.B) {
	const size = 16 * mib
	b.SetBytes(64 * size)
	for b.Loop() {
		u := newUpstream(size)
		f := newFiller(b, u, Config{})
		stampede(b, u, f, 64)
		b.ReportMetric(float64(u.asking())/size, "asked/size")
	}
}

func TestNeighboursComeInOneRequest(t *testing.T) {
	t.Parallel()
	u := newUpstream(16 * mib)
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: 3 * mib}})
	defer c.Close()
	for _, r := range []byterange.Range{{Start: 0, End: 3 * mib}, {Start: 5*mib + 1, End: 9 * mib}, {Start: 2 * mib, End: 10 * mib}} {
		got, _, err := readRange(t.Context(), c, r.Start, r.End)
		if err != nil || !bytes.Equal(got, u.body[r.Start:r.End]) {
			t.Fatalf("%v: %d bytes, %v", r, len(got), err)
		}
	}
	want := []byterange.Range{{Start: 0, End: 3 * mib}, {Start: 5 * mib, End: 9 * mib}, {Start: 3 * mib, End: 5 * mib}, {Start: 9 * mib, End: 10 * mib}}
	for i, a := range u.requested() {
		if i >= len(want) || a.Range != want[i] {
			t.Errorf("request %d asked for %v; want %v", i, a.Range, want)
		}
	}
	if len(u.requested()) != len(want) {
		t.Errorf("%d requests, want %d", len(u.requested()), len(want))
	}
}

func TestALongReadIsOneRequestPerRunAndAllOfItMissed(t *testing.T) {
	t.Parallel()
	const size = 40*mib + 5
	u := newUpstream(size)
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
	defer c.Close()
	got, missed, err := readRange(t.Context(), c, 0, size)
	if err != nil || !bytes.Equal(got, u.body) || missed != size {
		t.Errorf("%d bytes, %d of them missed, %v; want %d", len(got), missed, err, size)
	}
	if u.asking() != size || len(u.requested()) != 3 {
		t.Errorf("%d requests for %d bytes; want 3 for %d", len(u.requested()), u.asking(), int64(size))
	}
	if _, missed, err := readRange(t.Context(), c, 0, size); missed != 0 || err != nil {
		t.Errorf("the second time %d bytes are missed, %v", missed, err)
	}
}

func TestMissedIsCountedOnceWhoeverReads(t *testing.T) {
	t.Parallel()
	const size = 12 * mib
	u := newUpstream(size)
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
	defer c.Close()
	var sum atomic.Int64
	var wg sync.WaitGroup
	for k := range 8 {
		r := c.NewReader(nil, byterange.Range{Start: int64(k) * mib, End: size})
		wg.Go(func() {
			defer r.Close()
			_, missed, err := drain(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			sum.Add(missed)
		})
	}
	wg.Wait()
	if sum.Load() != size {
		t.Errorf("%d bytes missed by all together, want %d", sum.Load(), int64(size))
	}
}

func TestReadersStreamWithAChunkThatIsNotWhole(t *testing.T) {
	t.Parallel()
	u := newUpstream(2 * mib)
	half := make(chan struct{})
	u.gate = func(_ int, at int64) {
		if at == mib/2 {
			<-half
		}
	}
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: 2 * mib}})
	defer c.Close()
	var rs []*Reader
	for range 3 {
		r := c.NewReader(nil, byterange.Range{End: 2 * mib})
		defer r.Close()
		rs = append(rs, r)
		for n := int64(0); n < mib/2; {
			p, err := r.Next(t.Context(), make([]byte, mib))
			if err != nil || p.Stored {
				t.Fatalf("%+v, %v", p, err)
			}
			n += p.Len
		}
	}
	close(half)
	for _, r := range rs {
		if got, _, err := drain(t.Context(), r); err != nil || !bytes.Equal(got, u.body[mib/2:]) {
			t.Errorf("the rest is %d bytes, %v", len(got), err)
		}
	}
	if len(u.requested()) != 1 {
		t.Errorf("%d requests, want 1", len(u.requested()))
	}
}

func TestAReaderWhoLeavesHarmsNobody(t *testing.T) {
	t.Parallel()
	u := newUpstream(6 * mib)
	left := make(chan struct{})
	u.gate = func(_ int, at int64) {
		if at == 2*mib {
			<-left
		}
	}
	f := newFiller(t, u, Config{})
	first := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
	leaver := first.NewReader(nil, byterange.Range{End: 6 * mib})
	if _, err := leaver.Next(t.Context(), make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	second := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
	defer second.Close()
	stayer := second.NewReader(nil, byterange.Range{End: 6 * mib})
	defer stayer.Close()
	leaver.Close()
	first.Close()
	close(left)
	if got, _, err := drain(t.Context(), stayer); err != nil || !bytes.Equal(got, u.body) {
		t.Errorf("who stayed got %d bytes, %v", len(got), err)
	}
	if len(u.requested()) != 1 {
		t.Errorf("%d requests, want 1", len(u.requested()))
	}
}

func TestARunEndsWhenNobodyWantsTheNextChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(16 * mib)
		u.gate = func(int, int64) { time.Sleep(time.Millisecond) }
		f := newFiller(t, u, Config{})
		c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
		r := c.NewReader(nil, byterange.Range{End: 16 * mib})
		if _, err := r.Next(t.Context(), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		r.Close()
		c.Close()
		time.Sleep(time.Minute)
		if read, open := u.taken(); read > 2*mib || open != 0 {
			t.Errorf("%d bytes were read for nobody, %d bodies open", read, open)
		}
	})
}

func TestProbesCostOneSmallFetch(t *testing.T) {
	t.Parallel()
	u := newUpstream(100 * mib)
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Probe: true})
	if c.Size() != 100*mib || u.asking() != 1 {
		t.Errorf("size %d for %d bytes", c.Size(), u.asking())
	}
	if got, _, err := readRange(t.Context(), c, 0, 2); err != nil || !bytes.Equal(got, u.body[:2]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, _, err := readRange(t.Context(), c, 100*mib-5, 100*mib); err != nil || !bytes.Equal(got, u.body[100*mib-5:]) {
		t.Errorf("the end is %d bytes, %v", len(got), err)
	}
	c.Close()
	if u.asking() != 1+2*mib {
		t.Errorf("asked for %d bytes, want two chunks and one byte", u.asking())
	}
}

func TestAProbeOfAnOriginWithoutRangesReadsNoBody(t *testing.T) {
	t.Parallel()
	u := newUpstream(100 * mib)
	u.noRanges = true
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Probe: true})
	defer c.Close()
	if c.Size() != 100*mib || u.got() != 0 {
		t.Errorf("size %d for %d bytes read", c.Size(), u.got())
	}
}

func TestAnswersThatBreakOffAreContinuedAtTheRightByte(t *testing.T) {
	t.Parallel()
	u := newUpstream(4*mib + 7)
	u.trouble = func(n int, _ *Ask) trouble {
		return []trouble{{cut: mib + 1000}, {cut: 77}, {mutter: false}}[min(n, 2)]
	}
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
	defer c.Close()
	if got, _, err := readRange(t.Context(), c, 0, c.Size()); err != nil || !bytes.Equal(got, u.body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for n, at := range []int64{0, mib + 1000, mib + 1077} {
		if a := u.requested()[n]; a.Range.Start != at || n > 0 && a.IfRange != "one" {
			t.Errorf("request %d: %+v, want it to start at %d", n, a, at)
		}
	}
	if u.got() != int64(len(u.body)) {
		t.Errorf("%d bytes read, want each once", u.got())
	}
}

func TestWithoutProgressAFetchIsOvertakenAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(3 * mib)
		u.trouble = func(n int, _ *Ask) trouble {
			return []trouble{{mute: true}, {stall: mib + 100}, {mutter: true}, {}}[min(n, 3)]
		}
		f := newFiller(t, u, Config{Silence: 30 * time.Second})
		began := time.Now()
		c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("a silent head was overtaken after %s", d)
		}
		got, _, err := readRange(t.Context(), c, 0, 3*mib)
		if d := time.Since(began); err != nil || !bytes.Equal(got, u.body) || d != 15*time.Second {
			t.Errorf("%d bytes, %v, after %s", len(got), err, d)
		}
		if a := u.requested()[3]; a.Range.Start != mib+100 || a.IfRange != "one" {
			t.Errorf("the overtaking request was %+v", a)
		}
		c.Close()
	})
}

func TestTotalSilenceIsATimeoutNotAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(3 * mib)
		u.memory = 0
		silent := false
		u.trouble = func(int, *Ask) trouble { return trouble{mute: silent, stall: 100} }
		f := newFiller(t, u, Config{})
		c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
		silent = true
		var te *TimeoutError
		for range 3 {
			began := time.Now()
			got, _, err := readRange(t.Context(), c, 50, 3*mib)
			if d := time.Since(began); len(got) > 50 || !errors.As(err, &te) || d > 10*time.Second {
				t.Errorf("%d bytes, %v after %s", len(got), err, d)
			}
		}
		c.Close()
		time.Sleep(time.Hour)
		began := time.Now()
		_, err := f.Open(t.Context(), "other", nil, Want{})
		if d := time.Since(began); !errors.As(err, &te) || d != 10*time.Second {
			t.Errorf("%v after %s", err, d)
		}
	})
}

func TestAnOriginWithoutRangesIsStreamedOnce(t *testing.T) {
	t.Parallel()
	u := newUpstream(20 * mib)
	u.noRanges = true
	f := newFiller(t, u, Config{})
	var wg sync.WaitGroup
	for k := range int64(16) {
		wg.Go(func() {
			c, err := content(t.Context(), f, u, Want{Range: byterange.Range{Start: k * mib, End: 20 * mib}})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if got, _, err := readRange(t.Context(), c, k*mib, 20*mib); err != nil || !bytes.Equal(got, u.body[k*mib:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if len(u.requested()) != 1 || !u.learned {
		t.Errorf("%d requests, learned %v", len(u.requested()), u.learned)
	}
}

func TestAnOriginThatStopsDoingRangesIsNotAskedForEverythingManyTimes(t *testing.T) {
	t.Parallel()
	const size = 16 * mib
	u := newUpstream(size)
	u.trouble = func(n int, _ *Ask) trouble { return trouble{ignore: n > 0} }
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Probe: true})
	defer c.Close()
	var wg sync.WaitGroup
	for k := range int64(16) {
		wg.Go(func() {
			if got, _, err := readRange(t.Context(), c, k*mib, k*mib+mib); err != nil || !bytes.Equal(got, u.body[k*mib:k*mib+mib]) {
				t.Errorf("chunk %d: %d bytes, %v", k, len(got), err)
			}
		})
	}
	wg.Wait()
	if !u.learned {
		t.Error("not learned")
	}
	for i := range int64(16) {
		if !u.made()[0].Has(i) {
			t.Errorf("chunk %d is missing", i)
		}
	}
}

func TestUnknownLengthIsToldByTheEnd(t *testing.T) {
	for _, size := range []int64{0, 100, mib, 2*mib + 3} {
		synctest.Test(t, func(t *testing.T) {
			u := newUpstream(size)
			u.strong = ""
			u.gate = func(int, int64) { time.Sleep(time.Millisecond) }
			u.trouble = func(int, *Ask) trouble { return trouble{unsized: true, ignore: true} }
			f := newFiller(t, u, Config{})
			c := opened(t, f, u, Want{Whole: true, Range: byterange.Range{End: -1}})
			defer c.Close()
			r := c.NewReader(nil, byterange.Range{End: -1})
			defer r.Close()
			if size > 0 {
				early, cancel := context.WithTimeout(t.Context(), time.Microsecond)
				defer cancel()
				if n := c.WaitSize(early, nil); n != -1 {
					t.Errorf("the size was known to be %d before the end", n)
				}
			}
			if n := c.WaitSize(t.Context(), time.After(time.Minute)); n != size {
				t.Errorf("size %d, want %d", n, size)
			}
			if got, _, err := drain(t.Context(), r); err != nil || !bytes.Equal(got, u.body) || u.made()[0].size != size {
				t.Errorf("%d bytes, %v; want %d, stored %d", len(got), err, size, u.made()[0].size)
			}
		})
	}
}

func TestAnAnswerWithoutLengthThatBreaksOffNeverLooksWhole(t *testing.T) {
	for name, tr := range map[string]trouble{"cut": {unsized: true, cut: mib + 5}, "stall": {unsized: true, stall: mib + 5}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(3 * mib)
				u.strong = ""
				u.trouble = func(int, *Ask) trouble { return tr }
				f := newFiller(t, u, Config{})
				c := opened(t, f, u, Want{Whole: true, Range: byterange.Range{End: -1}})
				r := c.NewReader(nil, byterange.Range{End: -1})
				got, _, err := drain(t.Context(), r)
				if err == nil || !bytes.Equal(got, u.body[:len(got)]) {
					t.Errorf("%d of %d bytes looked whole", len(got), len(u.body))
				}
				r.Close()
				c.Close()
				n := u.requests()
				time.Sleep(time.Hour)
				if m := u.requests(); m > n+1 {
					t.Errorf("%d requests were made for nobody", m-n)
				}
			})
		})
	}
}
