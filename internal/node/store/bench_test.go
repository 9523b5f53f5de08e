package store

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// many opens a store with n small objects, all of them hot or all cold.
func many(b *testing.B, n int, hot bool) (*Store, []string) {
	o := options(b.TempDir(), 1<<40)
	if !hot {
		o.MaxOpen = shards
	}
	s := open(b, o)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("windows-update\n/c/msdownload/update/software/secu/2026/11/windows10.0-kb%08d-x64.cab", i)
		k, err := s.Create(keys[i], Meta{Publisher: "windows-update", ContentType: "updates", URL: "https://host.example" + keys[i][15:], Status: 200,
			Size: 4000, ETag: `"0123456789abcdef"`, LastModified: "Thu, 01 Jan 2026 00:00:00 GMT", Header: []Field{{"Content-Type", "application/octet-stream"}}})
		if err != nil {
			b.Fatal(err)
		}
		k.Release()
	}
	for _, v := range s.volumes() {
		if err := v.flush(); err != nil {
			b.Fatal(err)
		}
	}
	return s, keys
}

func BenchmarkGetHot(b *testing.B) {
	s, keys := many(b, 6000, true)
	b.ReportAllocs()
	var n atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := int(n.Add(1)) * 1000; pb.Next(); i++ {
			o, err := s.Get(keys[i%len(keys)])
			if err != nil {
				b.Fatal(err)
			}
			o.Release()
		}
	})
}

func BenchmarkGetCold(b *testing.B) {
	s, keys := many(b, 100_000, false)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		o, err := s.Get(keys[i*7919%len(keys)])
		if err != nil {
			b.Fatal(err)
		}
		o.Release()
		i++
	}
}

func BenchmarkGetMissing(b *testing.B) {
	s, _ := many(b, 100_000, false)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := s.Get(fmt.Sprint("missing ", i)); err == nil {
			b.Fatal("found")
		}
		i++
	}
}

func BenchmarkHas(b *testing.B) {
	s := open(b, options(b.TempDir(), 1<<40))
	o := create(b, s, "k", 100*mib)
	defer o.Release()
	put(b, o, 100*mib, 57)
	b.ReportAllocs()
	for b.Loop() {
		if !o.Has(57) {
			b.Fatal("not there")
		}
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int64{4 << 10, mib} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, options(b.TempDir(), 2<<30))
			data := make([]byte, size)
			b.SetBytes(size)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				o, err := s.Create(fmt.Sprint("key ", i), Meta{URL: "https://host.example/k", Size: size})
				if err != nil {
					b.Fatal(err)
				}
				if err := o.Put(0, data); err != nil {
					b.Fatal(err)
				}
				o.Release()
				i++
			}
		})
	}
}

// BenchmarkOpen is the time to the first answer after a start.
func BenchmarkOpen(b *testing.B) {
	s, keys := many(b, 100_000, false)
	dir := (*s.slots.Load())[0].cfg.Path
	closeStore(b, s)
	for b.Loop() {
		s := open(b, options(dir, 1<<40))
		o, err := s.Get(keys[5])
		if err != nil {
			b.Fatal(err)
		}
		o.Release()
		b.StopTimer()
		closeStore(b, s)
		b.StartTimer()
	}
}

func TestGettingAndAskingDoNotAllocate(t *testing.T) {
	o := options(t.TempDir(), 100*mib)
	o.batchDelay = time.Hour
	s := open(t, o)
	fill(t, s, "k", mib)
	if n := testing.AllocsPerRun(100, func() {
		o, err := s.Get("k")
		if err != nil || !o.Has(0) || !o.Complete() {
			t.Fatal(err)
		}
		o.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
