package inquiry_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/pki/enroll/inquiry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const most = 1000

// server answers with most bytes, or as the path says, and with a place to go
// to.
func server(t *testing.T) (ask func(path string) (*http.Response, []byte, error)) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		n := most
		switch r.URL.Path {
		case "/more":
			n++
		case "/endless":
			n = 1 << 30 // is not read to its end
		case "/broken":
			w.Header().Set("Content-Length", "2000")
		case "/moved":
			w.WriteHeader(http.StatusFound)
		case "/trouble":
			n++
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.CopyN(w, forever{}, int64(n))
	}))
	t.Cleanup(s.Close)
	c := inquiry.NewClient(s.Client().Transport.(*http.Transport).TLSClientConfig)
	t.Cleanup(c.CloseIdleConnections)
	return func(path string) (*http.Response, []byte, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return inquiry.Do(c, req, most)
	}
}

type forever struct{}

func (forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'A'
	}
	return len(p), nil
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	ask := server(t)
	for path, status := range map[string]int{"/": 200, "/moved": 302, "/trouble": 500} {
		resp, body, err := ask(path)
		if err != nil || resp.StatusCode != status || string(body) != strings.Repeat("A", most) {
			t.Errorf("%s: %v, %d bytes, %v; want %d", path, resp, len(body), err, status)
		}
	}
	for _, path := range []string{"/more", "/endless"} {
		if _, body, err := ask(path); !errors.Is(err, inquiry.ErrTooLong) || body != nil {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
		}
	}
	if _, _, err := ask("/broken"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half an answer: %v", err)
	}
}

func TestWhatAnAnswerSays(t *testing.T) {
	t.Parallel()
	hide := func(text string) string { return strings.ReplaceAll(text, "sesame", "(secret)") }
	for _, test := range []struct{ kind, body, want string }{
		{"text/plain", "", ""},
		{"text/plain", " \r\n\t", ""},
		{"text/plain", "no such\r\nuser \x1b[31m\xff", " (no such user [31m?)"},
		{"text/plain", "not by sesame", " (not by (secret))"},
		{"text/html; charset=utf-8", "<html><title>Not\nyet</title>and more", " (Not yet)"},
		{"text/html", "<html>and more", " (a web page)"},
		{"text/html", "<title>without end", " (a web page)"},
		{"", strings.Repeat("ä", 301), " (" + strings.Repeat("ä", 300) + "…)"},
	} {
		resp := &http.Response{Header: http.Header{"Content-Type": {test.kind}}}
		if got := inquiry.Said(resp, []byte(test.body), hide); got != test.want {
			t.Errorf("%s %q: %q; want %q", test.kind, test.body, got, test.want)
		}
	}
}

func TestWhenToComeAgain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	week := now.AddDate(0, 0, 7)
	for field, want := range map[string]time.Time{
		"0":                             now,
		"120":                           now.Add(2 * time.Minute),
		" 5 ":                           now.Add(5 * time.Second),
		"604800":                        week,
		"2000000000":                    week,
		"9223372036854775807":           week,
		"99999999999999999999":          {},
		"-5":                            {},
		"soon":                          {},
		"":                              {},
		"Fri, 01 May 2026 13:00:00 GMT": now.Add(time.Hour),
		"Fri, 01 May 2020 13:00:00 GMT": now,
		"Fri, 01 May 2099 13:00:00 GMT": week,
	} {
		if got := inquiry.RetryAfter(field, now); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", field, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Fri, 02 Jan 2026 05:04:05 GMT")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, field string) {
		if at := inquiry.RetryAfter(field, now); !at.IsZero() && (at.Before(now) || at.After(now.AddDate(0, 0, 7))) {
			t.Errorf("%q: %v", field, at)
		}
	})
}

func FuzzClip(f *testing.F) {
	f.Add("a\n\tb\x00\x1b[31mc\xff", 3)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = min(max(n, 0), 1000)
		got := inquiry.Clip(text, n)
		if len([]rune(got)) > n+1 || strings.ContainsAny(got, "\x00\r\n\t\x1b") {
			t.Errorf("%q", got)
		}
	})
}
