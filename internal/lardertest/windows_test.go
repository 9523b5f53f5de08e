package lardertest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"testing"
)

const cabSize = 2323765 // the recorded download's

func newCab(t *testing.T) (*Origin, *WindowsClient) {
	o := NewOrigin(t)
	o.Add("/a.cab", cabSize)
	o.AddBytes("/a.cab/pieceshash", PiecesHash(Content("/a.cab", 1, cabSize), cabSize))
	return o, &WindowsClient{Addr: o.Addr, Origin: "au.download.windowsupdate.com"}
}

func sha(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestWindowsPattern(t *testing.T) {
	t.Parallel()
	o, c := newCab(t)
	r, err := c.Download(t.Context(), "/a.cab?P1=%2b")
	if err != nil {
		t.Fatal(err)
	}
	if want := sha(t, Content("/a.cab", 1, cabSize).Reader()); r.SHA256 != want || r.Total != cabSize || r.Bytes != cabSize {
		t.Errorf("%d of %d bytes, SHA-256 %s, want %s", r.Bytes, r.Total, r.SHA256, want)
	}
	if got := r.Statuses(); len(got) != 1 || got[206] != 5 {
		t.Errorf("statuses %v, want five 206", got)
	}
	var ranges []string
	conns := map[int64]int{}
	for _, req := range o.Requests() {
		conns[req.Conn]++
		ranges = append(ranges, strings.TrimPrefix(req.Range, "bytes="))
		if req.Target != "/a.cab?P1=%2b&cacheHostOrigin=au.download.windowsupdate.com" || req.Host != o.Addr ||
			req.Header.Get("User-Agent") != windowsUserAgent || req.Header.Get("MS-CV") == "" {
			t.Errorf("request %s", req.Head)
		}
	}
	if len(conns) != 2 || ranges[0] != "0-1" || ranges[1] != "0-1" {
		t.Errorf("%d connections, ranges %v", len(conns), ranges)
	}
	slices.Sort(ranges)
	if got := strings.Join(ranges, " "); got != "0-1 0-1 0-1048575 1048576-2097151 2097152-2323764" {
		t.Errorf("ranges %s", got)
	}
}

func TestWindowsBeginsWithTheSecondPiece(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64][]int{0: nil, 1: {0}, 1048577: {1, 0}, cabSize: {1, 0, 2}} {
		w := &windowsRun{res: &WindowsResult{Total: n}}
		var got []int
		for i := range w.pieces() {
			got = append(got, i)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bytes: %v, want %v", n, got, want)
		}
	}
}

func TestWindowsOverTLSWithHeadAndHashes(t *testing.T) {
	t.Parallel()
	o, c := newCab(t)
	c.Addr, c.TLS, c.Host = o.TLSAddr, &tls.Config{RootCAs: o.CA.Pool(), ServerName: "127.0.0.1"}, "node.test"
	c.Head, c.PiecesHash = true, true
	o.SetEvery(Behaviour{NoKeepAlive: true}) // a close is tolerated
	r, err := c.Download(t.Context(), "/a.cab")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.BadHash) != 0 || r.Bytes != cabSize {
		t.Errorf("%d bytes, bad pieces %v", r.Bytes, r.BadHash)
	}
	head := r.Requests[0]
	if head.Method != "HEAD" || head.Length != cabSize || head.Bytes != 0 || o.Requests()[0].Host != "node.test" {
		t.Errorf("got %+v", head)
	}
}

func TestWindowsSeesForeignPieces(t *testing.T) {
	t.Parallel()
	o, c := newCab(t)
	c.PiecesHash = true
	// The version changes before the last piece, and nobody says so.
	o.Set("/a.cab", Behaviour{}, Behaviour{}, Behaviour{}, Behaviour{}, Behaviour{Before: func(Recorded) { o.SetVersion("/a.cab", 2, cabSize) }})
	r, err := c.Download(t.Context(), "/a.cab")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.BadHash) == 0 {
		t.Error("mixed versions were taken")
	}
}

func TestWindowsRefusesWrongAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		b    []Behaviour
		want string
	}{
		{"no range", []Behaviour{{IgnoreRange: true}}, "status 200"},
		{"lower case", []Behaviour{{LowerCase: true}}, "no total"},
		{"two totals", []Behaviour{{}, {TotalDelta: 1}}, "two totals"},
		{"other start", []Behaviour{{}, {}, {StartDelta: 1}}, "Content-Range"},
		{"cut piece", []Behaviour{{}, {}, {Truncate: true, After: 5}}, "unexpected EOF"},
		{"piece too short", []Behaviour{{}, {}, {LengthDelta: -3}}, "bytes instead of"},
		{"not there", []Behaviour{{Status: 404}}, "status 404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o, w := newCab(t)
			o.Set("/a.cab", c.b...)
			if _, err := w.Download(t.Context(), "/a.cab"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	o, w := newCab(t)
	w.PiecesHash = true
	for body, want := range map[string]string{"": "status 404", "x": "invalid character", `{"ContentLength":1,"PieceSize":1,"Pieces":["x"]}`: "the file has"} {
		o.AddBytes("/a.cab/pieceshash", []byte(body))
		if body == "" {
			o.Remove("/a.cab/pieceshash")
		}
		if _, err := w.Download(t.Context(), "/a.cab"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pieceshash %q: got %v, want %q", body, err, want)
		}
	}
}

func TestWindowsEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o, c := newCab(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.SetEvery(Behaviour{Hang: true, Before: func(Recorded) { cancel() }})
	if _, err := c.Download(ctx, "/a.cab"); err == nil {
		t.Error("no error")
	}
}
