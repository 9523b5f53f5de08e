package byterange

import (
	"math"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt64
	tests := []struct {
		name, header string
		want         []Spec // nil: to be ignored
	}{
		{"closed", "bytes=0-499", []Spec{{0, 499}}},
		{"the probe of Delivery Optimization", "bytes=0-1", []Spec{{0, 1}}},
		{"one byte", "bytes=7-7", []Spec{{7, 7}}},
		{"open", "bytes=9500-", []Spec{{9500, -1}}},
		{"suffix", "bytes=-500", []Spec{{-1, 500}}},
		{"suffix of nothing is well formed", "bytes=-0", []Spec{{-1, 0}}},
		{"several", "bytes=0-0,-1", []Spec{{0, 0}, {-1, 1}}},
		{"several with whitespace", "bytes=500-600 ,\t601-999", []Spec{{500, 600}, {601, 999}}},
		{"empty elements", "bytes=,, 1-2 ,,3-4, ,", []Spec{{1, 2}, {3, 4}}},
		{"whitespace after the equals sign", "bytes= 0-1", []Spec{{0, 1}}},
		{"whitespace around the field", "  bytes=0-1\t", []Spec{{0, 1}}},
		{"unit in any case", "ByTeS=0-1", []Spec{{0, 1}}},
		{"leading zeros", "bytes=000-0009", []Spec{{0, 9}}},
		{"largest", "bytes=0-9223372036854775807", []Spec{{0, most}}},
		{"beyond 63 bits", "bytes=0-9223372036854775808", []Spec{{0, most}}},
		{"beyond 64 bits", "bytes=18446744073709551616-99999999999999999999999", []Spec{{most, most}}},
		{"suffix beyond 63 bits", "bytes=-99999999999999999999", []Spec{{-1, most}}},
		{"leading zeros beyond 63 bits", "bytes=00099999999999999999999-99999999999999999999", []Spec{{most, most}}},

		{"empty", "", nil},
		{"unit only", "bytes", nil},
		{"no range", "bytes=", nil},
		{"only empty elements", "bytes=, ,", nil},
		{"other unit", "items=0-1", nil},
		{"unit that only looks like it", "byte\x13=0-1", nil},
		{"whitespace before the equals sign", "bytes =0-1", nil},
		{"backwards", "bytes=5-4", nil},
		{"backwards beyond 63 bits", "bytes=99999999999999999999-99999999999999999998", nil},
		{"backwards and shorter beyond 63 bits", "bytes=99999999999999999999-09999999999999999999", nil},
		{"one good, one backwards", "bytes=0-1,5-4", nil},
		{"no dash", "bytes=5", nil},
		{"only a dash", "bytes=-", nil},
		{"two dashes", "bytes=1-2-3", nil},
		{"negative suffix", "bytes=--5", nil},
		{"plus sign", "bytes=+1-2", nil},
		{"whitespace inside", "bytes=1 -2", nil},
		{"whitespace inside the number", "bytes=1-2 3", nil},
		{"hexadecimal", "bytes=0x1-2", nil},
		{"letters after overflow", "bytes=99999999999999999999x-", nil},
		{"digits of another script", "bytes=٠-١", nil},
		{"semicolons", "bytes=0-1;2-3", nil},
		{"no-break space", "bytes=\u00a00-1", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := Parse(tt.header)
			if ok != (tt.want != nil) || !slices.Equal(got, tt.want) {
				t.Errorf("Parse(%q) = %v, %v; want %v", tt.header, got, ok, tt.want)
			}
		})
	}
}

func TestSpecResolve(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt64
	tests := []struct {
		spec Spec
		size int64
		want Range // zero: not satisfiable
	}{
		{Spec{0, 499}, 10000, Range{0, 500}},
		{Spec{9500, -1}, 10000, Range{9500, 10000}},
		{Spec{-1, 500}, 10000, Range{9500, 10000}},
		{Spec{-1, 20000}, 10000, Range{0, 10000}},
		{Spec{-1, most}, 10000, Range{0, 10000}},
		{Spec{-1, most}, most, Range{0, most}},
		{Spec{0, most}, 10000, Range{0, 10000}},
		{Spec{0, most}, most, Range{0, most}},
		{Spec{most, most}, most, Range{}},
		{Spec{9999, 10000}, 10000, Range{9999, 10000}},
		{Spec{10000, 10001}, 10000, Range{}},
		{Spec{10000, -1}, 10000, Range{}},
		{Spec{-1, 0}, 10000, Range{}},
		{Spec{0, 0}, 0, Range{}},
		{Spec{0, -1}, 0, Range{}},
		{Spec{-1, 5}, 0, Range{}},
		{Spec{0, 5}, -1, Range{}},
		{Spec{-1, 5}, -1, Range{}},
	}
	for _, tt := range tests {
		got, ok := tt.spec.Resolve(tt.size)
		if got != tt.want || ok != (tt.want != Range{}) {
			t.Errorf("%v.Resolve(%d) = %v, %v; want %v", tt.spec, tt.size, got, ok, tt.want)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		specs []Spec
		size  int64
		want  []Range
	}{
		{"one", []Spec{{0, 9}}, 1000, []Range{{0, 10}}},
		{"order is kept", []Spec{{900, 999}, {0, 9}}, 1000, []Range{{900, 1000}, {0, 10}}},
		{"unsatisfiable ones are left out", []Spec{{5000, -1}, {0, 9}, {-1, 0}}, 1000, []Range{{0, 10}}},
		{"none", []Spec{{5000, -1}}, 1000, nil},
		{"no specs", nil, 1000, nil},
		{"touching", []Spec{{0, 9}, {10, 19}}, 1000, []Range{{0, 20}}},
		{"overlapping backwards", []Spec{{5, 30}, {0, 9}}, 1000, []Range{{0, 31}}},
		{"contained", []Spec{{0, 999}, {5, 9}}, 1000, []Range{{0, 1000}}},
		{"gap of 79", []Spec{{0, 0}, {80, 80}}, 1000, []Range{{0, 81}}},
		{"gap of 80", []Spec{{0, 0}, {81, 81}}, 1000, []Range{{0, 1}, {81, 82}}},
		{"joined by a third", []Spec{{900, -1}, {0, 99}, {300, 399}, {100, 299}}, 1000, []Range{{900, 1000}, {0, 400}}},
		{"the joined one stands first", []Spec{{0, 9}, {500, 599}, {10, 19}}, 1000, []Range{{0, 20}, {500, 600}}},
		{"at the end of the numbers", []Spec{{0, 0}, {math.MaxInt64 - 1, math.MaxInt64}}, math.MaxInt64,
			[]Range{{0, 1}, {math.MaxInt64 - 1, math.MaxInt64}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Resolve(tt.specs, tt.size); !slices.Equal(got, tt.want) {
				t.Errorf("Resolve(%v, %d) = %v, want %v", tt.specs, tt.size, got, tt.want)
			}
		})
	}
}

// TestAmplification: whatever is asked, however often, the sum of the answer
// is at most the whole.
func TestAmplification(t *testing.T) {
	t.Parallel()
	header := "bytes=0-" + strings.Repeat(",0-", 20000)
	specs, ok := Parse(header)
	if !ok || len(specs) != 20001 {
		t.Fatalf("Parse: %d specs, %v; want 20001", len(specs), ok)
	}
	if got := Resolve(specs, 1<<40); !slices.Equal(got, []Range{{0, 1 << 40}}) {
		t.Errorf("Resolve = %v, want the whole once", got)
	}
}

func TestContentRangeText(t *testing.T) {
	t.Parallel()
	if got, want := (Range{0, 500}).ContentRange(1234), "bytes 0-499/1234"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (Range{42, 1234}).ContentRange(-1), "bytes 42-1233/*"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Unsatisfied(47022), "bytes */47022"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Range{3, 10}).Len(); got != 7 {
		t.Errorf("Len = %d, want 7", got)
	}
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		v     string
		want  ContentRange
		wrong string // part of the error
	}{
		{"bytes 0-499/1234", ContentRange{Range{0, 500}, 1234, true}, ""},
		{"Bytes 42-1233/1234", ContentRange{Range{42, 1234}, 1234, true}, ""},
		{"bytes 42-1233/*", ContentRange{Range{42, 1234}, -1, true}, ""},
		{"bytes */1234", ContentRange{Size: 1234}, ""},
		{"bytes */0", ContentRange{Size: 0}, ""},
		{" bytes 0-0/1 ", ContentRange{Range{0, 1}, 1, true}, ""},

		{"", ContentRange{}, `start with "bytes "`},
		{"bytes=0-1/2", ContentRange{}, `start with "bytes "`},
		{"items 0-1/2", ContentRange{}, `start with "bytes "`},
		{"bytes 0-1", ContentRange{}, `no "/"`},
		{"bytes 0-1/", ContentRange{}, "the size must be"},
		{"bytes 0-1/x", ContentRange{}, "the size must be"},
		{"bytes 0-1/-1", ContentRange{}, "the size must be"},
		{"bytes 0-1/9223372036854775808", ContentRange{}, "the size must be"},
		{"bytes */*", ContentRange{}, "must tell the size"},
		{"bytes 1/2", ContentRange{}, "two numbers"},
		{"bytes -1/2", ContentRange{}, "two numbers"},
		{"bytes 1-/2", ContentRange{}, "two numbers"},
		{"bytes  0-1/2", ContentRange{}, "two numbers"},
		{"bytes 0-9223372036854775807/*", ContentRange{}, "two numbers"},
		{"bytes 5-4/10", ContentRange{}, "before the first"},
		{"bytes 0-10/10", ContentRange{}, "beyond the size"},
		{"bytes 0-0/0", ContentRange{}, "beyond the size"},
	}
	for _, tt := range tests {
		got, err := ParseContentRange(tt.v)
		switch {
		case tt.wrong == "" && (err != nil || got != tt.want):
			t.Errorf("ParseContentRange(%q) = %v, %v; want %v", tt.v, got, err, tt.want)
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
			t.Errorf("ParseContentRange(%q) = %v, %v; want an error with %q", tt.v, got, err, tt.wrong)
		}
	}
	if _, err := ParseContentRange(strings.Repeat("x", 1<<20)); err == nil || len(err.Error()) > 300 {
		t.Errorf("a long field makes a long error: %d bytes", len(err.Error()))
	}
}

// TestContentRangeRoundTrip: what is written is read back.
func TestContentRangeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, math.MaxInt64-1).Draw(t, "size")
		start := rapid.Int64Range(0, size-1).Draw(t, "start")
		r := Range{start, rapid.Int64Range(start+1, size).Draw(t, "end")}
		want := ContentRange{r, size, true}
		if got, err := ParseContentRange(r.ContentRange(size)); err != nil || got != want {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
		want.Size = -1
		if got, err := ParseContentRange(r.ContentRange(-1)); err != nil || got != want {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
		want = ContentRange{Size: size}
		if got, err := ParseContentRange(Unsatisfied(size)); err != nil || got != want {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
	})
}

// TestResolveCoversWhatWasAsked compares Resolve with a table of booleans, one
// per byte.
func TestResolveCoversWhatWasAsked(t *testing.T) {
	t.Parallel()
	specOf := rapid.Custom(func(t *rapid.T) Spec {
		n := rapid.Int64Range(0, 1300)
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return Spec{-1, n.Draw(t, "suffix")}
		case 1:
			return Spec{n.Draw(t, "first"), -1}
		default:
			a := n.Draw(t, "first")
			return Spec{a, a + rapid.Int64Range(0, 50).Draw(t, "more")}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1200).Draw(t, "size")
		specs := rapid.SliceOfN(specOf, 0, 12).Draw(t, "specs")
		checkResolve(t, specs, size)
	})
}

type fataler interface{ Fatalf(string, ...any) }

// checkResolve holds Resolve against what its comment promises, counting
// bytes one by one; size must be small.
func checkResolve(t fataler, specs []Spec, size int64) {
	asked := make([]bool, max(size, 0))
	firstOf := func(r Range) int { // the place of the first spec with a byte in r
		for i, s := range specs {
			for b := r.Start; b < r.End; b++ {
				if wants(s, b, size) {
					return i
				}
			}
		}
		return len(specs)
	}
	for _, s := range specs {
		for b := range asked {
			asked[b] = asked[b] || wants(s, int64(b), size)
		}
	}
	got := Resolve(specs, size)
	sent := make([]bool, len(asked))
	place := -1
	for _, r := range got {
		if r.Start < 0 || r.End > size || r.Len() <= 0 {
			t.Fatalf("Resolve(%v, %d) = %v: %v is not inside", specs, size, got, r)
		}
		if !asked[r.Start] || !asked[r.End-1] {
			t.Fatalf("Resolve(%v, %d) = %v: %v has bytes at an end that nobody asked for", specs, size, got, r)
		}
		if at := firstOf(r); at <= place {
			t.Fatalf("Resolve(%v, %d) = %v: not in the order asked", specs, size, got)
		} else {
			place = at
		}
		for b := r.Start; b < r.End; b++ {
			if sent[b] {
				t.Fatalf("Resolve(%v, %d) = %v: byte %d twice", specs, size, got, b)
			}
			sent[b] = true
		}
	}
	for b := range asked {
		if asked[b] && !sent[b] {
			t.Fatalf("Resolve(%v, %d) = %v: byte %d is missing", specs, size, got, b)
		}
	}
	// A run of bytes is sent without being asked for exactly if it is a gap
	// shorter than partHead between bytes that were.
	for b := 0; b < len(asked); {
		if asked[b] {
			b++
			continue
		}
		end := b
		for end < len(asked) && !asked[end] {
			end++
		}
		short := b > 0 && end < len(asked) && end-b < partHead
		for ; b < end; b++ {
			if sent[b] != short {
				t.Fatalf("Resolve(%v, %d) = %v: byte %d of a gap: sent %v, want %v", specs, size, got, b, sent[b], short)
			}
		}
	}
}

// wants says whether s asks for byte b of size.
func wants(s Spec, b, size int64) bool {
	if s.First < 0 {
		return s.Last >= size-b
	}
	return b >= s.First && (s.Last < 0 || b <= s.Last)
}

var (
	fieldForm = regexp.MustCompile(`(?i)^bytes=[ \t]*(?:(?:[0-9]+-[0-9]*|-[0-9]+)?[ \t]*,[ \t]*)*(?:[0-9]+-[0-9]*|-[0-9]+)?$`)
	specForm  = regexp.MustCompile(`([0-9]*)-([0-9]*)`)
)

// reference is Parse the dumb way: a regular expression and big numbers.
func reference(header string) ([]Spec, bool) {
	header = strings.Trim(header, " \t")
	if !fieldForm.MatchString(header) {
		return nil, false
	}
	number := func(s string) (*big.Int, int64) {
		if s == "" {
			return nil, -1
		}
		n, _ := new(big.Int).SetString(s, 10)
		if !n.IsInt64() {
			return n, math.MaxInt64
		}
		return n, n.Int64()
	}
	var specs []Spec
	for _, m := range specForm.FindAllStringSubmatch(header, -1) {
		first, a := number(m[1])
		last, b := number(m[2])
		if first != nil && last != nil && last.Cmp(first) < 0 {
			return nil, false
		}
		specs = append(specs, Spec{a, b})
	}
	return specs, len(specs) > 0
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=,1-2 ,\t-0,", "Bytes=0-9223372036854775807", "bytes=5-4",
		"bytes=99999999999999999999-99999999999999999998", "bytes= 0-0,100-100,200-", "items=0-1", "bytes=--1",
	} {
		f.Add(s, int64(1000))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		want, wantOK := reference(header)
		got, ok := Parse(header)
		if ok != wantOK || !slices.Equal(got, want) {
			t.Fatalf("Parse(%q) = %v, %v; want %v, %v", header, got, ok, want, wantOK)
		}
		again, ok := ParseInto([]Spec{{1, 2}, {3, 4}, {5, 6}}, header)
		if ok != wantOK || !slices.Equal(again, want) {
			t.Fatalf("ParseInto(%q) = %v, %v; want %v, %v", header, again, ok, want, wantOK)
		}
		var sum int64
		for _, r := range Resolve(got, size) {
			if r.Start < 0 || r.Len() <= 0 || r.End > size {
				t.Fatalf("%q of %d: %v is not inside", header, size, r)
			}
			sum += r.Len()
		}
		if sum > max(size, 0) {
			t.Fatalf("%q of %d: %d bytes in all", header, size, sum)
		}
		if len(got) <= 20 {
			checkResolve(t, got, size%1000)
		}
	})
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-499/1234", "bytes */10", "bytes 1-2/*", "bytes 5-4/9", "bytes 0-9223372036854775807/*"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^(?i:bytes) (?:([0-9]+)-([0-9]+)|\*)/([0-9]+|\*)$`)
	f.Fuzz(func(t *testing.T, v string) {
		got, err := ParseContentRange(v)
		m := form.FindStringSubmatch(strings.Trim(v, " \t"))
		if err == nil && m == nil {
			t.Fatalf("%q was accepted: %v", v, got)
		}
		if err != nil {
			return
		}
		// What was accepted says the same when it is written again.
		text := Unsatisfied(got.Size)
		if got.Satisfied {
			text = got.Range.ContentRange(got.Size)
		}
		if again, err := ParseContentRange(text); err != nil || again != got {
			t.Fatalf("%q → %v → %q → %v, %v", v, got, text, again, err)
		}
		if got.Satisfied && (got.Range.Len() <= 0 || (got.Size >= 0 && got.Range.End > got.Size)) {
			t.Fatalf("%q: %v is not inside", v, got)
		}
	})
}

// TestOneRangeDoesNotAllocate: the hot path is one range per request.
func TestOneRangeDoesNotAllocate(t *testing.T) {
	var kept Range
	allocs := testing.AllocsPerRun(100, func() {
		specs, ok := Parse("bytes=1048576-2097151")
		if !ok {
			t.Fatal("not ok")
		}
		kept = Resolve(specs, 1<<30)[0]
	})
	if allocs != 0 {
		t.Errorf("%v allocations for one range, want none", allocs)
	}
	if want := (Range{1 << 20, 2 << 20}); kept != want {
		t.Errorf("got %v, want %v", kept, want)
	}
	var room [8]Spec
	allocs = testing.AllocsPerRun(100, func() {
		if specs, ok := ParseInto(room[:0], "bytes=0-1,5-6,-7"); !ok || len(specs) != 3 {
			t.Fatal("not ok")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations with a buffer of one's own, want none", allocs)
	}
}
