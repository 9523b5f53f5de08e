package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/byterange"
)

func TestAChangeUpstreamMakesOneNewGenerationAndNoMixture(t *testing.T) {
	t.Parallel()
	const size = 40 * mib
	u := newUpstream(size)
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Probe: true})
	if got, _, err := readRange(t.Context(), c, 0, mib); err != nil || !bytes.Equal(got, u.body[:mib]) {
		t.Fatal(len(got), err)
	}
	u.change("two", size)
	var wg sync.WaitGroup
	for k := int64(1); k < 40; k++ {
		wg.Go(func() {
			if got, _, err := readRange(t.Context(), c, k*mib, k*mib+mib); !errors.Is(err, ErrChanged) || len(got) > 0 {
				t.Errorf("who still reads the old one got %d bytes, %v", len(got), err)
				return
			}
			next, err := content(t.Context(), f, u, Want{Range: byterange.Range{Start: k * mib, End: k*mib + mib}})
			if err != nil {
				t.Error(err)
				return
			}
			defer next.Close()
			if got, _, err := readRange(t.Context(), next, k*mib, k*mib+mib); err != nil || !bytes.Equal(got, u.body[k*mib:k*mib+mib]) {
				t.Errorf("the new one is %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	// What there is of the old one is still good for who began with it.
	if got, _, err := readRange(t.Context(), c, 0, mib); err != nil || !bytes.Equal(got, bytesOf("one", size)[:mib]) {
		t.Errorf("%d bytes of the old one, %v", len(got), err)
	}
	c.Close()
	if n := len(u.made()); n != 2 || !u.made()[0].doomed {
		t.Errorf("%d generations were made; want 2 and the first doomed", n)
	}
}

func TestAnotherLengthIsAnotherGeneration(t *testing.T) {
	for name, change := range map[string]func(u *upstream){
		"longer":  func(u *upstream) { u.body = bytesOf("longer", 9*mib) },
		"shorter": func(u *upstream) { u.body = bytesOf("shorter", mib) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(4 * mib)
			f := newFiller(t, u, Config{})
			c := opened(t, f, u, Want{Range: byterange.Range{End: 1}})
			defer c.Close()
			change(u) // the validator stays
			if got, _, err := readRange(t.Context(), c, 2*mib, 3*mib); !errors.Is(err, ErrChanged) || len(got) > 0 {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestWithoutAValidatorPartsAreNotCombined(t *testing.T) {
	t.Parallel()
	u := newUpstream(3 * mib)
	u.strong = ""
	u.trouble = func(n int, a *Ask) trouble { return trouble{cut: map[int]int64{1: mib + 9}[n]} }
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: 2 * mib}})
	// The second request may already have been cut, and the third made.
	if asks := u.requested(); len(asks) < 2 || asks[1].Ranged {
		t.Errorf("%+v", asks)
	}
	got, _, err := readRange(t.Context(), c, 0, 3*mib)
	if !errors.Is(err, ErrChanged) || !bytes.Equal(got, u.body[:len(got)]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.Close()
	next := opened(t, f, u, Want{Whole: true})
	defer next.Close()
	if got, _, err := readRange(t.Context(), next, 0, 3*mib); err != nil || !bytes.Equal(got, u.body) || len(u.made()) != 2 {
		t.Errorf("the next generation is %d bytes, %v", len(got), err)
	}
}

func TestFirstAnswersThatAreNotWhatWasAsked(t *testing.T) {
	for name, c := range map[string]struct {
		size   int64
		strong string
		strict bool
		want   Want
		first  trouble
		asks   []byterange.Range // zero: without Range
		err    error
	}{
		"empty":                 {size: 0, strong: "one", want: Want{Range: byterange.Range{End: 5}}, asks: []byterange.Range{{End: mib}, {}}},
		"empty probe":           {size: 0, strong: "one", want: Want{Probe: true}, asks: []byterange.Range{{End: 1}, {}}},
		"strict origin":         {size: mib + 5, strong: "one", strict: true, want: Want{Range: byterange.Range{Start: mib, End: mib + 1}}, asks: []byterange.Range{{Start: mib, End: 2 * mib}, {Start: mib, End: mib + 5}}},
		"behind the end":        {size: 10, strong: "one", want: Want{Range: byterange.Range{Start: 10, End: 11}}, asks: []byterange.Range{{End: mib}}},
		"far behind the end":    {size: 10, strong: "one", want: Want{Range: byterange.Range{Start: 3 * mib, End: -1}}, asks: []byterange.Range{{Start: 3 * mib, End: 19 * mib}}, err: &UnsatisfiedError{10}},
		"at the end of numbers": {size: 10, strong: "one", want: Want{Range: byterange.Range{Start: 1<<63 - 2, End: 1<<63 - 1}}, asks: []byterange.Range{{End: 1}}},
		"to the end of numbers": {size: 10, strong: "one", want: Want{Range: byterange.Range{Start: 1, End: 1<<63 - 1}}, asks: []byterange.Range{{End: 16 * mib}}},
		"wrong range":           {size: 3 * mib, strong: "one", want: Want{Range: byterange.Range{End: mib}}, first: trouble{shift: 7}, asks: []byterange.Range{{End: mib}, {}}},
		"no validator":          {size: 3 * mib, want: Want{Range: byterange.Range{End: mib}}, asks: []byterange.Range{{End: mib}, {}}},
		"all, no validator":     {size: 30, want: Want{Range: byterange.Range{End: 7}}, asks: []byterange.Range{{End: mib}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(c.size)
			u.strong, u.strict = c.strong, c.strict
			u.trouble = func(n int, _ *Ask) trouble {
				if n == 0 {
					return c.first
				}
				return trouble{}
			}
			f := newFiller(t, u, Config{})
			o, err := f.Open(t.Context(), "k", nil, c.want)
			if fmt.Sprint(err) != fmt.Sprint(c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if o.Content != nil {
				defer o.Content.Close()
				if got, _, err := readRange(t.Context(), o.Content, 0, c.size); err != nil || !bytes.Equal(got, u.body) {
					t.Errorf("%d of %d bytes, %v", len(got), c.size, err)
				}
			}
			for i, want := range c.asks {
				if i >= len(u.requested()) || u.requested()[i].Range != want || u.requested()[i].Ranged != (want != byterange.Range{}) {
					t.Errorf("requests %+v, want %+v", u.requested(), c.asks)
				}
			}
		})
	}
}

func TestAWrongRangeLaterIsAnError(t *testing.T) {
	t.Parallel()
	u := newUpstream(3 * mib)
	u.trouble = func(n int, _ *Ask) trouble { return trouble{shift: map[bool]int64{true: 3}[n > 0]} }
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Range: byterange.Range{End: mib}})
	defer c.Close()
	if got, _, err := readRange(t.Context(), c, 0, 3*mib); err == nil || !bytes.Equal(got, u.body[:mib]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestErrorsAreRememberedForSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		u := newUpstream(3 * mib)
		u.trouble = func(n int, _ *Ask) trouble {
			if n == 1 || n == 3 {
				return trouble{}
			}
			return trouble{err: refused}
		}
		f := newFiller(t, u, Config{})
		for range 10 {
			if _, err := f.Open(t.Context(), "k", nil, Want{}); !errors.Is(err, refused) {
				t.Fatal(err)
			}
		}
		if len(u.requested()) != 1 {
			t.Errorf("%d requests within two seconds, want 1", len(u.requested()))
		}
		time.Sleep(2 * time.Second)
		c := opened(t, f, u, Want{Range: byterange.Range{End: mib}})
		// Who reads the stored object later shares the memory too.
		for range 10 {
			if _, _, err := readRange(t.Context(), c, mib, 2*mib); !errors.Is(err, refused) {
				t.Errorf("%v", err)
			}
			c.Close()
			synctest.Wait()
			c = opened(t, f, u, Want{})
		}
		if len(u.requested()) != 3 {
			t.Errorf("%d requests, want 3", len(u.requested()))
		}
		time.Sleep(2 * time.Second)
		if got, _, err := readRange(t.Context(), c, mib, 2*mib); err != nil || !bytes.Equal(got, u.body[mib:2*mib]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		c.Close()
	})
}

func TestForgetAllAsksAgain(t *testing.T) {
	t.Parallel()
	u := newUpstream(mib)
	u.trouble = func(n int, _ *Ask) trouble { return trouble{status: map[int]int{0: 404}[n]} }
	f := newFiller(t, u, Config{})
	var se *StatusError
	if _, err := f.Open(t.Context(), "k", nil, Want{}); !errors.As(err, &se) || se.Status != 404 {
		t.Fatal(err)
	}
	f.ForgetAll()
	for want := range 2 {
		o, err := f.Open(t.Context(), "k", nil, Want{})
		if err != nil || len(u.made()) != want+1 {
			t.Fatalf("%v, %d generations, want %d", err, len(u.made()), want+1)
		}
		defer o.Content.Close()
		f.ForgetAll() // after a purge, what is still being read is for nobody else
	}
}

// What is dropped while somebody still reads it (a 304 that takes it from all, an
// eviction) is nobody else's, neither to read nor to attach to.
func TestNobodyJoinsWhatIsDropped(t *testing.T) {
	t.Parallel()
	u := newUpstream(2 * mib)
	f := newFiller(t, u, Config{})
	old := opened(t, f, u, Want{Probe: true})
	defer old.Close()
	obj := u.made()[0]
	obj.Doom()
	next, err := f.Open(t.Context(), "k", nil, Want{Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Content.Close()
	if next.Content == old || len(u.made()) != 2 {
		t.Errorf("joined what was dropped: %d generations", len(u.made()))
	}
	if got, _, err := readRange(t.Context(), old, 0, 2*mib); err != nil || !bytes.Equal(got, u.body) {
		t.Errorf("who read it already: %d bytes, %v", len(got), err)
	}
	late := f.Attach("k", nil, obj, 2*mib, obj.of) // was found before it was dropped
	defer late.Close()
	again, err := f.Open(t.Context(), "k", nil, Want{Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Content.Close()
	if again.Content != next.Content {
		t.Error("an older generation took the newer one's place")
	}
}

// An object that was found, and dropped before it was attached to, is read by
// those who found it and joined by nobody who asks the origin.
func TestADroppedObjectThatIsAttachedTo(t *testing.T) {
	t.Parallel()
	u := newUpstream(2 * mib)
	f := newFiller(t, u, Config{})
	c := opened(t, f, u, Want{Probe: true})
	obj := u.current()
	defer obj.Release()
	c.Close()
	obj.Doom()
	late := f.Attach("k", nil, obj, 2*mib, obj.of)
	defer late.Close()
	f.mu.Lock()
	live := f.live["k"]
	f.mu.Unlock()
	if live == late {
		t.Error("an object that was dropped stands for its key")
	}
	if got, _, err := readRange(t.Context(), late, mib, 2*mib); err != nil || !bytes.Equal(got, u.body[mib:]) {
		t.Errorf("who found it: %d bytes, %v", len(got), err)
	}
}

// Who waits for answers that are old when they come asks alone in the end.
func TestWaitingHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(10)
		u.trouble = func(int, *Ask) trouble { return trouble{delay: time.Second} }
		f := newFiller(t, u, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var changes sync.WaitGroup
		changes.Go(func() { // somebody changes it all the time
			for ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond)
				f.Forget("k")
			}
		})
		begun := time.Now()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				o, err := f.Open(t.Context(), "k", i, Want{Whole: true})
				switch {
				case errors.Is(err, ErrPass):
				case err != nil || o.Pass == nil:
					t.Errorf("%d: %+v, %v", i, o, err)
				default:
					o.Pass.Body.Close()
				}
			})
		}
		wg.Wait()
		cancel()
		changes.Wait()
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// The answer that tells of a change is judged by the request it is of, whoever
// joined meanwhile, and its body is read to its end.
func TestASuccessorIsOfItsOwnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(40 * mib)
		f := newFiller(t, u, Config{})
		o, err := f.Open(t.Context(), "k", "first", Want{Probe: true})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Content.Close()
		u.change("", 3*mib) // nothing would bind parts of it
		u.trouble = func(int, *Ask) trouble { return trouble{delay: time.Second} }
		alice := f.Attach("k", "alice", u.made()[0], 40*mib, "one")
		defer alice.Close()
		r := alice.NewReader("alice", byterange.Range{Start: 20 * mib, End: 21 * mib})
		defer r.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := drain(t.Context(), r); !errors.Is(err, ErrChanged) {
				t.Errorf("who read what changed: %v", err)
			}
		})
		synctest.Wait()
		f.Attach("k", "bob", u.made()[0], 40*mib, "one").Close()
		wg.Wait()
		next := opened(t, f, u, Want{Whole: true}) // it is there, or on its way
		defer next.Close()
		if got, _, err := readRange(t.Context(), next, 0, 3*mib); err != nil || !bytes.Equal(got, u.body) {
			t.Errorf("the new one: %d bytes, %v", len(got), err)
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if len(u.asks) != 2 || len(u.begun) != 2 || u.begun[1] != "alice" || u.asks[1].Resource != "alice" {
			t.Errorf("%d requests; made of the answers to %q", len(u.asks), u.begun)
		}
	})
}

func TestAFailureIsSharedByAllWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(3 * mib)
		u.memory = 0
		u.trouble = func(n int, _ *Ask) trouble {
			if n > 0 {
				return trouble{delay: time.Second, status: 403}
			}
			return trouble{}
		}
		f := newFiller(t, u, Config{})
		c := opened(t, f, u, Want{Probe: true})
		defer c.Close()
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				var se *StatusError
				if _, _, err := readRange(t.Context(), c, 2*mib, 3*mib); !errors.As(err, &se) {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if n := len(u.requested()); n > 3 {
			t.Errorf("%d requests for one chunk that cannot be had", n)
		}
	})
}

func TestAFullDiskHarmsNoReader(t *testing.T) {
	t.Parallel()
	for name, noRanges := range map[string]bool{"ranges": false, "no ranges": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(12*mib + 3)
			u.full, u.noRanges = true, noRanges
			f := newFiller(t, u, Config{Buffers: 6})
			c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
			defer c.Close()
			var rs []*Reader
			for range 8 {
				rs = append(rs, c.NewReader(nil, byterange.Range{End: c.Size()}))
			}
			var wg sync.WaitGroup
			for _, r := range rs {
				wg.Go(func() {
					defer r.Close()
					if got, _, err := drain(t.Context(), r); err != nil || !bytes.Equal(got, u.body) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestSlowReadersOnAFullDiskDoNotTakeTheMemoryOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(24 * mib)
		u.full = true
		f := newFiller(t, u, Config{Buffers: 4})
		var stuck []*Reader
		for k := range 8 {
			o, err := f.Open(t.Context(), fmt.Sprint(k), nil, Want{Range: byterange.Range{End: -1}})
			if err != nil {
				t.Fatal(err)
			}
			defer o.Content.Close()
			r := o.Content.NewReader(nil, byterange.Range{End: 24 * mib})
			defer r.Close()
			if _, err := r.Next(t.Context(), make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			stuck = append(stuck, r)
		}
		synctest.Wait()
		if read, _ := u.taken(); read > 32*mib {
			t.Errorf("%d bytes were read for readers who do not read", read)
		}
		o, err := f.Open(t.Context(), "last", nil, Want{Range: byterange.Range{End: -1}})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Content.Close()
		began := time.Now()
		if got, _, err := readRange(t.Context(), o.Content, 0, 24*mib); err != nil || !bytes.Equal(got, u.body) || time.Since(began) > time.Second {
			t.Errorf("%d bytes, %v, after %s", len(got), err, time.Since(began))
		}
		for _, r := range stuck { // they wake up
			if got, _, err := drain(t.Context(), r); err != nil || !bytes.Equal(got, u.body[10:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	})
}

func TestOpenIsOneRequestHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(3 * mib)
		u.trouble = func(int, *Ask) trouble { return trouble{delay: 3 * time.Second} }
		f := newFiller(t, u, Config{})
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for k := range 20 {
			ctx := t.Context()
			if k%2 == 0 {
				ctx = hurried // the leader is among those who leave
			}
			wg.Go(func() {
				o, err := f.Open(ctx, "k", nil, Want{Range: byterange.Range{End: mib}})
				if ctx == hurried {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("who left got %v", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				defer o.Content.Close()
				if got, _, err := readRange(ctx, o.Content, 0, mib); err != nil || !bytes.Equal(got, u.body[:mib]) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if len(u.requested()) != 1 {
			t.Errorf("%d requests, want 1", len(u.requested()))
		}
	})
}

func TestWhenAllWhoAskedLeftTheAnswerIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, pass := range []bool{false, true} {
			u := newUpstream(30 * mib)
			u.trouble = func(int, *Ask) trouble { return trouble{delay: 3 * time.Second} }
			if pass {
				u.begin = func(*Reply) (*disk, error) { return nil, ErrPass }
			}
			f := newFiller(t, u, Config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := f.Open(ctx, "k", nil, Want{Range: byterange.Range{End: -1}})
			cancel()
			time.Sleep(time.Minute)
			if read, open := u.taken(); !errors.Is(err, context.DeadlineExceeded) || open != 0 || read > mib {
				t.Errorf("%v; %d bodies open, %d bytes read", err, open, read)
			}
		}
	})
}

func TestAnAnswerNotToBeKeptIsForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(1000)
		u.begin = func(*Reply) (*disk, error) { return nil, ErrPass }
		u.trouble = func(int, *Ask) trouble { return trouble{delay: time.Second} }
		f := newFiller(t, u, Config{})
		var wg sync.WaitGroup
		var mu sync.Mutex
		passed := 0
		for range 5 {
			wg.Go(func() {
				o, err := f.Open(t.Context(), "k", nil, Want{Whole: true})
				if errors.Is(err, ErrPass) {
					return
				}
				defer o.Pass.Body.Close()
				got, err := io.ReadAll(o.Pass.Body)
				if err != nil || !bytes.Equal(got, u.body) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				mu.Lock()
				defer mu.Unlock()
				passed++
			})
		}
		wg.Wait()
		if passed != 1 || len(u.requested()) != 1 {
			t.Errorf("%d got the answer of %d requests", passed, len(u.requested()))
		}
		if _, err := f.Open(t.Context(), "k", nil, Want{Whole: true}); !errors.Is(err, ErrPass) || len(u.requested()) != 1 {
			t.Errorf("who comes next is kept waiting: %v, %d requests", err, len(u.requested()))
		}
		time.Sleep(time.Minute)
		o, err := f.Open(t.Context(), "k", nil, Want{Whole: true})
		if err != nil || o.Pass == nil {
			t.Fatalf("after a minute: %+v, %v", o, err)
		}
		o.Pass.Body.Close()
	})
}

// Who looked at the store before the object was there, and asks when it is
// complete and nobody reads it any more, must not fetch it again.
func TestWhoComesTooLateForAHeadFetchesNothing(t *testing.T) {
	t.Parallel()
	u := newUpstream(1000)
	u.stored = true
	f := newFiller(t, u, Config{})
	o, err := f.Open(t.Context(), "k", nil, Want{})
	if err != nil || !o.Renewed || o.Content != nil || len(u.requested()) != 0 {
		t.Errorf("%+v, %v after %d requests; want word of the stored object", o, err, len(u.requested()))
	}
}

func TestARevalidationIsSharedOnlyByThoseWhoHaveTheObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(1000)
		u.trouble = func(int, *Ask) trouble { return trouble{delay: time.Second} }
		f := newFiller(t, u, Config{})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if o, err := f.Open(t.Context(), "k", nil, Want{Revalidate: true}); !o.Renewed || err != nil {
					t.Errorf("%+v, %v", o, err)
				}
			})
		}
		synctest.Wait()
		// The object was purged in between: a 304 is no use to who comes now.
		o, err := f.Open(t.Context(), "k", nil, Want{})
		if err != nil || o.Content == nil {
			t.Fatalf("%+v, %v", o, err)
		}
		o.Content.Close()
		wg.Wait()
		if u.renewed != 1 || len(u.requested()) != 2 {
			t.Errorf("renewed %d times by %d requests", u.renewed, len(u.requested()))
		}
		u.change("two", 2000)
		o, err = f.Open(t.Context(), "k", nil, Want{Revalidate: true})
		if err != nil || o.Content == nil || o.Content.Size() != 2000 {
			t.Fatalf("%+v, %v", o, err)
		}
		o.Content.Close()
	})
}

func TestCloseEndsEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(30 * mib)
		u.trouble = func(_ int, a *Ask) trouble { return trouble{mute: a.Resource != nil, stall: mib / 2} }
		f := newFiller(t, u, Config{Buffers: 2, Stall: time.Hour, Silence: 24 * time.Hour})
		c := opened(t, f, u, Want{Range: byterange.Range{End: -1}})
		var wg sync.WaitGroup
		for k := range int64(10) {
			wg.Go(func() {
				if _, _, err := readRange(t.Context(), c, k*mib, 30*mib); !errors.Is(err, context.Canceled) {
					t.Errorf("a reader got %v", err)
				}
			})
			wg.Go(func() {
				if _, err := f.Open(t.Context(), fmt.Sprint(k), "mute", Want{}); !errors.Is(err, context.Canceled) {
					t.Errorf("an asker got %v", err)
				}
			})
		}
		time.Sleep(time.Second)
		f.Close()
		wg.Wait()
		c.Close()
		if _, err := f.Open(t.Context(), "late", nil, Want{}); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestAPanicInTheSourceIsAnError(t *testing.T) {
	t.Parallel()
	u := newUpstream(3 * mib)
	u.trouble = func(n int, _ *Ask) trouble { return trouble{panicked: n == 0 || n == 2} }
	u.memory = 0
	f := newFiller(t, u, Config{})
	if _, err := f.Open(t.Context(), "k", nil, Want{}); err == nil {
		t.Error("no error")
	}
	c := opened(t, f, u, Want{Range: byterange.Range{End: mib}})
	defer c.Close()
	if _, _, err := readRange(t.Context(), c, mib, 2*mib); err == nil {
		t.Error("no error")
	}
	if got, _, err := readRange(t.Context(), c, 0, 3*mib); err != nil || !bytes.Equal(got, u.body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestBuffersGoToWhoWaits(t *testing.T) {
	t.Parallel()
	b := &buffers{left: 2}
	one, _ := b.get(t.Context())
	two, _ := b.get(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := b.get(ctx)
		gone <- err
	}()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b.put(one)
	b.put(two)
	if again, err := b.get(t.Context()); err != nil || &again[0] != &two[0] || len(b.free) != 1 || len(b.waiting) != 0 {
		t.Errorf("%v; %d free, %d waiting", err, len(b.free), len(b.waiting))
	}
	if !slices.Equal(b.kept, nil) {
		t.Error("something is kept")
	}
}
