package origin

import (
	"strings"
	"testing"
)

func TestLooped(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{NodeID: "n1"})
	for via, want := range map[string]bool{
		"1.1 larder-n1":                             true,
		"1.0 fred, 1.1 larder-n1 (Larder)":          true,
		"HTTP/1.1 LARDER-N1(comment), 1.1 b":        true,
		"1.1\tlarder-n1":                            true,
		",, 1.1   larder-n1 ,":                      true,
		"1.1 a (b, (c), \\) d), 1.1 larder-n1":      true,
		"1.1 a (open, 1.1 larder-n1":                true, // a comment that never closes hides nothing
		"1.1 a ), 1.1 larder-n1":                    true,
		"1.1 a (open \\), 1.1 larder-n1":            true,
		"":                                          false,
		"larder-n1":                                 false,
		"1.1 larder-n10":                            false,
		"1.1 other-larder-n1":                       false,
		"1.1 fred (1.1 larder-n1)":                  false,
		"1.1 fred (a, 1.1 larder-n1, b)":            false,
		"1.1 fred (a \\) , 1.1 larder-n1, b)":       false,
		"1.1 fred ((a), 1.1 larder-n1, b), 1.1 bob": false,
		"1.1 fred larder-n1":                        false,
	} {
		if got := c.Looped(via); got != want {
			t.Errorf("Looped(%q) = %v", via, got)
		}
	}
	if a, b := newClient(t, Config{}), newClient(t, Config{}); a.pseudonym == b.pseudonym || len(a.pseudonym) < 16 {
		t.Errorf("nodes without an id are %q and %q", a.pseudonym, b.pseudonym)
	}
	if got := pseudonym("a b,(c)\r\nX: é"); got != "larder-a-b--c---X---" {
		t.Errorf("got %q", got)
	}
}

func FuzzVia(f *testing.F) {
	for _, s := range []string{"1.1 larder-n1", "1.0 fred (a, b), 1.1 x", "1.1 a (open", "1.1 a )", "\\(", "((\\)", ",", "1.1 a (\\"} {
		f.Add(s)
	}
	c := New(Config{NodeID: "n1"})
	f.Cleanup(c.Close)
	f.Fuzz(func(t *testing.T, via string) {
		elements, ok := splitVia(via)
		if got := strings.Join(elements, ","); got != via {
			t.Errorf("%q falls apart into %q", via, elements)
		}
		if len(elements) > 1 && !ok && len(elements) != strings.Count(via, ",")+1 {
			t.Errorf("%q: a comma was hidden by a comment that does not close", via)
		}
		// Whatever a stranger sends, this node knows itself when it comes
		// back, also behind a hop that adds to the field.
		sent := c.continueVia([]string{via})
		if !validValue(sent) {
			t.Errorf("%q becomes %q", via, sent)
		}
		for _, back := range []string{sent, sent + ", 1.1 next (comment, here)", "1.1 front (x), " + sent, sent + ", 1.1 evil ("} {
			if !c.Looped(back) {
				t.Errorf("%q becomes %q: not recognised in %q", via, sent, back)
			}
		}
	})
}
