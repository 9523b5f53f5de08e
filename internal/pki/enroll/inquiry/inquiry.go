// Package inquiry asks a CA over HTTP and bounds what comes back: its length,
// its patience and its words.
package inquiry

import (
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	timeout   = time.Minute // for one question and its answer
	saidText  = 300         // characters of what a CA says in its own words
	longWait  = 7 * 24 * time.Hour
	maxHeader = 64 << 10 // bytes
)

// ErrTooLong is an answer of more bytes than were asked for.
var ErrTooLong = errors.New("the answer is too long")

// NewClient is for one CA's server. It follows nobody: where to is for a
// person to decide, and a POST would become a GET. Whose protocol knows better
// sets CheckRedirect.
func NewClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    20 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Do asks, and returns the answer with its body, which is read and closed. A
// body of more than most bytes is ErrTooLong if the status is 200; else it is
// words for people, and the rest is left out.
func Do(c *http.Client, req *http.Request, most int) (*http.Response, []byte, error) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > most {
		if resp.StatusCode == http.StatusOK {
			return nil, nil, ErrTooLong
		}
		body = body[:most]
	}
	return resp, body, nil
}

// Said is what an answer says in its own words, for one line: " (words)", or
// "". The words go through hide, which takes secrets out.
func Said(resp *http.Response, body []byte, hide func(string) string) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	text := string(body)
	if strings.Contains(kind, "html") {
		_, rest, found := strings.Cut(text, "<title>")
		title, _, closed := strings.Cut(rest, "</title>")
		if !found || !closed {
			return " (a web page)"
		}
		text = title
	}
	if text = Clip(hide(text), saidText); text == "" {
		return ""
	}
	return " (" + text + ")"
}

// Clip makes one line of printable characters, n at most, of a stranger's
// text.
func Clip(text string, n int) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	runes := []rune(strings.Join(strings.Fields(clean), " "))
	if len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return string(runes)
}

// RetryAfter reads a Retry-After field, seconds or a date (RFC 9110, section
// 10.2.3), as a time that is not before now. Zero: none, or none that makes
// sense. Nobody is believed who would have a node wait for longer than a week.
func RetryAfter(field string, now time.Time) time.Time {
	latest := now.Add(longWait)
	field = strings.TrimSpace(field)
	if seconds, err := strconv.ParseInt(field, 10, 64); err == nil {
		switch {
		case seconds < 0:
			return time.Time{}
		case seconds > int64(longWait/time.Second):
			return latest
		}
		return now.Add(time.Duration(seconds) * time.Second)
	}
	at, err := http.ParseTime(field)
	switch {
	case err != nil:
		return time.Time{}
	case at.Before(now):
		return now
	case at.After(latest):
		return latest
	}
	return at
}
