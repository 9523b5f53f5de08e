package certificates_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// A hundred renewals while clients of every kind go on fetching: more than ten
// thousand requests, none of which may fail.
func TestHundredRenewalsUnderLoad(t *testing.T) {
	t.Parallel()
	renewals, least := 100, int64(10_000)
	if testing.Short() || lardertest.Race {
		renewals, least = 10, 500
	}
	s := &site{pki: newPKI(t)}
	origin := lardertest.NewOrigin(t, "cdn.test")
	const size = 100_000
	origin.Add("/file", size)
	s.Node = lardertest.StartNode(t, lardertest.NodeConfig{Files: map[string]string{
		"catalog.d/lab.yaml": "name: cdn\nhosts: [cdn.test]\nfreshness: immutable\norigin: {scheme: http, address: \"" + origin.Addr + "\"}\n",
	}})
	s.tls = s.Dir + "/tls"
	must(t, "tls", "auto", "--dir", s.tls, "--sign-command", s.signer(t, 30), "--san-dns", "localhost", "--san-ip", "127.0.0.1")
	lardertest.Eventually(t, "HTTPS", func() bool { return s.Refresh() && s.HTTPS != "" })
	want := make([]byte, size)
	lardertest.Content("/file", 1, size).Fill(want, 0)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done, failed atomic.Int64
	kinds := make(map[string]*atomic.Int64)
	var clients sync.WaitGroup
	client := func(kind string, once func() error) {
		n := new(atomic.Int64)
		kinds[kind] = n
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := once(); err != nil && ctx.Err() == nil {
					failed.Add(1)
					t.Errorf("%s: %v", kind, err)
					return
				}
				n.Add(1)
				done.Add(1)
			}
		})
	}
	config := &tls.Config{RootCAs: s.roots(t), ServerName: "localhost"}
	url := "https://" + s.HTTPS + "/file?cacheHostOrigin=cdn.test"
	get := func(c *http.Client) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, want) {
			return fmt.Errorf("%s, %d bytes, %v", resp.Status, len(body), err)
		}
		return nil
	}
	kept := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	defer kept.CloseIdleConnections()
	fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resumed := config.Clone()
	resumed.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	resuming := &http.Client{Transport: &http.Transport{TLSClientConfig: resumed, DisableKeepAlives: true}}
	client("connections that are kept", func() error { return get(kept) })
	client("new connections", func() error { return get(fresh) })
	client("resumed sessions", func() error { return get(resuming) })
	client("curl", func() error {
		out, err := exec.CommandContext(ctx, "curl", "-sS", "--fail", "--cacert", s.path("root.pem"), "--connect-to", "::"+s.HTTPS, "-o", "/dev/null", "-w", "%{size_download}",
			"https://localhost/file?cacheHostOrigin=cdn.test").CombinedOutput()
		if err != nil || string(out) != fmt.Sprint(size) {
			return fmt.Errorf("%s, %w", out, err)
		}
		return nil
	})
	client("openssl s_client", func() error {
		cmd := exec.CommandContext(ctx, "openssl", "s_client", "-connect", s.HTTPS, "-servername", "localhost", "-CAfile", s.path("root.pem"), "-verify_return_error", "-quiet", "-ign_eof")
		cmd.Stdin = strings.NewReader("GET /file HTTP/1.1\r\nHost: cdn.test\r\nConnection: close\r\n\r\n")
		out, err := cmd.Output()
		if err != nil || !bytes.HasPrefix(out, []byte("HTTP/1.1 200 OK\r\n")) || !bytes.HasSuffix(out, want[size-1000:]) {
			return fmt.Errorf("%.100q, %w", out, err)
		}
		return nil
	})
	client("Delivery Optimization", func() error {
		c := &lardertest.DOClient{CacheHost: s.HTTPS, Roots: config.RootCAs, Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
		defer c.Close()
		var file bytes.Buffer
		r, err := c.Download(ctx, "https://cdn.test/file", &file)
		switch {
		case err != nil:
			return err
		case r.State != lardertest.Transferred || len(r.Attempts) != 1 || r.Attempts[0].To != "cache" || !bytes.Equal(file.Bytes(), want):
			return fmt.Errorf("%+v", r)
		}
		return nil
	})

	seen := map[string]bool{s.shown(t).SerialNumber.String(): true}
	began := time.Now()
	for i := range renewals {
		if i%10 == 0 {
			must(t, "tls", "renew", "--dir", s.tls) // by the command
		} else if status, body := s.post(t, "/api/larder/v1/tls/renew"); status != http.StatusOK {
			t.Fatalf("renewal %d: %d %s", i+1, status, body)
		}
		seen[s.shown(t).SerialNumber.String()] = true
		// The requests are spread over the renewals.
		for done.Load() < least*int64(i+1)/int64(renewals) && failed.Load() == 0 {
			if err := get(kept); err != nil {
				t.Fatal(err)
			}
		}
	}
	took := time.Since(began)
	stop()
	clients.Wait()
	if len(seen) != renewals+1 {
		t.Errorf("clients saw %d certificates, want %d", len(seen), renewals+1)
	}
	if done.Load() < least || failed.Load() != 0 {
		t.Errorf("%d requests, %d failed; want at least %d and none", done.Load(), failed.Load(), least)
	}
	for kind, n := range kinds {
		t.Logf("%s: %d requests", kind, n.Load())
		if n.Load() == 0 {
			t.Errorf("%s: not one request", kind)
		}
	}
	t.Logf("%d renewals in %v, %d requests, %d failed", renewals, took.Round(time.Millisecond), done.Load(), failed.Load())
	if got := s.Metric("larder_tls_renewals_total"); got != float64(renewals+1) {
		t.Errorf("the metric counts %v renewals, want %d", got, renewals+1)
	}
}

// post makes an admin call.
func (s *site) post(t testing.TB, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Admin+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
