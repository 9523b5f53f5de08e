package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// What other caches got wrong, one test for each.

const mib = 1 << 20

func TestTrapUnanchoredHostMatch(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/a", 1000)
	for _, host := range []string{
		"cdn.test.evil.example", "evilcdn.test", "cdn.test.", "xcdn.test", "cdn.testx", "cdn-test", "test",
		"eu.cdn.test.evil.example", "evil.example/cdn.test", "cdn.test@evil.example", "evil.example#cdn.test", "*.cdn.test",
	} {
		for form, q := range map[string]question{
			"Host":            {target: "/a", host: host},
			"cacheHostOrigin": {target: "/a?cacheHostOrigin=" + host, host: "node"},
			"absolute":        {target: "http://" + host + "/a", host: "node"},
		} {
			q.addr = l.HTTP
			want := http.StatusForbidden
			switch {
			case host == "cdn.test.":
				want = http.StatusOK // the same name, written as DNS does
			case strings.ContainsAny(host, "/@#*"):
				want = http.StatusBadRequest // no name at all
			}
			r := ask(t, q)
			if form == "absolute" && host == "evil.example/cdn.test" {
				want = http.StatusForbidden // there a path begins
			}
			if r.status != want {
				t.Errorf("%s %q: got %d, want %d: %s", form, host, r.status, want, r.body)
			}
			if want != http.StatusOK {
				r.wantSentence(t)
			}
		}
	}
	for _, q := range l.origin.Requests() {
		if q.Host != cdnHost {
			t.Errorf("the origin was asked for %s at %s", q.Target, q.Host)
		}
	}
	// What was asked for under a foreign name has not filled anybody's entry.
	l.get(t, "/a").wantContent(t, "/a", 1, 1000, 0, 1000)
}

func TestTrapMixedVersions(t *testing.T) {
	t.Parallel()
	const size = 6 * mib
	for _, tt := range []struct {
		name string
		how  lardertest.Behaviour
	}{
		{"strong", lardertest.Behaviour{}},
		{"Last-Modified alone", lardertest.Behaviour{Validators: lardertest.LastModified}},
		{"ETag alone", lardertest.Behaviour{Validators: lardertest.StrongETag}},
		{"weak ETag", lardertest.Behaviour{Validators: lardertest.WeakETag}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			const path = "/changing"
			l.origin.Add(path, size)
			l.origin.Set(path, tt.how)
			l.get(t, path, "Range: bytes=0-1").wantContent(t, path, 1, size, 0, 2)
			l.get(t, path, "Range: bytes=3145728-3145729").wantContent(t, path, 1, size, 3*mib, 3*mib+2)
			l.origin.SetVersion(path, 2, size)

			// The first may be cut, because its head was out; none is mixed.
			lardertest.Eventually(t, "the new version comes whole", func() bool {
				r := l.get(t, path)
				r2 := lardertest.Content(path, 2, size).Wrong(r.body, 0)
				r1 := lardertest.Content(path, 1, size).Wrong(r.body, 0)
				if r.status == http.StatusOK && r1 != 0 && r2 != 0 {
					t.Fatalf("mixed: of %d bytes %d are not version 1 and %d are not version 2", len(r.body), r1, r2)
				}
				return r.status == http.StatusOK && r.err == nil && len(r.body) == size && r2 == 0
			})
		})
	}
}

func TestTrapSuffixRangeFetchesTheBeginning(t *testing.T) {
	t.Parallel()
	const size = 16*mib + 7
	l := newLab(t, labOptions{})
	l.origin.Add("/big", size)
	l.get(t, "/big", "Range: bytes=-100").wantContent(t, "/big", 1, size, size-100, size)
	lardertest.Eventually(t, "the fetch is over", func() bool { return l.Metric("larder_fill_active_runs") == 0 })
	// One byte tells the length; the last chunk has 7 bytes, so two are touched.
	l.wantSent(t, "/big", 100, mib+7+1)
	l.get(t, "/big", "Range: bytes=-16777223").wantContent(t, "/big", 1, size, 0, size)
	l.get(t, "/big", "Range: bytes=-99999999999").wantContent(t, "/big", 1, size, 0, size)
	l.wantSent(t, "/big", size, size+1)
}

// parts reads a multipart/byteranges body into Content-Range → bytes, in order.
func parts(t *testing.T, r *reply) (ranges []string, bodies [][]byte) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type %q: %v\n%s", r.header.Get("Content-Type"), err, r.head)
	}
	in := multipart.NewReader(bytes.NewReader(r.body), params["boundary"])
	for {
		p, err := in.NextRawPart()
		if err == io.EOF {
			return ranges, bodies
		}
		if err != nil {
			t.Fatalf("after %d parts: %v", len(ranges), err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		ranges, bodies = append(ranges, p.Header.Get("Content-Range")), append(bodies, b)
	}
}

func TestTrapMultiRangeAmplification(t *testing.T) {
	t.Parallel()
	const size = 16 * mib
	l := newLab(t, labOptions{})
	l.origin.Add("/big", size)

	// Two small ranges far apart cost two chunks, not the file.
	r := l.get(t, "/big", "Range: bytes=0-9,10485760-10485769")
	r.want(t, http.StatusPartialContent)
	ranges, bodies := parts(t, r)
	if fmt.Sprint(ranges) != "[bytes 0-9/16777216 bytes 10485760-10485769/16777216]" {
		t.Errorf("parts %q", ranges)
	}
	for i, off := range []int64{0, 10 * mib} {
		if i < len(bodies) && (len(bodies[i]) != 10 || lardertest.Content("/big", 1, size).Wrong(bodies[i], off) != 0) {
			t.Errorf("part %d: %d bytes, or wrong ones", i, len(bodies[i]))
		}
	}
	if got := r.header.Get("Content-Length"); got != fmt.Sprint(len(r.body)) {
		t.Errorf("Content-Length %s for %d bytes", got, len(r.body))
	}
	lardertest.Eventually(t, "the fetch is over", func() bool { return l.Metric("larder_fill_active_runs") == 0 })
	l.wantSent(t, "/big", 20, 2*mib+1)

	// The same bytes over and over are sent once.
	r = l.get(t, "/big", "Range: bytes="+strings.TrimSuffix(strings.Repeat("0-,", 500), ","))
	r.wantContent(t, "/big", 1, size, 0, size)
	var some []string
	for i := range 400 {
		some = append(some, fmt.Sprintf("%d-%d", i*10000, i*10000+1)) // far enough apart to be many
	}
	r = l.get(t, "/big", "Range: bytes="+strings.Join(some, ","))
	r.want(t, http.StatusRequestedRangeNotSatisfiable)
	r = l.get(t, "/big", "Range: bytes=0-99,50-149,150-199,100-120")
	r.wantContent(t, "/big", 1, size, 0, 200)
	l.wantSent(t, "/big", size, size+1)
}

func TestTrapWholeAnswerToARangedFill(t *testing.T) {
	t.Parallel()
	const size = 5*mib + 3
	l := newLab(t, labOptions{})
	l.origin.Add("/whole", size)
	l.origin.Set("/whole", lardertest.Behaviour{IgnoreRange: true})
	l.get(t, "/whole", "Range: bytes=2097152-3145727").wantContent(t, "/whole", 1, size, 2*mib, 3*mib)
	l.get(t, "/whole", "Range: bytes=0-1").wantContent(t, "/whole", 1, size, 0, 2)
	l.get(t, "/whole", "Range: bytes=-5").wantContent(t, "/whole", 1, size, size-5, size)
	l.get(t, "/whole").wantContent(t, "/whole", 1, size, 0, size)
	l.wantSent(t, "/whole", size, size)
	if n := len(l.origin.RequestsFor("/whole")); n != 1 {
		t.Errorf("the origin was asked %d times:\n%s", n, l.askedFor("/whole"))
	}
	// It is remembered: the next file is asked for whole at once, and streamed.
	l.origin.Add("/next", size)
	l.origin.Set("/next", lardertest.Behaviour{IgnoreRange: true})
	l.get(t, "/next", "Range: bytes=0-1").wantContent(t, "/next", 1, size, 0, 2)
	if q := l.origin.RequestsFor("/next"); len(q) != 1 || q[0].Range != "" {
		t.Errorf("the next file was asked for so:\n%s", l.askedFor("/next"))
	}
}

func TestTrapSetCookieStopsCaching(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/cookie", 1000)
	l.origin.Set("/cookie", lardertest.Behaviour{Header: []string{
		"Set-Cookie: who=me", "Vary: *", "Cache-Control: private, no-store", "Pragma: no-cache", "Expires: 0",
	}})
	for i := range 3 {
		r := l.get(t, "/cookie", fmt.Sprintf("Cookie: who=%d", i))
		r.wantContent(t, "/cookie", 1, 1000, 0, 1000)
		for _, name := range []string{"Set-Cookie", "Vary"} {
			if v := r.header.Get(name); v != "" {
				t.Errorf("%s: %s was replayed", name, v)
			}
		}
	}
	l.wantSent(t, "/cookie", 1000, 1000)
	if got := l.origin.RequestsFor("/cookie")[0].Header.Get("Cookie"); got != "" {
		t.Errorf("the cookie %q of a client went upstream for content that all share", got)
	}
}

func TestTrapLastPieceBehindTheEnd(t *testing.T) {
	t.Parallel()
	const size = 2*mib + mib/2
	l := newLab(t, labOptions{})
	for i, q := range []struct {
		ask      string
		from, to int64
	}{
		{"bytes=2097152-3145727", 2 * mib, size},
		{"bytes=2097152-", 2 * mib, size},
		{"bytes=0-99999999", 0, size},
		{"bytes=-9", size - 9, size},
		{"", 0, size},
	} {
		path := fmt.Sprintf("/strict/%d", i)
		l.origin.Add(path, size)
		l.origin.Set(path, lardertest.Behaviour{StrictRange: true})
		var fields []string
		if q.ask != "" {
			fields = []string{"Range: " + q.ask}
		}
		l.get(t, path, fields...).wantContent(t, path, 1, size, q.from, q.to)
		l.get(t, path).wantContent(t, path, 1, size, 0, size)
		l.wantSent(t, path, size, size+1+64) // and the text of a 416
	}
}

func TestTrapLockOutlivesTheClient(t *testing.T) {
	t.Parallel()
	const size = 3 * mib
	l := newLab(t, labOptions{}) // with the patience that nodes have by default
	l.origin.Add("/locked", size)
	// Whoever was first stalls for ever; nobody who comes later may wait for it.
	l.origin.Set("/locked", lardertest.Behaviour{Stall: true, After: mib / 2}, lardertest.Behaviour{})
	replies := make(chan *reply, 4)
	for range 4 {
		go func() {
			r, err := question{addr: l.HTTP, target: "/locked"}.send(t.Context())
			if err != nil {
				t.Error(err)
			}
			replies <- r
		}()
	}
	for range 4 {
		if r := <-replies; r != nil {
			r.wantContent(t, "/locked", 1, size, 0, size)
			if r.whole > 8*time.Second {
				t.Errorf("the file took %v; a fetch without progress is overtaken after 5 s", r.whole)
			}
		}
	}
	l.wantSent(t, "/locked", size, size+mib)
}

func TestTrapRedirectCachedOrLooped(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/target", 1000)
	l.origin.Add("/other", 2000)
	l.origin.Set("/moved", lardertest.Behaviour{Status: 301, Location: "/target", Header: []string{"Cache-Control: max-age=31536000"}})
	r := l.get(t, "/moved")
	r.want(t, http.StatusOK)
	if lardertest.Content("/target", 1, 1000).Wrong(r.body, 0) != 0 || r.header.Get("Location") != "" {
		t.Errorf("not what the redirect led to:\n%s", r.head)
	}

	// A redirect into nothing is not kept: when it is mended, all is well.
	l.origin.Set("/broken", lardertest.Behaviour{Status: 301, Location: "http://elsewhere.test/target"})
	r = l.get(t, "/broken")
	r.want(t, http.StatusBadGateway)
	r.wantQuick(t, 3*time.Second)
	l.origin.Set("/broken", lardertest.Behaviour{Status: 302, Location: "//eu.cdn.test/other"})
	lardertest.Eventually(t, "the mended redirect is followed", func() bool { return l.get(t, "/broken").status == http.StatusOK })

	// A ring ends soon.
	l.origin.Set("/ring", lardertest.Behaviour{Status: 301, Location: "/gnir"})
	l.origin.Set("/gnir", lardertest.Behaviour{Status: 301, Location: "/ring"})
	r = l.get(t, "/ring")
	r.want(t, http.StatusBadGateway)
	r.wantQuick(t, 3*time.Second)
	if n := len(l.origin.RequestsFor("/ring")) + len(l.origin.RequestsFor("/gnir")); n > 6 {
		t.Errorf("%d requests went round the ring", n)
	}
}

func TestTrapSignatureExpiresWhileFilling(t *testing.T) {
	t.Parallel()
	const size = 3 * mib
	l := newLab(t, labOptions{})
	l.origin.Add("/signed", size)
	// What began with the old signature breaks off and cannot be continued with it.
	l.origin.Set("/signed",
		lardertest.Behaviour{Truncate: true, After: mib + mib/2},
		lardertest.Behaviour{Status: 403})
	r := l.get(t, "/signed?P1=old")
	if r.status != http.StatusOK || r.err == nil || lardertest.Content("/signed", 1, size).Wrong(r.body, 0) != 0 {
		t.Errorf("the first answer: %d, %d bytes, %v; want a cut one", r.status, len(r.body), r.err)
	}
	l.origin.Set("/signed")
	before := len(l.origin.RequestsFor("/signed"))
	l.get(t, "/signed?P1=new").wantContent(t, "/signed", 1, size, 0, size)
	for _, q := range l.origin.RequestsFor("/signed")[before:] {
		if q.Target != "/signed?P1=new" {
			t.Errorf("the origin was asked for %s after a new signature had come", q.Target)
		}
	}
	// What was whole is not fetched again.
	l.wantSent(t, "/signed", size, size+mib)

	// A signature refused at once is this client's trouble alone.
	l.origin.Add("/signed2", size)
	l.origin.Set("/signed2", lardertest.Behaviour{Status: 403}, lardertest.Behaviour{})
	l.get(t, "/signed2?P1=old").want(t, http.StatusForbidden)
	l.get(t, "/signed2?P1=new").wantContent(t, "/signed2", 1, size, 0, size)
}

func TestTrapBudgetAboveTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := strings.Replace(lardertest.DefaultNodeConfig, "size: 1GB", "size: 900TB", 1)
	name := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(config, "$DIR", filepath.ToSlash(dir))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"state", "drive", "catalog.d"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), lardertest.Binary(t), "node", "check", "--config", name).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("drives[0].size")) {
		t.Errorf("node check: %v\n%s\nwant a complaint about drives[0].size", err, out)
	}
}

func TestTrapBodiesInMemory(t *testing.T) {
	t.Parallel()
	needTime(t)
	const size = 192 * mib
	l := newLab(t, labOptions{})
	l.origin.Add("/huge", size)
	for _, when := range []string{"cold", "warm"} {
		q := question{addr: l.HTTP, target: "/huge"}
		conn, err := q.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, body, err := q.sendOn(conn)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, body)
		_ = conn.Close()
		if err != nil || n != size || r.status != http.StatusOK {
			t.Fatalf("%s: %d, %d bytes, %v", when, r.status, n, err)
		}
		if rss := l.Metric("process_resident_memory_bytes"); rss > 150e6 && !lardertest.Race {
			t.Errorf("%s: %.0f MB resident after a file of %d MiB", when, rss/1e6, size/mib)
		}
	}
	l.wantSent(t, "/huge", size, size)
}

func TestTrapSpacesAndNonASCII(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "Größe & Maß – 更新 %41 'x' #1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, labOptions{dir: dir})
	for _, path := range []string{"/a%20b/%C3%BC.bin", "/100%25/x+y", "/%E6%9B%B4%E6%96%B0"} {
		l.origin.Add(path, 2*mib)
		for range 2 {
			l.get(t, path).wantContent(t, path, 1, 2*mib, 0, 2*mib)
		}
		l.wantSent(t, path, 2*mib, 2*mib)
	}
	// It is all there after a restart.
	if err := l.Stop(); err != nil {
		t.Fatalf("stopping: %v\n%s", err, l.Output())
	}
	l.origin.Refuse()
	again := newLab(t, labOptions{dir: dir, origin: l.origin})
	again.get(t, "/a%20b/%C3%BC.bin").wantContent(t, "/a%20b/%C3%BC.bin", 1, 2*mib, 0, 2*mib)
}

func TestTrapNegativeCachingOfManifests(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{publisher: strings.Replace(labPublisher, "freshness: immutable",
		"freshness: immutable\nrules: [{path: \"*.json\", freshness: revalidate, max_age: 1h}]", 1)})
	l.get(t, "/manifest.json").want(t, http.StatusNotFound)
	l.origin.Add("/manifest.json", 1000)
	l.get(t, "/manifest.json").wantContent(t, "/manifest.json", 1, 1000, 0, 1000)

	// For content a short shield is right, and short it is.
	l.get(t, "/content.bin").want(t, http.StatusNotFound)
	l.origin.Add("/content.bin", 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	lardertest.Eventually(t, "the content is there", func() bool {
		if ctx.Err() != nil {
			t.Fatal("a 404 was remembered for more than 10 s")
		}
		return l.get(t, "/content.bin").status == http.StatusOK
	})
}
