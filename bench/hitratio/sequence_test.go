package main

import (
	"slices"
	"strings"
	"testing"
)

// sequence makes a trace in which every letter is a request for the object of
// that name. Objects have one byte, unless sizes says otherwise.
func sequence(letters string, sizes map[rune]int64) *trace {
	names := slices.Compact(slices.Sorted(strings.SplitSeq(letters, "")))
	t := &trace{}
	for _, name := range names {
		size := int64(1)
		if n, ok := sizes[[]rune(name)[0]]; ok {
			size = n
		}
		t.objects = append(t.objects, object{size: size})
	}
	for name := range strings.SplitSeq(letters, "") {
		o := int32(slices.Index(names, name))
		t.requests = append(t.requests, request{object: o, end: t.objects[o].chunks(), pieces: 1})
	}
	t.number()
	return t
}

// Each sequence was worked out by hand.
func TestPoliciesByHand(t *testing.T) {
	t.Parallel()
	alphabet := "ABCDEFGHIJKLMNOPQRST"
	for name, c := range map[string]struct {
		policy  string
		budget  int64
		sizes   map[rune]int64
		letters string
		hits    string // one sign per letter: + for a hit
		held    string // at the end
	}{
		"the first in goes first, asked for or not": {
			policy: "fifo", budget: 3, letters: "ABCADA", hits: "---+--", held: "ACD",
		},
		"the least recently asked for goes first": {
			policy: "lru", budget: 3, letters: "ABCADBA", hits: "---+--+", held: "ABD",
		},
		"the hand takes a mark and passes": {
			policy: "sieve", budget: 3, letters: "ABCADBEA", hits: "---+---+", held: "ABE",
		},
		"the hand goes on from where it was": {
			// D takes A's mark and evicts B, E evicts C, F evicts D: A is not looked at again.
			policy: "sieve", budget: 3, letters: "ABCADEFA", hits: "---+---+", held: "AEF",
		},
		"two marks last longer than one": {
			// X takes one mark of A, then B's, then the other one of A, and evicts B.
			policy: "sieve-count", budget: 2, letters: "AAABBXA", hits: "-++-+-+", held: "AX",
		},
		"what is asked for twice more leaves the small queue": {
			// A goes to main, B is evicted and remembered, so that it comes back to main.
			policy: "s3fifo", budget: 10, letters: "AAA" + "BCDEFGHIJ" + "KBA", hits: "-++" + "---------" + "--+", held: "ABDEFGHIJK",
		},
		"one more request is not enough for the main queue": {
			policy: "s3fifo", budget: 3, letters: "AABCDA", hits: "-+----", held: "ACD",
		},
		"small ones are kept": {
			// N evicts L; L then evicts one of two that are alike, which makes room enough.
			policy: "gdsf", budget: 6, sizes: map[rune]int64{'L': 5}, letters: "LSNSNL", hits: "---++-", held: "LS",
		},
		"what is asked for often stays": {
			policy: "lfuda", budget: 2, letters: "AABCA", hits: "-+--+", held: "AC",
		},
		"the last to be asked for again is not kept": {
			policy: "belady", budget: 2, letters: "ABCAB", hits: "---++", held: "AB",
		},
		"what waits with many bytes is not kept": {
			policy: "belady-size", budget: 6, sizes: map[rune]int64{'L': 5}, letters: "LABLAB", hits: "----++", held: "AB",
		},
		"what is asked for more often is let in": {
			// C's second request only draws level with A, its third exceeds B.
			policy: "wtinylfu", budget: 2, letters: "AABBCCAC", hits: "-+-+--+-", held: "AC",
		},
		"a newcomer is evicted where all others were asked for": {
			policy: "sieve", budget: 20, letters: alphabet + alphabet + "X" + alphabet[1:] + "YX",
			hits: strings.Repeat("-", 20) + strings.Repeat("+", 20) + "-" + strings.Repeat("+", 19) + "--", held: "CDEFGHIJKLMNOPQRSTXY",
		},
		"the store's hand turns back before the newcomer": {
			policy: "store", budget: 20, letters: alphabet + alphabet + "X" + alphabet[1:] + "YX",
			hits: strings.Repeat("-", 20) + strings.Repeat("+", 20) + "-" + strings.Repeat("+", 19) + "-+", held: "CDEFGHIJKLMNOPQRSTXY",
		},
		"the first time, a large one is not kept": {
			policy: "sieve-second", budget: 3, letters: "ABCDDD", hits: "-----+", held: "BCD",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hits, held := playLetters(sequence(c.letters, c.sizes), c.policy, c.budget, c.letters)
			if hits != c.hits {
				t.Errorf("%s on %s:\ngot  %s\nwant %s", c.policy, c.letters, hits, c.hits)
			}
			if held != c.held {
				t.Errorf("%s on %s: held %s, want %s", c.policy, c.letters, held, c.held)
			}
		})
	}
}

func playLetters(t *trace, policy string, budget int64, letters string) (hits, held string) {
	c := newCache(t, budget, candidateByName(policy).make(setupFor(t, budget)))
	for i := range t.requests {
		if c.serve(&t.requests[i]) == 0 {
			hits += "+"
		} else {
			hits += "-"
		}
	}
	for o, name := range slices.Compact(slices.Sorted(strings.SplitSeq(letters, ""))) {
		if c.bytes[o] > 0 {
			held += name
		}
	}
	return hits, held
}

// A download in pieces counts as a visit to its own object in the store as it
// is, and not in the store as it could be.
func TestPiecesMark(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{"store": "ACD", "store-once": "BCD"} {
		tr := sequence("ABCD", nil)
		tr.requests[0].pieces = 2
		if _, held := playLetters(tr, policy, 3, "ABCD"); held != want {
			t.Errorf("%s: held %s, want %s", policy, held, want)
		}
	}
}

func TestBoundByHand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		letters string
		sizes   map[rune]int64
		budget  int64
		want    bound
	}{
		"all fits":               {"ABAB", nil, 2, bound{Hits: 2, Bytes: 2}},
		"three of four are paid": {"ABAB", nil, 1, bound{Hits: 1.5, Bytes: 1.5}},
		"the small one first":    {"ABAB", map[rune]int64{'B': 3}, 1, bound{Hits: 1 + 1.0/6, Bytes: 1.5}},
		"nobody comes back":      {"ABC", nil, 3, bound{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := boundOf(sequence(c.letters, c.sizes), c.budget); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
