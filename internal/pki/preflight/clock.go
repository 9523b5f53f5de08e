package preflight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

const whyClock = "certificates are valid from one moment to another: with a wrong clock a good one is taken for expired, a new one for not yet valid, and none is renewed in time"

// mostSkew is how wrong a clock may be: CAs date certificates back by at least
// so much.
const mostSkew = 5 * time.Minute

const doClock = "set the clock, and let something keep it right: systemd-timesyncd, chrony or ntpd; w32time on Windows"

// clockCheck looks for what cannot be if the clock is right.
func clockCheck(o Options, active activePair) Check {
	now := o.Now()
	c := Check{ID: IDClock, Title: "Clock", Result: OK, Why: whyClock}
	found := []string{"it is " + moment(now)}
	bad := func(r Result, format string, args ...any) {
		c.Result = worse(c.Result, r)
		found = append(found, fmt.Sprintf(format, args...))
	}
	if built := o.machine.built; now.Add(mostSkew).Before(built) {
		bad(Failed, "this program was built later: %s", moment(built))
	}
	if name, when := newest(o.Dir); when.After(now.Add(mostSkew)) {
		bad(Warning, "%s was written later: %s", name, moment(when))
	}
	switch s := active.status; {
	case s.NotAfter.IsZero():
	case now.Before(s.NotBefore):
		bad(Failed, "the active certificate begins later: %s", moment(s.NotBefore))
	case now.After(s.NotAfter):
		found = append(found, fmt.Sprintf("the active certificate has ended, %s; if it should not have, the clock is wrong", moment(s.NotAfter)))
	}
	kept, err := o.machine.synchronised()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		found = append(found, "whether something keeps it right cannot be asked on this system")
	case err != nil:
		found = append(found, fmt.Sprintf("whether something keeps it right could not be learnt: %v", err))
	case kept:
		found = append(found, "the system keeps it synchronised")
	default:
		bad(Warning, "nothing keeps it synchronised, as far as the system knows")
	}
	if c.Result != OK {
		c.Do = doClock
	}
	c.Found = strings.Join(found, "\n")
	return c
}

// built is when the source of this program was last changed; zero if that is
// not known.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// newest is the file of the TLS directory that was written last.
func newest(dir string) (name string, when time.Time) {
	for _, sub := range subDirs {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			continue // filesCheck says so
		}
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && info.Mode()&fs.ModeType == 0 && info.ModTime().After(when) {
				name, when = filepath.Join(dir, sub, e.Name()), info.ModTime()
			}
		}
	}
	return name, when
}

// timeChecks compares the clock with an HTTP server's (RFC 9110 section
// 6.6.1), whose resolution is a second.
func timeChecks(ctx context.Context, o Options) []Check {
	if o.TimeURL == "" {
		return nil
	}
	server := o.TimeURL
	if u, err := url.Parse(server); err == nil {
		server = u.Redacted()
	}
	c := Check{ID: IDTime, Title: "Clock, compared with " + server, Result: Skipped, Why: whyClock}
	theirs, ours, err := askTime(ctx, o)
	if err != nil {
		c.Found = fmt.Sprintf("no time from there: %v", err)
		c.Do = "name an HTTP server that this machine reaches, or do without"
		return []Check{c}
	}
	skew := ours.Sub(theirs).Round(time.Second)
	c.Result, c.Found = OK, "the same within a second or two"
	side := "ahead"
	if skew < 0 {
		side = "behind"
	}
	if skew.Abs() > 2*time.Second {
		c.Found = fmt.Sprintf("this machine is %v %s", skew.Abs(), side)
	}
	if skew.Abs() > mostSkew {
		c.Result, c.Do = Failed, doClock
	}
	return []Check{c}
}

func askTime(ctx context.Context, o Options) (theirs, ours time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, o.TimeURL, http.NoBody)
	if err != nil {
		return theirs, ours, err
	}
	transport := &http.Transport{
		Proxy:             func(r *http.Request) (*url.URL, error) { return o.Proxy(r.URL) },
		TLSClientConfig:   &tls.Config{RootCAs: o.Roots},
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	asked := o.Now()
	answer, err := client.Do(req)
	if err != nil {
		return theirs, ours, err
	}
	ours = asked.Add(o.Now().Sub(asked) / 2)
	if err := answer.Body.Close(); err != nil {
		return theirs, ours, err
	}
	date := answer.Header.Get("Date")
	if theirs, err = http.ParseTime(date); err != nil {
		return theirs, ours, fmt.Errorf("the answer's Date is %q", date)
	}
	return theirs, ours, nil
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
