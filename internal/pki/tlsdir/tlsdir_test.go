package tlsdir

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/internal/lardertest"
	"larder/internal/pki/csr"
	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
)

func ecRequest() csr.Request {
	return csr.Request{Algorithm: keys.EC, Size: "prime256v1", CommonName: "cache.example", Names: san.Names{DNS: []string{"cache.example"}}}
}

func TestFirstCertificateOpensHTTPSAndTheNextIsSwappedIn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run(t)
	if r.addr() != "" {
		t.Fatal("TLS is served without a certificate")
	}
	first := l.mustImport(t, "first")
	if !first.Proved || !first.Active || first.Replaced != nil || first.Format != "PEM" {
		t.Errorf("first: %+v", first.Installed)
	}
	addr := r.addr()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	second := l.mustImport(t, "second")
	if !second.Proved || second.Replaced == nil || second.Replaced.SHA256 != first.Entry.SHA256 {
		t.Errorf("second: %+v", second.Installed)
	}
	if r.addr() != addr {
		t.Error("the listener was opened anew")
	}
	if got := entry(shownAt(t, addr)).SHA256; got != second.Entry.SHA256 {
		t.Errorf("clients get %s, want %s", got, second.Entry.SHA256)
	}
	// The connection from before is none the worse.
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
}

func TestOffAndOnAndBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run(t)
	first, second := l.mustImport(t, "first"), l.mustImport(t, "second")
	before := l.files(t)
	done, wasOn, err := l.Disable(t.Context())
	if err != nil || !wasOn || !done.Proved || r.addr() != "" {
		t.Fatalf("disable: %+v, was on: %v, %v; open at %q", done, wasOn, err, r.addr())
	}
	for name := range before {
		if _, err := os.Stat(filepath.Join(l.path, name)); err != nil {
			t.Errorf("disable removed %s", name)
		}
	}
	if _, wasOn, err := l.Disable(t.Context()); err != nil || wasOn {
		t.Errorf("disabled twice: was on: %v, %v", wasOn, err)
	}
	inv, err := l.Inventory(t.Context())
	if err != nil || inv.Current() != nil || inv.Find(second.Entry.SHA256).Reason != inventory.Disabled {
		t.Errorf("inventory of a disabled one: %+v, %v", inv, err)
	}
	on, err := l.Enable(t.Context(), "")
	if err != nil || !on.Proved || on.Entry.SHA256 != second.Entry.SHA256 {
		t.Fatalf("enable: %+v, %v; want the one from before", on, err)
	}
	back, err := l.Rollback(t.Context())
	if err != nil || !back.Proved || back.Entry.SHA256 != first.Entry.SHA256 {
		t.Fatalf("rollback: %+v, %v; want the first", back, err)
	}
	if got := entry(shownAt(t, r.addr())).SHA256; got != first.Entry.SHA256 {
		t.Errorf("clients get %s, want the first", got)
	}
	forth, err := l.Rollback(t.Context())
	if err != nil || forth.Entry.SHA256 != second.Entry.SHA256 {
		t.Errorf("rollback of the rollback: %+v, %v; want the second", forth, err)
	}
	named, err := l.Enable(t.Context(), first.Entry.SHA1[:10])
	if err != nil || named.Entry.SHA256 != first.Entry.SHA256 {
		t.Errorf("enable by thumbprint: %+v, %v", named, err)
	}
}

// A node that does not follow: its TLS goes on showing what it did.
func TestImportIsTakenBackWhenTheNodeDoesNotShowIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mustImport(t, "first")
	before := l.files(t)
	serving, err := l.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = serving.Close() }()
	stubborn := l.ca.Leaf(t, "old.example")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{stubborn.TLS}})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	defer func() { _ = ln.Close(); <-over }()
	if err := serving.Say(Where{HTTPS: []string{ln.Addr().String()}, Configured: []string{":443"}}); err != nil {
		t.Fatal(err)
	}
	l.patience = 2 * time.Second
	file := l.drop(t, "second.pem", l.ca.Leaf(t, "cache.example"))
	_, err = l.Import(t.Context(), file, l.options())
	if err == nil || !strings.Contains(err.Error(), "old state was restored") || !strings.Contains(err.Error(), "old.example") {
		t.Fatalf("got %v, want that the node shows old.example and that all was put back", err)
	}
	if diff := cmp.Diff(before, l.files(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
	// And with nothing there before.
	fresh := newLab(t)
	fresh.patience = 300 * time.Millisecond
	other, err := fresh.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := other.Say(Where{HTTPS: []string{}, Configured: []string{":443"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Import(t.Context(), fresh.drop(t, "a.pem", fresh.ca.Leaf(t, "a.example")), fresh.options()); err == nil || !strings.Contains(err.Error(), "not opened") {
		t.Errorf("got %v, want that the node has not opened its listeners", err)
	}
	if files := fresh.files(t); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	if err := other.Say(Where{HTTPS: []string{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Import(t.Context(), fresh.drop(t, "a.pem", fresh.ca.Leaf(t, "a.example")), fresh.options()); err == nil || !strings.Contains(err.Error(), "listen.https") {
		t.Errorf("got %v, want a word on listen.https", err)
	}
}

func TestFailedImportChangesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mustImport(t, "first")
	stranger := lardertest.NewCA(t)
	write := func(name string, data []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	expired := l.ca.LeafWith(t, lardertest.LeafOptions{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}, "cache.example")
	tests := []struct{ name, file, want string }{
		{"expired", l.drop(t, "a.pem", expired), "its end on"},
		{"of a stranger", l.drop(t, "a.pem", stranger.Leaf(t, "cache.example")), "Test authority"},
		{"without its key", write("a.crt", l.ca.Leaf(t, "cache.example").CertPEM), "none that belongs to"},
		{"an authority's", write("ca.crt", l.ca.PEM), "the authority's own"},
		{"not there", filepath.Join(t.TempDir(), "a.crt"), "file does not exist"},
		{"a directory", t.TempDir(), "directory"},
		{"empty", write("a.crt", nil), "empty"},
	}
	before := l.files(t)
	for _, tt := range tests {
		o := l.options()
		_, err := l.Import(t.Context(), tt.file, o)
		var p *problem.Problem
		if !errors.As(err, &p) || !strings.Contains(err.Error(), tt.want) || p.Field == "" || p.Found == "" || p.Next == "" {
			t.Errorf("%s: got %v, want a problem with %q and a next step", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(before, l.files(t)); diff != "" {
			t.Fatalf("%s: changed (-before +after):\n%s", tt.name, diff)
		}
	}
}

func TestRequestSignedTwiceKeepsItsKey(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	made, err := l.Request(t.Context(), "node", ecRequest())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(made.KeyFile)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v; want mode 0600", info.Mode(), err)
	}
	for name, want := range map[string]string{"node": "taken", "../node": "letters", "": "nothing", "-x": "letters", "a.": "letters"} {
		if _, err := l.Request(t.Context(), name, ecRequest()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a request %q: %v, want %q", name, err, want)
		}
	}
	key, err := os.ReadFile(made.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"node.crt", "renewed.crt"} {
		if i > 0 {
			again, err := l.RequestAgain(t.Context())
			if err != nil || again.CSRFile != made.CSRFile || again.KeyFile != made.KeyFile {
				t.Fatalf("again: %+v, %v", again, err)
			}
		}
		sign(t, l, made.CSRFile, filepath.Join(l.path, "certs", name))
		file, err := l.Find(strings.TrimSuffix(name, ".crt"))
		if err != nil {
			t.Fatal(err)
		}
		done, err := l.Import(t.Context(), file, l.options())
		if err != nil || done.Entry.KeyFile != "keys/node.key" || done.Proved || !strings.Contains(done.Note, "no node runs") {
			t.Fatalf("%s: %+v, %v", name, done, err)
		}
	}
	if now, err := os.ReadFile(made.KeyFile); err != nil || string(now) != string(key) {
		t.Errorf("the key changed: %v", err)
	}
	if files, err := os.ReadDir(filepath.Join(l.path, "keys")); err != nil || len(files) != 1 {
		t.Errorf("%d files in keys, %v; want the one key", len(files), err)
	}
	// Without the request's file it is made anew.
	if err := os.Remove(made.CSRFile); err != nil {
		t.Fatal(err)
	}
	again, err := l.RequestAgain(t.Context())
	if err != nil || again.Subject != "CN=cache.example" || again.CSRFile != made.CSRFile {
		t.Fatalf("made anew: %+v, %v", again, err)
	}
	if _, _, err := l.RequestFor(mustKey(t, key)); err != nil {
		t.Errorf("the request made anew is not found: %v", err)
	}
}

// sign signs a request with the lab's authority by way of OpenSSL.
func sign(t *testing.T, l *lab, csrFile, to string) {
	t.Helper()
	dir := t.TempDir()
	caFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	if err := os.WriteFile(caFile, l.ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, l.ca.KeyPEM(t), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("openssl", "x509", "-req", "-in", csrFile, "-CA", caFile, "-CAkey", keyFile, "-copy_extensions", "copyall", "-days", "30", "-out", to)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
}

func mustKey(t *testing.T, text []byte) any {
	t.Helper()
	key, err := keys.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

func TestInventoryLearnsWhatItMissed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// Put in place by hand, as docs/operating/node.md says.
	l.ca.Leaf(t, "cache.example").Install(t, l.path, "hand")
	inv, err := l.Inventory(t.Context())
	if err != nil || inv.Current() == nil || inv.Current().Source != "found" || inv.Current().Name != "hand" {
		t.Fatalf("by hand: %+v, %v", inv, err)
	}
	// A kill between the switch and the inventory.
	done := l.mustImport(t, "second")
	if err := livecert.WriteActive(l.path, livecert.Active{Certificate: "certs/hand.crt", Key: "keys/hand.key"}); err != nil {
		t.Fatal(err)
	}
	if inv, err = l.Inventory(t.Context()); err != nil || inv.Current().Name != "hand" || inv.Find(done.Entry.SHA256).Reason != inventory.Replaced {
		t.Errorf("after a kill: %+v, %v", inv, err)
	}
	// Switched off by hand.
	if err := livecert.WriteActive(l.path, livecert.Active{Disabled: true}); err != nil {
		t.Fatal(err)
	}
	if inv, err = l.Inventory(t.Context()); err != nil || inv.Current() != nil {
		t.Errorf("switched off by hand: %+v, %v", inv, err)
	}
	text, err := os.ReadFile(filepath.Join(l.path, filepath.FromSlash(inventory.AuditFile)))
	if err != nil {
		t.Fatal(err)
	}
	var what []string
	for line := range strings.Lines(string(text)) {
		var e inventory.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		what = append(what, e.What)
	}
	if got, want := strings.Join(what, ", "), "found, activated, imported, activated, activated, disabled"; got != want {
		t.Errorf("audit: got %s, want %s", got, want)
	}
}

func TestExpiredIsInactiveSinceItsEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	end := time.Now().Add(-time.Hour).Truncate(time.Second)
	p := l.ca.LeafWith(t, lardertest.LeafOptions{NotBefore: end.Add(-time.Hour), NotAfter: end}, "cache.example")
	p.Install(t, l.path, "old")
	inv, err := l.Inventory(t.Context())
	if err != nil || len(inv.Entries) != 1 {
		t.Fatal(inv, err)
	}
	if e := inv.Entries[0]; e.State != inventory.Inactive || e.Reason != inventory.Expired || !e.Since().Equal(end) {
		t.Errorf("got %+v, want expired since %s", e, end)
	}
	if _, err := l.Enable(t.Context(), "old"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("enabled an expired one: %v", err)
	}
}

func TestRetentionRemovesFilesAndKeepsTheEntry(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.mustImport(t, "first")
	l.mustImport(t, "second")
	later := time.Now().AddDate(0, 18, 1)
	// The second has expired by then, and is still the one that is active.
	would, err := l.Retain(t.Context(), later, true)
	if err != nil || len(would) != 1 || would[0].SHA256 != first.Entry.SHA256 {
		t.Fatalf("dry run: %+v, %v; want the first", would, err)
	}
	if _, err := os.Stat(filepath.Join(l.path, first.Entry.File)); err != nil {
		t.Errorf("the dry run removed it: %v", err)
	}
	removed, err := l.Retain(t.Context(), later, false)
	if err != nil || len(removed) != 1 {
		t.Fatalf("%+v, %v", removed, err)
	}
	for _, name := range []string{first.Entry.File, first.Entry.KeyFile} {
		if _, err := os.Stat(filepath.Join(l.path, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	inv, err := inventory.Load(l.path)
	if err != nil || inv.Find(first.Entry.SHA256) == nil || inv.Find(first.Entry.SHA256).Removed == nil {
		t.Errorf("the entry: %+v, %v", inv, err)
	}
	audit, err := os.ReadFile(filepath.Join(l.path, filepath.FromSlash(inventory.AuditFile)))
	if err != nil || !strings.Contains(string(audit), `"event":"removed","name":"first"`) {
		t.Errorf("no line of the removal: %s, %v", audit, err)
	}
	if again, err := l.Retain(t.Context(), later, false); err != nil || len(again) != 0 {
		t.Errorf("removed again: %+v, %v", again, err)
	}
	if _, err := l.Enable(t.Context(), "first"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("enabled one without files: %v", err)
	}
}

func TestStoredWithoutBeingSwitchedTo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	o := l.options()
	o.StoreOnly, o.Name = true, "later"
	done, err := l.Import(t.Context(), l.drop(t, "x.pem", l.ca.Leaf(t, "cache.example")), o)
	if err != nil || done.Active || done.Entry.Reason != inventory.Stored || done.Entry.Name != "later" {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := livecert.ReadActive(l.path); err == nil {
		t.Error("something is active")
	}
	if on, err := l.Enable(t.Context(), "later"); err != nil || on.Entry.SHA256 != done.Entry.SHA256 {
		t.Errorf("switched to it: %+v, %v", on, err)
	}
}

func TestRootGivenOnceIsRemembered(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mustImport(t, "first")
	if _, err := l.Import(t.Context(), l.drop(t, "second.pem", l.ca.Leaf(t, "cache.example")), ImportOptions{}); err != nil {
		t.Errorf("the second without a root: %v", err)
	}
	if st := l.With(Standards{}); len(st.Given) != 1 || !st.Given[0].Equal(l.ca.Cert) {
		t.Errorf("remembered: %v", st.Given)
	}
	if issuer := l.With(Standards{}).Issuer(l.chainOf(t)); issuer == nil || !issuer.Equal(l.ca.Cert) {
		t.Errorf("the issuer is not found: %v", issuer)
	}
	// A root that vouches for nothing here is not remembered.
	o := l.options()
	o.Given = append(o.Given, lardertest.NewCA(t).Cert)
	if _, err := l.Import(t.Context(), l.drop(t, "third.pem", l.ca.Leaf(t, "cache.example")), o); err != nil {
		t.Fatal(err)
	}
	if st := l.With(Standards{}); len(st.Given) != 1 {
		t.Errorf("remembered: %d roots", len(st.Given))
	}
}

func TestChangesAtOnceAreOneAfterTheOther(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run(t)
	l.mustImport(t, "zero")
	var files []string
	for _, name := range []string{"one", "two", "three"} {
		files = append(files, l.drop(t, name+".pem", l.ca.Leaf(t, "cache.example")))
	}
	var wg sync.WaitGroup
	for _, file := range files {
		other, err := Open(l.path, "tester") // as another process has it
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if done, err := other.Import(t.Context(), file, l.options()); err != nil || !done.Proved {
				t.Errorf("%s: %+v, %v", file, done, err)
			}
		})
	}
	wg.Wait()
	inv, err := l.Inventory(t.Context())
	if err != nil || len(inv.Entries) != 4 || inv.Current() == nil {
		t.Fatalf("%+v, %v", inv, err)
	}
	if got := entry(shownAt(t, r.addr())).SHA256; got != inv.Current().SHA256 {
		t.Errorf("clients get %s, the inventory says %s", got, inv.Current().SHA256)
	}
}

func TestRunningIsKnownWhateverEndsTheNode(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, running, err := l.Running(); err != nil || running {
		t.Errorf("nobody started one: %v, %v", running, err)
	}
	s, err := l.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, running, err := l.Running(); err != nil || !running {
		t.Errorf("just starting: %v, %v", running, err)
	}
	if err := s.Say(Where{Admin: "127.0.0.1:5001"}); err != nil {
		t.Fatal(err)
	}
	if w, running, err := l.Running(); err != nil || !running || w.Admin != "127.0.0.1:5001" || w.PID != os.Getpid() {
		t.Errorf("running: %+v, %v, %v", w, running, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := l.Serve(ctx); err == nil {
		t.Error("two nodes serve from one directory")
	}
	// Killed: the lock is gone, the file is not.
	if err := s.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, running, err := l.Running(); err != nil || running {
		t.Errorf("after a kill: %v, %v", running, err)
	}
}

func TestWhereListenersAreDialled(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"[::]:443": "127.0.0.1:443", "0.0.0.0:443": "127.0.0.1:443", ":443": "127.0.0.1:443", "192.0.2.1:8443": "192.0.2.1:8443", "[2001:db8::1]:443": "[2001:db8::1]:443", "nonsense": "nonsense",
	} {
		if got := dialable(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
	// Both families reach a listener on all addresses.
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	conn, err := net.Dial("tcp", dialable(ln.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestNamesOfFiles(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/a/node.crt": "node", "cache.example.com.chain.pem": "cache.example.com", "certnew.cer": "certnew", "Zertifikat für Büro.pfx": "Zertifikat_f_r_B_ro",
		".crt": "certificate", "x/..pem": "certificate", strings.Repeat("a", 200) + ".crt": strings.Repeat("a", 60),
	} {
		if got := nameFrom(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
		if err := CheckName("name", nameFrom(path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPlaceThatIsNoDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "tls")} {
		var p *problem.Problem
		if _, err := Open(path, ""); !errors.As(err, &p) || !strings.Contains(err.Error(), path) || p.Next == "" {
			t.Errorf("%s: %v, want a problem that names it", path, err)
		}
	}
}
