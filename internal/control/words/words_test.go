package words

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{Bytes(0), "0 B"}, {Bytes(999), "999 B"}, {Bytes(999_499), "999 kB"}, {Bytes(1000), "1 kB"}, {Bytes(1_234_567), "1.23 MB"}, {Bytes(123_456_789_012), "123 GB"}, {Bytes(-5), "-5 B"}, {Bytes(2e18), "2 EB"}, {Bytes(999_999), "1 MB"},
		{Span(-time.Minute), "0 minutes"}, {Span(119 * time.Minute), "119 minutes"}, {Span(2 * time.Hour), "2 hours"}, {Span(47 * time.Hour), "47 hours"}, {Span(49 * time.Hour), "2 days"},
		{Moment(time.Date(2026, 11, 26, 1, 2, 3, 0, time.FixedZone("CET", 3600))), "2026-11-26 00:02 UTC"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
