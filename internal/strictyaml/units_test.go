package strictyaml_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"larder/internal/strictyaml"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "1048576": 1 << 20, "500GB": 500e9, "500 GB": 500e9, "500gb": 500e9, "10GiB": 10 << 30, "1.5TB": 15e11, "64KiB": 64 << 10,
		"1kB": 1000, "2PiB": 2 << 50, "7B": 7, "0.5KiB": 512,
	} {
		var b strictyaml.Bytes
		if err := b.UnmarshalText([]byte(in)); err != nil || int64(b) != want {
			t.Errorf("%q = %d, %v; want %d", in, b, err, want)
		}
	}
	for in, want := range map[string]string{
		"":              `"" is not a size; expected a size such as 500GB or 10GiB`,
		"-1GB":          `"-1GB" is not a size; expected a size such as 500GB or 10GiB`,
		"GB":            `"GB" is not a size; expected a size such as 500GB or 10GiB`,
		"1.2.3GB":       `"1.2.3GB" is not a size; expected a size such as 500GB or 10GiB`,
		"500G":          `"500G" has no clear unit; write 500GB (powers of ten) or 500GiB (powers of two)`,
		"5 apples":      `"5 apples" has an unknown unit; expected a size such as 500GB or 10GiB`,
		"5XB":           `"5XB" has an unknown unit; expected a size such as 500GB or 10GiB`,
		"99999999999PB": `"99999999999PB" is too large`,
	} {
		b := strictyaml.Bytes(-7)
		if err := b.UnmarshalText([]byte(in)); err == nil || err.Error() != want || b != -7 {
			t.Errorf("%q: got %v, %d\nwant %s", in, err, b, want)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "200MBit": 25e6, "50Mbit/s": 6.25e6, "50Mbps": 6.25e6, "1Gbit/s": 125e6, "25MB/s": 25e6, "1MiB/s": 1 << 20, "8bit/s": 1, "1.5 Mbit/s": 187500,
		"10kB/s": 10000,
	} {
		var r strictyaml.Rate
		if err := r.UnmarshalText([]byte(in)); err != nil || int64(r) != want {
			t.Errorf("%q = %d, %v; want %d", in, r, err, want)
		}
	}
	for in, want := range map[string]string{
		"fast":     `"fast" is not a rate; expected a rate such as 200Mbit/s or 25MB/s`,
		"200":      `"200" has an unknown unit; expected a rate such as 200Mbit/s or 25MB/s`,
		"25MB":     `"25MB" is a size, not a rate; write 25MB/s for bytes or 25Mbit/s for bits`,
		"25Mb/s":   `"25Mb/s" may mean bits or bytes; write B/s for bytes or bit/s for bits`,
		"25MBps":   `"25MBps" has an unknown unit; expected a rate such as 200Mbit/s or 25MB/s`,
		"-5Mbit/s": `"-5Mbit/s" is not a rate; expected a rate such as 200Mbit/s or 25MB/s`,
	} {
		var r strictyaml.Rate
		if err := r.UnmarshalText([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v\nwant %s", in, err, want)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"0": 0, "60s": time.Minute, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond,
	} {
		var d strictyaml.Duration
		if err := d.UnmarshalText([]byte(in)); err != nil || time.Duration(d) != want {
			t.Errorf("%q = %v, %v; want %v", in, time.Duration(d), err, want)
		}
	}
	for _, in := range []string{"", "5", "-1s", "+1s", "1d-1h", "1.5d", "d", "week", "1h1d"} {
		var d strictyaml.Duration
		if err := d.UnmarshalText([]byte(in)); err == nil || !strings.Contains(err.Error(), "is not a span of time; write it as 60s, 24h or 7d") {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"200000d", "106751d24h", "9999999999999999999d"} {
		var d strictyaml.Duration
		if err := d.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q = %v, want an error", in, time.Duration(d))
		}
	}
}

// What is written is read as the same value.
func TestUnitsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.SampledFrom([]int64{1, 1000, 1024, 1e6, 1 << 20, 1e9, 1 << 30, 125, 125000}).Draw(t, "scale")
		n := rapid.Int64Range(0, 1<<32).Draw(t, "n") * scale
		b, r, d := strictyaml.Bytes(n), strictyaml.Rate(n), strictyaml.Duration(n)
		var b2 strictyaml.Bytes
		var r2 strictyaml.Rate
		var d2 strictyaml.Duration
		if err := b2.UnmarshalText([]byte(b.String())); err != nil || b2 != b {
			t.Errorf("%d bytes → %s → %d, %v", n, b, b2, err)
		}
		if err := r2.UnmarshalText([]byte(r.String())); err != nil || r2 != r {
			t.Errorf("%d B/s → %s → %d, %v", n, r, r2, err)
		}
		if err := d2.UnmarshalText([]byte(d.String())); err != nil || d2 != d {
			t.Errorf("%d ns → %s → %d, %v", n, d, d2, err)
		}
	})
	for n, want := range map[int64]string{500e9: "500GB", 10 << 30: "10GiB", 1 << 20: "1MiB", 0: "0", 1000: "1kB"} {
		if got := strictyaml.Bytes(n).String(); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	if got := strictyaml.Rate(25e6).String(); got != "200Mbit/s" {
		t.Errorf("Rate(25e6) = %s", got)
	}
	if got := strictyaml.Duration(36 * time.Hour).String(); got != "1d12h" {
		t.Errorf("Duration(36h) = %s", got)
	}
}
