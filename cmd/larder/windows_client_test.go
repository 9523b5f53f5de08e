package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"larder/internal/lardertest"
)

// The download of a cabinet by Windows' own client as it was recorded: two
// connections that each ask for two bytes and then for pieces of 1 MiB.
const (
	cabPath = "/c/msdownload/update/software/secu/2026/03/windows-kb5000001_0a1b.cab"
	cabSize = 2323765
	cabHost = "au.download.windowsupdate.com"
)

// windowsConfig serves the built-in publishers of Windows Update, whose hosts
// an own file sends to the test's origin.
var windowsConfig = strings.Replace(lardertest.DefaultNodeConfig, "builtin: []", "builtin: [windows-update]", 1)

const windowsPublisher = `
name: windows-update-here
content_type: windows-update
hosts: [au.download.windowsupdate.com, download.windowsupdate.com]
freshness: immutable
rules:
  - {path: "*/pieceshash", freshness: revalidate, max_age: 5m}
origin: {scheme: http, address: "$ORIGIN"}
`

func newWindowsLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t, labOptions{yaml: windowsConfig, publisher: windowsPublisher})
	l.origin.Add(cabPath, cabSize)
	l.origin.AddBytes(cabPath+"/pieceshash", lardertest.PiecesHash(lardertest.Content(cabPath, 1, cabSize), cabSize))
	return l
}

func (l *lab) windowsClient(scheme string) *lardertest.WindowsClient {
	addr, config := l.addr(scheme)
	return &lardertest.WindowsClient{Addr: addr, TLS: config, Origin: cabHost}
}

// wantCab fails the test unless the download is the whole and right cabinet.
func wantCab(t *testing.T, r *lardertest.WindowsResult, err error) {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, lardertest.Content(cabPath, 1, cabSize).Reader()); err != nil {
		t.Fatal(err)
	}
	if err != nil || r.Total != cabSize || r.Bytes != cabSize || r.SHA256 != hex.EncodeToString(h.Sum(nil)) || len(r.BadHash) != 0 {
		t.Fatalf("got %d of %d bytes, bad pieces %v, %v", r.Bytes, r.Total, r.BadHash, err)
	}
	for _, q := range r.Requests {
		if q.Range != "" && q.Status != 206 || q.Range == "" && q.Status != 200 {
			t.Errorf("%s %s range %q: %d", q.Method, q.Target, q.Range, q.Status)
		}
		if q.Method != "HEAD" && q.Length != q.Bytes {
			t.Errorf("%s range %q: Content-Length %d, %d bytes came", q.Target, q.Range, q.Length, q.Bytes)
		}
	}
}

func TestWindowsPatternColdAndWarm(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			l := newWindowsLab(t)
			r, err := l.windowsClient(scheme).Download(t.Context(), cabPath+"?P1=1&P2=%2b")
			wantCab(t, r, err)
			l.wantSent(t, cabPath, cabSize, cabSize)
			for _, q := range l.origin.RequestsFor(cabPath) {
				if q.Host != cabHost || q.Target != cabPath+"?P1=1&P2=%2b" || q.Status != 206 {
					t.Errorf("the origin was asked for %s at %s and answered %d", q.Target, q.Host, q.Status)
				}
			}

			// Warm: nothing is asked for, whatever the signature in the query.
			l.origin.Refuse()
			r, err = l.windowsClient(scheme).Download(t.Context(), cabPath+"?P1=9")
			wantCab(t, r, err)
			l.wantSent(t, cabPath, cabSize, cabSize)
		})
	}
}

func TestWindowsProbesCostOneSmallFetch(t *testing.T) {
	t.Parallel()
	l := newWindowsLab(t)
	const big = "/d/big.esd"
	const size = 64 << 20
	l.origin.Add(big, size)
	both := make(chan struct{})
	l.origin.Set(big, lardertest.Behaviour{Before: func(lardertest.Recorded) { <-both }})
	replies := make(chan *reply, 2)
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			r, err := question{addr: l.HTTP, host: "node", target: big + "?cacheHostOrigin=" + cabHost, fields: []string{"Range: bytes=0-1"}}.send(t.Context())
			replies <- r
			errs <- err
		}()
	}
	lardertest.Eventually(t, "the second probe waits for the first", func() bool { return l.Metric("larder_fill_coalesced_total") >= 1 })
	close(both)
	for range 2 {
		r := <-replies
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
		r.wantContent(t, big, 1, size, 0, 2)
	}
	if q := l.origin.RequestsFor(big); len(q) != 1 {
		t.Errorf("two probes cost %d requests:\n%s", len(q), l.askedFor(big))
	}
	lardertest.Eventually(t, "the fetch is over", func() bool { return l.Metric("larder_fill_active_runs") == 0 })
	l.wantSent(t, big, 2, 1<<20)
}

func TestWindowsChecksPiecesAndAsksForHead(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			l := newWindowsLab(t)
			for _, when := range []string{"cold", "warm"} {
				c := l.windowsClient(scheme)
				c.Head, c.PiecesHash = true, true
				r, err := c.Download(t.Context(), cabPath)
				wantCab(t, r, err)
				q := r.Requests[0]
				if q.Method != "HEAD" || q.Status != 200 || q.Length != cabSize || q.Bytes != 0 {
					t.Errorf("%s: HEAD: %+v", when, q)
				}
			}
			// A HEAD of what is not there yet costs a byte.
			l.wantSent(t, cabPath, cabSize, cabSize+1)
			if n := len(l.origin.RequestsFor(cabPath + "/pieceshash")); n != 1 {
				t.Errorf("pieceshash was asked for %d times within its max_age", n)
			}
		})
	}
}

func TestWindowsAliasHostsShareOneCopy(t *testing.T) {
	t.Parallel()
	l := newWindowsLab(t)
	for _, host := range []string{cabHost, "download.windowsupdate.com"} {
		c := l.windowsClient("http")
		c.Origin = host
		r, err := c.Download(t.Context(), cabPath)
		wantCab(t, r, err)
		c.Origin, c.Host = "", host // the other form
		r, err = c.Download(t.Context(), cabPath)
		wantCab(t, r, err)
	}
	l.wantSent(t, cabPath, cabSize, cabSize)
}

// The objects that the vendor's own checks ask for.
func TestWindowsValidationURLs(t *testing.T) {
	t.Parallel()
	const png = "/filestreamingservice/files/7bc846e0-af9c-49be-a03d-bb04428c9bb5/Microsoft.png"
	const bin = "/ee344de8-d177-4720-86c1-a076581766f9/070a8fd4-79a7-42c8-b7c8-9883253bb01a/c7b1b825-88b2-4e66-9b15-ff5fe0374bc6.appxbundle.bin"
	objects := []struct {
		path, host string
		size       int64
		scheme     string
	}{
		{"/mscomtest/wuidt.gif", "au.download.windowsupdate.com", 969710, "http"},
		{"/mscomtest/cedtest/r20.gif", "download.windowsupdate.com", 43, "http"},
		{png, "dl.delivery.mp.microsoft.com", 302341, "http"},
		{bin, "swda01-mscdn.manage.microsoft.com", 400001, "https"},
	}
	l := newLab(t, labOptions{
		yaml: strings.Replace(lardertest.DefaultNodeConfig, "builtin: []", "builtin: [windows-update, intune]", 1),
		publisher: `
publishers:
  - {name: wu-here, hosts: [au.download.windowsupdate.com, download.windowsupdate.com], freshness: immutable, origin: {scheme: http, address: "$ORIGIN"}}
  - {name: dl-here, hosts: [dl.delivery.mp.microsoft.com], freshness: immutable, origin: {scheme: http, address: "$ORIGIN"}}
  - {name: intune-here, hosts: [swda01-mscdn.manage.microsoft.com], freshness: immutable, origin: {scheme: https, address: "$TLSORIGIN", ca: "$CA"}}
`,
		origin: lardertest.NewOrigin(t, "swda01-mscdn.manage.microsoft.com"),
	})
	for _, o := range objects {
		l.origin.Add(o.path, o.size)
		addr, config := l.addr(o.scheme)
		byQuery := question{addr: addr, tls: config, host: "node", target: o.path + "?cacheHostOrigin=" + o.host}
		byHost := question{addr: addr, tls: config, host: o.host, target: o.path}
		for _, q := range []question{byQuery, byHost} {
			r := ask(t, q)
			r.wantContent(t, o.path, 1, o.size, 0, o.size)
			if got := r.header.Get("Content-Type"); got != "application/octet-stream" {
				t.Errorf("%s: Content-Type %q", o.path, got)
			}
			if got := r.header.Get("Accept-Ranges"); got != "bytes" {
				t.Errorf("%s: Accept-Ranges %q", o.path, got)
			}
		}
		l.wantSent(t, o.path, o.size, o.size)
	}
	// What was fetched once is there when the Internet is not.
	l.origin.Refuse()
	for _, o := range objects {
		addr, config := l.addr(o.scheme)
		q := question{addr: addr, tls: config, host: "node", target: fmt.Sprintf("%s?cacheHostOrigin=%s", o.path, o.host)}
		ask(t, q).wantContent(t, o.path, 1, o.size, 0, o.size)
	}
}
