package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// The table of what the real Delivery Optimization agent for Linux did with
// servers good and bad (docs/protocol.md), row by row, with a node in the
// place of the server. Where a row is about a server that misbehaves it is the
// origin that does so here, and the node that must keep it from the client.

const (
	rowPath = "/msdownload/file.cab"
	rowSize = 1 << 20
)

// tlsPublisher is labPublisher with an origin that is asked over TLS.
const tlsPublisher = `
name: cdn
hosts: [cdn.test, "*.cdn.test"]
freshness: immutable
origin: {scheme: https, address: "$TLSORIGIN", ca: "$CA"}
`

// A row is a test of one row of the table over one scheme.
type row struct {
	*testing.T
	*lab
	scheme string
	cdn    *lardertest.Origin // where the client goes when it leaves the node
	c      *lardertest.DOClient
	file   bytes.Buffer
	last   *lardertest.Result
}

// doRows are the rows: number, sentence, and what is to be seen.
var doRows = []struct {
	number  int
	name    string
	schemes string // default: both
	listen  string // default 127.0.0.1:0
	run     func(r *row)
}{
	{number: 1, name: "a whole answer comes right and path and query go upstream byte for byte", run: rowWhole},
	{number: 2, name: "a port in the policy and none in the URL", run: func(r *row) {
		r.whole(r.download())
		r.wantAsked("cache@0")
	}},
	{number: 3, name: "ports in the policy and in the URL are an invalid URL and nobody is asked", run: func(r *row) {
		r.invalid(r.downloadURL(r.scheme + "://cdn.test:8080" + rowPath))
	}},
	{number: 4, name: "a list of hosts is an invalid URL and nobody is asked", run: func(r *row) {
		r.c.CacheHost = "127.0.0.1,127.0.0.2"
		r.invalid(r.download())
	}},
	{number: 5, name: "an IPv6 address is a cache host", listen: "[::1]:0", run: func(r *row) {
		r.whole(r.download())
		r.wantAsked("cache@0")
	}},
	{number: 6, name: "a client error of the origin is passed on and sends the client to the CDN for this host only", run: rowClientErrors},
	{number: 7, name: "a fallback policy does not help against 404", run: func(r *row) {
		r.c.Fallback = lardertest.FallbackAfter(time.Minute)
		r.origin.SetEvery(lardertest.Behaviour{Status: 404})
		r.whole(r.download())
		r.wantAsked("cache@0 cdn@0")
	}},
	{number: 8, name: "404 with fallback forbidden ends the download", run: func(r *row) {
		r.c.Fallback = lardertest.FallbackNever()
		r.origin.SetEvery(lardertest.Behaviour{Status: 404})
		res := r.download()
		r.wantAsked("cache@0")
		if res.State != lardertest.Paused || res.ErrorCode != lardertest.ErrStatusNotFound || len(r.cdn.Requests()) != 0 {
			r.Errorf("got %s, %v, %d requests to the CDN", res.State, res.ErrorCode, len(r.cdn.Requests()))
		}
	}},
	{number: 9, name: "server errors of the origin send the client to the CDN and it comes back", run: rowServerErrors},
	{number: 10, name: "server errors with a fallback policy are tried again at the node until it is over", run: func(r *row) {
		r.c.Fallback = lardertest.FallbackAfter(10 * time.Second)
		r.origin.SetEvery(lardertest.Behaviour{Status: 503})
		r.whole(r.download())
		r.wantAsked("cache@0 cache@2 cache@6 cdn@14")
		r.wantBan("none")
		r.wantStatuses(503, 503, 503, 200)
	}},
	{number: 11, name: "a node that is down costs nothing and is banned for all hosts", run: func(r *row) {
		r.Kill()
		r.whole(r.download())
		r.wantAsked("cache@0 cdn@0")
		r.wantBan("")
	}},
	{number: 12, name: "an origin that hangs is a 504 before the client's patience ends, so nobody is banned", run: rowHang},
	{number: 13, name: "a body that the origin cuts is completed by the node", run: func(r *row) {
		r.origin.Set(rowPath, lardertest.Behaviour{Truncate: true, After: rowSize / 2}, lardertest.Behaviour{})
		r.whole(r.download())
		r.wantAsked("cache@0")
		r.wantSent(r.T, rowPath, rowSize, rowSize)
	}},
	{number: 13, name: "a body that nobody can complete is cut and resumed at the CDN", run: rowCutForGood},
	{number: 14, name: "an origin that answers 200 to a range never corrupts a file", run: func(r *row) {
		rowResume(r, lardertest.Behaviour{IgnoreRange: true})
	}},
	{number: 15, name: "an origin without a length is given one", run: func(r *row) {
		r.origin.SetEvery(lardertest.Behaviour{Chunked: true})
		r.whole(r.download())
		r.wantAsked("cache@0")
	}},
	{number: 16, name: "lower-case field names of the origin become canonical", run: func(r *row) {
		r.origin.SetEvery(lardertest.Behaviour{LowerCase: true})
		r.whole(r.download())
		r.wantAsked("cache@0")
		r.wantCanonical()
	}},
	{number: 17, name: "lower-case names and a cut body at the origin do not kill the agent", run: func(r *row) {
		r.c.Fallback = lardertest.FallbackAfter(time.Minute)
		r.origin.Set(rowPath, lardertest.Behaviour{LowerCase: true, Truncate: true, After: rowSize / 2}, lardertest.Behaviour{LowerCase: true})
		r.whole(r.download())
		r.wantAsked("cache@0")
		r.wantCanonical()
	}},
	{number: 18, name: "a 206 with lower-case names at the origin is a good 206 at the client", run: func(r *row) {
		rowResume(r, lardertest.Behaviour{LowerCase: true})
		r.wantCanonical()
	}},
	{number: 19, name: "a redirect of the origin is followed inside the node", run: rowRedirect},
	{number: 19, name: "a redirect out of the catalogue is no redirect for the client either", run: func(r *row) {
		r.origin.Set(rowPath, lardertest.Behaviour{Status: 302, Location: "http://elsewhere.test" + rowPath})
		res := r.download()
		r.whole(res)
		r.wantAsked("cache@0 cdn@0")
		r.wantStatuses(502, 200)
		r.wantBan("none")
	}},
	{number: 20, name: "a trusted certificate with the node's address is good", schemes: "https", run: func(r *row) {
		r.whole(r.download())
		r.wantAsked("cache@0")
		if got := r.last.Attempts[0].Proto; got != "HTTP/1.1" {
			r.Errorf("spoke %s", got)
		}
	}},
	{number: 21, name: "a client that offers HTTP/2 gets HTTP/1.1", schemes: "https", run: rowALPN},
	{number: 22, name: "an untrusted certificate sends the client to the CDN without a ban and it comes back", schemes: "https", run: func(r *row) {
		r.c.Roots = r.cdn.CA.Pool()
		busy := lardertest.Behaviour{Status: 503}
		r.cdn.SetEvery(busy, busy, lardertest.Behaviour{})
		r.whole(r.download())
		r.wantAsked("cache@0 cdn@0 cdn@2 cache@6 cache@14 cdn@30")
		r.wantBan("none")
		if got := r.last.Attempts[0].Err; got != lardertest.ErrUntrusted {
			r.Errorf("the first try ended with %v, want %v", got, lardertest.ErrUntrusted)
		}
	}},
}

func TestDeliveryOptimizationRows(t *testing.T) {
	t.Parallel()
	for _, tt := range doRows {
		if tt.schemes == "" {
			tt.schemes = "http https"
		}
		for _, scheme := range strings.Fields(tt.schemes) {
			t.Run(fmt.Sprintf("row %d: %s (%s)", tt.number, tt.name, scheme), func(t *testing.T) {
				t.Parallel()
				tt.run(newRow(t, scheme, tt.listen))
			})
		}
	}
}

func newRow(t *testing.T, scheme, listen string) *row {
	t.Helper()
	o := labOptions{yaml: lardertest.DefaultNodeConfig}
	if listen != "" {
		ln, err := net.Listen("tcp", listen)
		if err != nil {
			t.Skipf("this machine cannot listen on %s: %v", listen, err)
		}
		_ = ln.Close()
		o.yaml = strings.Replace(o.yaml, `http: ["127.0.0.1:0"]`, `http: ["`+listen+`"]`, 1)
		o.yaml = strings.Replace(o.yaml, `https: ["127.0.0.1:0"]`, `https: ["`+listen+`"]`, 1)
	}
	if scheme == "https" {
		o.publisher = tlsPublisher
	}
	r := &row{T: t, lab: newLab(t, o), scheme: scheme, cdn: lardertest.NewOrigin(t, cdnHost, "elsewhere.test")}
	r.origin.Add(rowPath, rowSize)
	r.cdn.Add(rowPath, rowSize)
	roots := r.ca.Pool()
	roots.AddCert(r.cdn.CA.Cert)
	addr, _ := r.addr(scheme)
	r.c = &lardertest.DOClient{
		CacheHost: addr,
		Roots:     roots,
		Connect: map[string]string{
			"cdn.test:80": r.cdn.Addr, "cdn.test:443": r.cdn.TLSAddr,
			"elsewhere.test:80": r.cdn.Addr, "elsewhere.test:443": r.cdn.TLSAddr,
		},
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	t.Cleanup(r.c.Close)
	return r
}

func (r *row) download() *lardertest.Result {
	r.Helper()
	return r.downloadURL(r.scheme + "://" + cdnHost + rowPath)
}

func (r *row) downloadURL(url string) *lardertest.Result {
	r.Helper()
	r.file.Reset()
	res, err := r.c.Download(r.Context(), url, &r.file)
	if err != nil {
		r.Fatal(err)
	}
	r.last = res
	return res
}

// whole fails the test unless the client believes that the file is right, and
// it is, and no answer of the node was more or less than its head said.
func (r *row) whole(res *lardertest.Result) {
	r.Helper()
	wrong := lardertest.Content(rowPath, 1, rowSize).Wrong(r.file.Bytes(), 0)
	if res.State != lardertest.Transferred || res.BytesTotal != rowSize || res.Corrupted || res.Bytes != rowSize || wrong != 0 {
		r.Errorf("got %s %v, %d of %d bytes, corrupted %v, %d wrong\n%s", res.State, res.ErrorCode, res.Bytes, res.BytesTotal, res.Corrupted, wrong, r.story())
	}
}

func (r *row) invalid(res *lardertest.Result) {
	r.Helper()
	if res.State != lardertest.Paused || res.ErrorCode != lardertest.ErrInvalidURL {
		r.Errorf("got %s, %v", res.State, res.ErrorCode)
	}
	if n := len(r.origin.Requests()) + len(r.cdn.Requests()); n != 0 {
		r.Errorf("%d requests were made", n)
	}
}

// story tells what the client did.
func (r *row) story() string {
	var b strings.Builder
	for _, a := range r.last.Attempts {
		fmt.Fprintf(&b, "  %s@%d %s: %d %v, %d bytes, %v\n", a.To, int(a.At.Seconds()), a.Range, a.Status, a.Err, a.Bytes, a.Cause)
	}
	return b.String() + r.askedFor(rowPath)
}

// wantAsked compares whom the client asked and when, in its own seconds.
func (r *row) wantAsked(want string) {
	r.Helper()
	var words []string
	for _, a := range r.last.Attempts {
		words = append(words, fmt.Sprintf("%s@%d", a.To, int(a.At.Seconds())))
	}
	if got := strings.Join(words, " "); got != want {
		r.Errorf("asked %s, want %s\n%s", got, want, r.story())
	}
}

func (r *row) wantStatuses(want ...int) {
	r.Helper()
	var got []int
	for _, a := range r.last.Attempts {
		got = append(got, a.Status)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.Errorf("statuses %v, want %v", got, want)
	}
}

// wantBan fails unless exactly one ban is in force, for that original host;
// "": for all, "none": there is no ban.
func (r *row) wantBan(host string) {
	r.Helper()
	bans := r.last.Bans
	if host == "none" && len(bans) == 0 {
		return
	}
	if host == "none" || len(bans) != 1 || bans[0].Host != host {
		r.Errorf("bans %v, want %q", bans, host)
	}
}

// wantCanonical fails unless the node wrote field names as this client needs them.
func (r *row) wantCanonical() {
	r.Helper()
	for _, a := range r.last.Attempts {
		if a.To != "cache" {
			continue
		}
		for _, f := range a.Fields {
			switch strings.ToLower(f.Name) {
			case "content-length", "content-range", "content-type", "accept-ranges", "etag", "last-modified", "date":
				if f.Name == strings.ToLower(f.Name) {
					r.Errorf("the node sent %s: %s", f.Name, f.Value)
				}
			}
		}
	}
}

func rowWhole(r *row) {
	const path = "/ok/a%2Fb;c=1/d+e%20f"
	r.origin.Add(path, rowSize)
	res := r.downloadURL(r.scheme + "://" + cdnHost + path + "?x=%25&y=a+b")
	if res.State != lardertest.Transferred || res.BytesTotal != rowSize || lardertest.Content(path, 1, rowSize).Wrong(r.file.Bytes(), 0) != 0 {
		r.Errorf("got %s, %v, %d of %d bytes", res.State, res.ErrorCode, res.Bytes, res.BytesTotal)
	}
	r.wantAsked("cache@0")
	for _, a := range res.Attempts {
		if !strings.HasSuffix(a.URL, path+"?x=%25&y=a+b&cacheHostOrigin="+cdnHost) {
			r.Errorf("the node was asked for %s", a.URL)
		}
	}
	for _, q := range r.origin.Requests() {
		if q.Target != path+"?x=%25&y=a+b" || q.Host != cdnHost || q.TLS != (r.scheme == "https") {
			r.Errorf("the origin was asked for %s at %s, TLS %v", q.Target, q.Host, q.TLS)
		}
		if q.Header.Get("Accept-Encoding") != "identity" || q.Header.Get("X-Forwarded-For") != "" || !strings.Contains(q.Header.Get("Via"), "larder-") {
			r.Errorf("sent upstream:\n%s", q.Head)
		}
	}
}

func rowClientErrors(r *row) {
	for _, status := range []int{404, 403, 416, 429} {
		r.c.Skip(time.Hour) // bans end
		path := fmt.Sprintf("/status/%d", status)
		r.cdn.Add(path, rowSize)
		r.origin.Set(path, lardertest.Behaviour{Status: status})
		res := r.downloadURL(r.scheme + "://" + cdnHost + path)
		if res.State != lardertest.Transferred {
			r.Errorf("%d: got %s, %v", status, res.State, res.ErrorCode)
		}
		r.wantAsked("cache@0 cdn@0")
		r.wantStatuses(status, 200)
		r.wantBan(cdnHost)
		// Other hosts' content still comes from the node.
		other := fmt.Sprintf("/other/%d", status)
		r.origin.Add(other, rowSize)
		r.downloadURL(r.scheme + "://eu.cdn.test" + other)
		r.wantAsked("cache@0")
	}
	// A host that is not in the catalogue is a client error, too.
	r.c.Skip(time.Hour)
	r.downloadURL(r.scheme + "://elsewhere.test" + rowPath)
	r.wantAsked("cache@0 cdn@0")
	r.wantStatuses(403, 200)
	r.wantBan("elsewhere.test")
}

func rowServerErrors(r *row) {
	for status, want := range map[int]int{500: 502, 502: 502, 503: 503, 507: 502} {
		path := fmt.Sprintf("/status/%d", status)
		for _, o := range []*lardertest.Origin{r.origin, r.cdn} {
			o.Add(path, rowSize)
		}
		r.origin.Set(path, lardertest.Behaviour{Status: status})
		busy := lardertest.Behaviour{Status: 503}
		r.cdn.Set(path, busy, busy, busy)
		pauses := 0
		r.c.Wait = func(ctx context.Context, _ time.Duration) error {
			// The origin recovers, and the node may remember for seconds that
			// it did not answer.
			if pauses++; pauses == 2 {
				r.origin.Set(path)
				lardertest.Eventually(r.T, "the node asks the origin again", func() bool {
					addr, tls := r.addr(r.scheme)
					return ask(r.T, question{addr: addr, tls: tls, method: "HEAD", target: path}).status == 200
				})
			}
			return ctx.Err()
		}
		begun := time.Now()
		res := r.downloadURL(r.scheme + "://" + cdnHost + path)
		if res.State != lardertest.Transferred || res.BytesTotal != rowSize {
			r.Errorf("%d: got %s, %v", status, res.State, res.ErrorCode)
		}
		r.wantAsked("cache@0 cdn@0 cdn@2 cache@6")
		r.wantStatuses(want, 503, 503, 200)
		r.wantBan("none")
		if took := time.Since(begun); took > 20*time.Second {
			r.Errorf("%d: took %v", status, took)
		}
	}
}

func rowHang(r *row) {
	limit := 12 * time.Second // the node's patience is 10 s
	if lardertest.Race {
		limit = 20 * time.Second
	}
	r.origin.SetEvery(lardertest.Behaviour{Hang: true})
	begun := time.Now()
	r.whole(r.download())
	took := time.Since(begun)
	r.wantAsked("cache@0 cdn@0")
	r.wantStatuses(504, 200)
	r.wantBan("none")
	if took > limit {
		r.Errorf("the client left the node after %v, want at most %v", took, limit)
	}
}

func rowCutForGood(r *row) {
	r.origin.Set(rowPath, lardertest.Behaviour{Truncate: true, After: rowSize / 2}, lardertest.Behaviour{Truncate: true})
	res := r.download()
	r.whole(res)
	r.wantAsked("cache@0 cdn@0")
	r.wantBan("none")
	if a := res.Attempts[0]; a.Err != lardertest.ErrShortBody || a.Bytes > rowSize/2 {
		r.Errorf("the node's answer ended with %v after %d bytes", a.Err, a.Bytes)
	}
	if q := r.cdn.Requests(); len(q) == 1 && q[0].Range != fmt.Sprintf("bytes=%d-%d", res.Attempts[0].Bytes, rowSize-1) {
		r.Errorf("the CDN was asked for %q after %d bytes", q[0].Range, res.Attempts[0].Bytes)
	}
}

// rowResume makes the client resume at the node with a Range, which the origin
// then meets with later.
func rowResume(r *row, later lardertest.Behaviour) {
	r.Helper()
	r.c.Fallback = lardertest.FallbackAfter(time.Minute)
	lost := later
	lost.Truncate = true
	first := lost
	first.After = rowSize / 2
	first.Pace = 2 * rowSize // the client has bytes before the answer breaks off
	r.origin.Set(rowPath, first, lost)
	r.c.Wait = func(ctx context.Context, _ time.Duration) error {
		r.origin.Set(rowPath, later)
		return ctx.Err()
	}
	res := r.download()
	r.whole(res)
	r.wantAsked("cache@0 cache@2")
	r.wantStatuses(200, 206)
	r.wantBan("none")
}

func rowRedirect(r *row) {
	r.origin.Set(rowPath, lardertest.Behaviour{Status: 302, Location: r.scheme + "://eu.cdn.test/moved?to=here"})
	r.origin.AddBytes("/moved", content(rowPath, rowSize))
	res := r.download()
	r.whole(res)
	r.wantAsked("cache@0")
	if len(res.Attempts[0].Redirects) != 0 || res.Attempts[0].Status != 200 {
		r.Errorf("the client saw %d and went to %v", res.Attempts[0].Status, res.Attempts[0].Redirects)
	}
	q := r.origin.RequestsFor("/moved")
	if len(q) != 1 || q[0].Host != "eu.cdn.test" || q[0].Target != "/moved?to=here" || q[0].Range == "" {
		r.Errorf("behind the redirect the origin was asked for %+v", q)
	}
}

func rowALPN(r *row) {
	res := r.download()
	r.whole(res)
	if got := res.Attempts[0].Proto; got != "HTTP/1.1" {
		r.Errorf("spoke %s", got)
	}
	addr, config := r.addr("https")
	for _, offer := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}, nil} {
		config.NextProtos = offer
		if got := handshake(r.T, addr, config).NegotiatedProtocol; got == "h2" {
			r.Errorf("offered %v: the node chose %q", offer, got)
		}
	}
}

// content returns the bytes of version 1 at path.
func content(path string, size int64) []byte {
	b := make([]byte, size)
	lardertest.Content(path, 1, size).Fill(b, 0)
	return b
}
