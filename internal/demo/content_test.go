package demo

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestContentIsTheSameFromEverywhere(t *testing.T) {
	t.Parallel()
	const size = 4099
	c := NewContent("a", size)
	whole := make([]byte, size)
	c.Fill(whole, 0)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, size).Draw(t, "off")
		n := rapid.IntRange(0, size-off).Draw(t, "n")
		part := make([]byte, n)
		c.Fill(part, int64(off))
		if !bytes.Equal(part, whole[off:off+n]) {
			t.Fatalf("Fill(%d bytes, %d) differs from the same part of the whole", n, off)
		}
		if wrong := c.Wrong(part, int64(off)); wrong != 0 {
			t.Fatalf("Wrong(%d bytes, %d) = %d, want 0", n, off, wrong)
		}
	})
}

func TestWrongCountsEveryWrongByte(t *testing.T) {
	t.Parallel()
	const size = 300
	c := NewContent("a", size)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, 64).Draw(t, "off")
		p := make([]byte, size-off)
		c.Fill(p, int64(off))
		spoilt := rapid.SliceOfDistinct(rapid.IntRange(0, len(p)-1), rapid.ID[int]).Draw(t, "spoilt")
		for _, i := range spoilt {
			p[i] ^= 0x40
		}
		if got := c.Wrong(p, int64(off)); got != int64(len(spoilt)) {
			t.Fatalf("Wrong = %d, want %d", got, len(spoilt))
		}
	})
}

func TestContentReader(t *testing.T) {
	t.Parallel()
	c := NewContent("a", 1001)
	want := make([]byte, 1001)
	c.Fill(want, 0)
	if err := iotest.TestReader(c.Reader(), want); err != nil {
		t.Error(err)
	}
	if n, err := c.ReadAt(make([]byte, 10), 995); n != 6 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt across the end = %d, %v; want 6, EOF", n, err)
	}
	if n, err := c.ReadAt(make([]byte, 10), 1001); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt at the end = %d, %v; want 0, EOF", n, err)
	}
}

func TestNamesHaveDifferentBytes(t *testing.T) {
	t.Parallel()
	p := make([]byte, 4096)
	NewContent("a", 4096).Fill(p, 0)
	// One in 256 bytes is the same by chance.
	if wrong := NewContent("b", 4096).Wrong(p, 0); wrong < 3900 {
		t.Errorf("only %d of 4096 bytes differ", wrong)
	}
	if wrong := NewContent("a", 4096).Wrong(p[:2048], 2048); wrong < 1900 {
		t.Errorf("only %d of 2048 bytes differ from those 2048 further on", wrong)
	}
}

func BenchmarkFill(b *testing.B) {
	c := NewContent("a", 1<<40)
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		c.Fill(p, 12345)
	}
}

func BenchmarkWrong(b *testing.B) {
	c := NewContent("a", 1<<40)
	p := make([]byte, 1<<20)
	c.Fill(p, 0)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		c.Wrong(p, 0)
	}
}
