package roster_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"larder/internal/control/roster"
	"larder/internal/fleet"
)

func TestDiffNamesFields(t *testing.T) {
	t.Parallel()
	running := &fleet.Desired{Number: 3, Node: "n", Drives: []fleet.Drive{{Path: "/a", Size: 1}, {Path: "/b", Size: 2}}, Proxy: &fleet.Proxy{URL: "http://p:1"}}
	desired := &fleet.Desired{Number: 4, Node: "n", Drives: []fleet.Drive{{Path: "/a", Size: 5}}, ClientNames: []string{"cache"}, Drain: true}
	ds, err := roster.Diff(running, desired)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, d := range ds {
		got = append(got, d.Path+": "+string(d.Running)+" → "+string(d.Desired))
	}
	want := []string{
		`clientNames:  → ["cache"]`,
		`drain:  → true`,
		`drives[0].size: 1 → 5`,
		`drives[1]: {"path":"/b","size":2} → `,
		`proxy: {"url":"http://p:1"} → `,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want -, got +\n%s", d)
	}
	if ds, err := roster.Diff(running, running); err != nil || len(ds) != 0 {
		t.Errorf("a document differs from itself: %v, %v", ds, err)
	}
}
