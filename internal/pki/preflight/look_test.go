package preflight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		node, program, least string
		result               Result
		words                []string
	}{
		{"v1.2.0", "v1.2.0", "", OK, []string{"as does this program"}},
		{"v1.2.0", "1.2.0", "", OK, []string{"this program 1.2.0"}},
		{"v1.2.0", "v1.10.0", "", Warning, []string{"this program is newer", "restart the node"}},
		{"v2.0.0", "v1.10.0", "", Warning, []string{"this program is older", "belongs to the node"}},
		{"v2.0.0", "v2.0.0-rc.1", "", Warning, []string{"this program is older"}},
		{"v2.0.0-rc.2", "v2.0.0-rc.10", "", Warning, []string{"this program is newer"}},
		{"v2.0.0-rc", "v2.0.0-rc.1", "", Warning, []string{"this program is newer"}},
		{"v2.0.0-1", "v2.0.0-beta", "", Warning, []string{"this program is newer"}},
		{"v0.9.0", "v1.0.0", "v1.0.0", Failed, []string{"HTTPS needs v1.0.0", "update the node"}},
		{"v1.0.0", "v1.0.0+linux", "v1.0.0", OK, nil},
		{"devel-0123456789ab", "devel-0123456789ab", "v1.0.0", OK, nil},
		{"devel-0123456789ab", "v1.0.0", "", Warning, []string{"another build: v1.0.0"}},
		{"", "v1.0.0", "", Warning, []string{"an unknown version", "larder node status"}},
	} {
		c := versionCheck(Options{Version: tt.program, MinVersion: tt.least, Node: NodeState{Running: true, Version: tt.node}})
		c.Title = fmt.Sprintf("node %q, program %q", tt.node, tt.program)
		want(t, c, tt.result, tt.words...)
	}
	want(t, versionCheck(Options{Version: "v1"}), Info, "no node is running", "v1")
}

// heldByAnother starts another program on a port of its own.
func heldByAnother(t *testing.T, pair lardertest.Pair) (addr string, number int) {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "crt"), pair.CertPEM)
	write(t, filepath.Join(dir, "key"), pair.KeyPEM)
	addr, number = freePort(t)
	cmd := exec.Command(openssl, "s_server", "-accept", addr, "-cert", filepath.Join(dir, "crt"), "-key", filepath.Join(dir, "key"), "-quiet", "-naccept", "100")
	stdin, err := cmd.StdinPipe() // open, or it would end
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = stdin.Close()
	})
	ready := time.NewTicker(10 * time.Millisecond)
	defer ready.Stop()
	for late := time.After(20 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr, number
		}
		select {
		case <-ready.C:
		case <-late:
			t.Fatal(err)
		}
	}
}

func TestPortHeldByAnotherProgram(t *testing.T) {
	t.Parallel()
	pair := lardertest.NewCA(t).Leaf(t, "other.example")
	addr, number := heldByAnother(t, pair)
	o := quiet(t, Options{HTTPS: []string{addr}, Port: number, Names: []string{hostOf(t, addr)}})
	checks := Run(t.Context(), o)
	want(t, one(t, checks, IDPort), Failed, "held by another program", fmt.Sprint(number))
	want(t, one(t, checks, IDIntercept), Warning, "a certificate for other.example, issued by CN=Test authority", "this node has none to show")
	want(t, one(t, checks, IDTLS), OK, "what answers is not known to be this node", "TLS 1.3: works", "TLS 1.2: works")

	o.Holder = func(addr string) (string, error) { return "openssl (process 4711) at " + addr, nil }
	want(t, one(t, Run(t.Context(), o), IDPort), Failed, "held by openssl (process 4711) at "+addr)
	o.Holder = func(string) (string, error) { return "", errors.New("ask somebody else") }
	want(t, one(t, Run(t.Context(), o), IDPort), Failed, "held by another program; which one could not be learnt: ask somebody else")

	// With a certificate of the node's own it is known to be another's.
	mine := lardertest.NewCA(t).Leaf(t, hostOf(t, addr))
	mine.Install(t, o.Dir, "node")
	want(t, one(t, Run(t.Context(), o), IDIntercept), Failed, "expected the certificate that is active on disk (SHA-256 "+sha256Of(mine.Cert), "another program of this machine answers there", fmt.Sprint(number))
}

func TestPorts(t *testing.T) {
	t.Parallel()
	const free = "free" // stands for a free port, each its own
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() }) // the subtests are parallel
	heldNumber := held.Addr().(*net.TCPAddr).Port
	open := NodeState{Running: true, HTTPS: []string{held.Addr().String()}}
	for _, tt := range []struct {
		name   string
		https  []string
		port   int
		node   NodeState
		result Result // of the last listener
		words  []string
	}{
		{"free", []string{free}, 0, NodeState{}, OK, []string{"free"}},
		{"none", nil, 443, NodeState{}, Failed, []string{"no listener for HTTPS", "listen.https"}},
		{"the node's own", []string{held.Addr().String()}, heldNumber, open, OK, []string{"this node serves HTTPS here"}},
		{"the node's own, on all addresses", []string{fmt.Sprintf(":%d", heldNumber)}, heldNumber, open, OK, []string{"this node serves HTTPS here"}},
		{"the node's own, by name", []string{fmt.Sprintf("localhost:%d", heldNumber)}, heldNumber, open, OK, []string{"this node serves HTTPS here"}},
		{"not the node's own", []string{held.Addr().String()}, heldNumber, NodeState{Running: true}, Failed, []string{"held by another program"}},
		{"the node says so, and it is free", []string{free}, 0, NodeState{Running: true, HTTPS: []string{free}}, Warning, []string{"free, although the node says", "restart it"}},
		{"twice", []string{free, free}, 0, NodeState{}, Failed, []string{"a second time, after 127.", "leave one of the two"}},
		{"another machine's", []string{free, "203.0.113.7:443"}, 0, NodeState{}, Failed, []string{"203.0.113.7 is not an address of this machine", `127.0.0.1, or all addresses: ":443"`}},
		{"unreadable", []string{free, "443"}, 0, NodeState{}, Failed, []string{"an address that cannot be read", ":443"}},
		{"too large", []string{free, ":70000"}, 0, NodeState{}, Failed, []string{"an address that cannot be read"}},
		{"the system's choice", []string{free, "127.0.0.1:0"}, 0, NodeState{}, Info, []string{"the system will choose"}},
		{"no such host", []string{free, "no.such.host.invalid:443"}, 0, NodeState{}, Failed, []string{"it cannot be opened", "no.such.host.invalid"}},
		{"not where clients come", []string{free}, 443, NodeState{}, Warning, []string{"clients come to port 443, and no listener is on it", `[":443"]`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr, number := freePort(t)
			tt.node.HTTPS = slices.Clone(tt.node.HTTPS) // some have the same
			for _, list := range [][]string{tt.https, tt.node.HTTPS} {
				for i := range list {
					list[i] = strings.Replace(list[i], free, addr, 1)
				}
			}
			if tt.port == 0 {
				tt.port = number
			}
			ports, held := portChecks(t.Context(), quiet(t, Options{HTTPS: tt.https, Port: tt.port, Node: tt.node}).withDefaults())
			defer held.close()
			want(t, ports[len(ports)-1].check, tt.result, tt.words...)
		})
	}
}

func TestPortFreeForRoot(t *testing.T) {
	t.Parallel()
	addr, number := freePort(t)
	m := here("127.0.0.1")
	m.privileged, m.unprivileged = true, number+1
	ports, held := portChecks(t.Context(), quiet(t, Options{HTTPS: []string{addr}, Port: number, machine: m}).withDefaults())
	defer held.close()
	want(t, ports[0].check, OK, "tried with all privileges, the node needs CAP_NET_BIND_SERVICE")
}

func TestTLSOfOthers(t *testing.T) {
	t.Parallel()
	ca := lardertest.NewCA(t)
	pair, other := ca.Leaf(t, "cache.example"), ca.Leaf(t, "other.example")
	for _, tt := range []struct {
		name   string
		config *tls.Config
		state  func(*NodeState)
		result Result
		words  []string
	}{
		{name: "as a node's", result: OK, words: []string{"TLS 1.3: works, TLS_AES_128", "TLS 1.2: works, TLS_ECDHE_ECDSA", "without a server name: works", "another server name: works"}},
		{name: "HTTP/2", config: &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, result: Failed, words: []string{"but with HTTP/2", "serve HTTP/1.1 alone"}},
		{name: "TLS 1.3 alone", config: &tls.Config{MinVersion: tls.VersionTLS13}, result: Failed, words: []string{"TLS 1.3: works", "TLS 1.2: does not work: handshake: remote error: tls: protocol version"}},
		{name: "TLS 1.2 alone", config: &tls.Config{MaxVersion: tls.VersionTLS12}, result: Failed, words: []string{"TLS 1.2: works", "TLS 1.3: does not work"}},
		{name: "strict about names", config: &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName != "cache.example" {
				return nil, errors.New("who?")
			}
			return &pair.TLS, nil
		}}, result: Failed, words: []string{"TLS 1.3: works", "without a server name: does not work: handshake: remote error", "another server name: does not work"}},
		{name: "another by default", config: &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName != "cache.example" {
				return &other.TLS, nil
			}
			return &pair.TLS, nil
		}}, result: Failed, words: []string{"without a server name: works", "but with another certificate (SHA-256 " + sha256Of(other.Cert)}},
		{name: "opened on this machine", state: func(n *NodeState) { n.ServedSHA256 = sha256Of(other.Cert) }, result: Failed,
			words: []string{"the node says that it serves another certificate (SHA-256 " + sha256Of(other.Cert), "something on this machine opens TLS"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.config == nil {
				tt.config = &tls.Config{}
			}
			if tt.config.GetCertificate == nil {
				tt.config.Certificates = []tls.Certificate{pair.TLS}
			}
			addr := serveTLS(t, "127.0.0.1:0", tt.config).Addr().String()
			o := quiet(t, Options{HTTPS: []string{addr}, Names: []string{"127.0.0.1", "cache.example"}, Node: NodeState{Running: true, HTTPS: []string{addr}, ServedSHA256: sha256Of(pair.Cert)}})
			if tt.state != nil {
				tt.state(&o.Node)
			}
			want(t, one(t, Run(t.Context(), o), IDTLS), tt.result, tt.words...)
			if tt.result == Failed { // what is not known to be the node is no failure of it
				o.Node = NodeState{}
				if tt.state == nil {
					want(t, one(t, Run(t.Context(), o), IDTLS), Warning, "not known to be this node")
				}
			}
		})
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca := lardertest.NewCA(t)
	for _, tt := range []struct {
		name   string
		now    time.Time
		pair   *lardertest.LeafOptions
		sync   func() (bool, error)
		result Result
		words  []string
	}{
		{name: "right", result: OK, words: []string{now.UTC().Format("2006-01-02"), "the system keeps it synchronised"}},
		{name: "before the build", now: now.Add(-100 * 24 * time.Hour), result: Failed, words: []string{"this program was built later", "chrony"}},
		{name: "before what was written", now: now.Add(-time.Hour), pair: &lardertest.LeafOptions{NotBefore: now.Add(-5 * time.Hour)}, result: Warning, words: []string{"was written later"}},
		{name: "before the certificate", now: now.Add(-time.Minute), pair: &lardertest.LeafOptions{NotBefore: now.Add(time.Minute)}, result: Failed, words: []string{"the active certificate begins later"}},
		{name: "after the certificate", pair: &lardertest.LeafOptions{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, result: OK, words: []string{"the active certificate has ended"}},
		{name: "kept by nothing", sync: func() (bool, error) { return false, nil }, result: Warning, words: []string{"nothing keeps it synchronised"}},
		{name: "kept by nobody knows", sync: func() (bool, error) { return false, errors.New("not permitted") }, result: OK, words: []string{"could not be learnt: not permitted"}},
		{name: "another system", sync: func() (bool, error) { return false, fmt.Errorf("clock: %w", errors.ErrUnsupported) }, result: OK, words: []string{"cannot be asked on this system"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := quiet(t, Options{Dir: t.TempDir()}).withDefaults()
			o.machine.built = now.Add(-30 * 24 * time.Hour)
			if !tt.now.IsZero() {
				o.Now = func() time.Time { return tt.now }
			}
			if tt.sync != nil {
				o.machine.synchronised = tt.sync
			}
			if tt.pair != nil {
				ca.LeafWith(t, *tt.pair, "cache.example").Install(t, o.Dir, "node")
			}
			want(t, clockCheck(o, readActive(o.Dir)), tt.result, tt.words...)
		})
	}
}

func TestClockComparedWithAServer(t *testing.T) {
	t.Parallel()
	ask := func(t *testing.T, date func() string) Check {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead {
				t.Errorf("%s, want HEAD", r.Method)
			}
			w.Header()["Date"] = []string{date()}
		}))
		defer server.Close()
		return one(t, timeChecks(t.Context(), quiet(t, Options{TimeURL: server.URL}).withDefaults()), IDTime)
	}
	off := func(d time.Duration) func() string {
		return func() string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	}
	want(t, ask(t, off(0)), OK, "the same within a second or two")
	want(t, ask(t, off(time.Minute)), OK, "behind")
	want(t, ask(t, off(-10*time.Minute)), Failed, "this machine is 10m", "ahead", "chrony")
	want(t, ask(t, off(time.Hour)), Failed, "behind")
	want(t, ask(t, func() string { return "yesterday" }), Skipped, `the answer's Date is "yesterday"`)
	addr, _ := freePort(t)
	o := quiet(t, Options{TimeURL: "http://user:secret@" + addr + "/"}).withDefaults()
	c := one(t, timeChecks(t.Context(), o), IDTime)
	want(t, c, Skipped, "no time from there")
	if strings.Contains(fmt.Sprint(c), "secret") {
		t.Errorf("the password is told: %+v", c)
	}
	if checks := timeChecks(t.Context(), quiet(t, Options{}).withDefaults()); checks != nil {
		t.Errorf("nobody to ask, and yet: %+v", checks)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	o := quiet(t, Options{
		Names: []string{"Cache.example.", "cache.example", "elsewhere.example", "half.example", "gone.example", "mute.example", "hosts.example", "*.example", "192.0.2.10", "[fd00::1]", "198.51.100.1", ""},
		Resolver: resolver(t, map[string][]string{
			"cache.example": {"192.0.2.10", "fd00::1"}, "elsewhere.example": {"192.0.2.99"}, "half.example": {"192.0.2.10", "192.0.2.99"}, "hosts.example": {"127.0.1.1"},
			"mute.example": {silent}, "node1": {"192.0.2.10"}, "node1.example": {"192.0.2.10"},
			"10.2.0.192.in-addr.arpa": {"node1.example", "made-up.isp.example"}, "made-up.isp.example": {"203.0.113.9"},
		}),
		machine: here("192.0.2.10", "fd00::1", "192.0.2.11", "fe80::1"),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	names := Names(ctx, o)
	var got []string
	for _, n := range names {
		got = append(got, fmt.Sprintf("%s|%s|%s|%v|%v|%s", n.Name, n.Source, joined(n.Addresses), n.Ours, n.LinkLocal, n.Problem))
	}
	const fromHere = "address of eth0"
	wanted := []string{
		"Cache.example|configuration|192.0.2.10, fd00::1|true|false|",
		"elsewhere.example|configuration|192.0.2.99|false|false|not an address of this machine",
		"half.example|configuration|192.0.2.10, 192.0.2.99|false|false|some are not addresses of this machine: 192.0.2.99",
		"gone.example|configuration||false|false|does not resolve",
		"mute.example|configuration||false|false|where it leads could not be learnt",
		"hosts.example|configuration|127.0.1.1|true|false|leads to this machine itself only here: 127.0.1.1 is loopback, most likely from the hosts file",
		"*.example|configuration||false|false|no host name that a client could ask for",
		"192.0.2.10|configuration|192.0.2.10|true|false|",
		"fd00::1|configuration|fd00::1|true|false|",
		"198.51.100.1|configuration|198.51.100.1|false|false|not an address of this machine",
		"node1|host name|192.0.2.10|true|false|",
		"node1.example|full host name|192.0.2.10|true|false|",
		"192.0.2.11|" + fromHere + "|192.0.2.11|true|false|",
		"fe80::1|" + fromHere + "|fe80::1|true|true|",
	}
	if len(got) != len(wanted) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	for i := range got {
		if got[i] != wanted[i] && !(strings.HasSuffix(wanted[i], "learnt") && strings.HasPrefix(got[i], wanted[i])) {
			t.Errorf("got  %s\nwant %s", got[i], wanted[i])
		}
	}
	c := namesCheck(names, nil)
	want(t, c, Warning, "elsewhere.example: correct it if", "half.example: correct its DNS records", "gone.example: make a DNS record for it that leads here (192.0.2.10 or fd00::1 or 192.0.2.11)",
		"mute.example: see that this machine reaches its DNS server", "hosts.example: ask a client where it leads (nslookup hosts.example)", "fe80::1 (address of eth0): link-local")
	// What was reached is no problem, whatever its address.
	c = namesCheck(names, map[string]bool{"elsewhere.example": true, "gone.example": true})
	want(t, c, Warning, "192.0.2.99, not of this machine, but it leads here")
	if strings.Contains(c.Do, "elsewhere.example") || !strings.Contains(c.Do, "gone.example") {
		t.Errorf("to do: %s", c.Do)
	}
}

func TestNamesThatNobodyConfigured(t *testing.T) {
	t.Parallel()
	o := quiet(t, Options{Resolver: resolver(t, map[string][]string{"node1": {"127.0.0.2"}}), machine: here("127.0.0.2")})
	want(t, namesCheck(Names(t.Context(), o), nil), Info, "node1 (host name): 127.0.0.2, this machine", "--san-dns")
	o.Resolver = resolver(t, nil)
	want(t, namesCheck(Names(t.Context(), o), nil), Warning, "no host name leads here", "node1: make a DNS record", "--san-ip")
	o.machine = &machine{host: "localhost"}
	want(t, namesCheck(Names(t.Context(), o), nil), Warning, "no name is configured, and no interface has an address")
	// The machine's own name does not matter where clients use another.
	o = quiet(t, Options{Names: []string{"127.0.0.2"}, machine: here("127.0.0.2")})
	want(t, namesCheck(Names(t.Context(), o), nil), OK, "node1 (host name): does not resolve")
}

// TestThisMachine asks the real one.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	m := thisMachine()
	if m.host == "" {
		t.Error("no host name")
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range m.addresses {
		known := false
		for _, b := range addrs {
			known = known || strings.HasPrefix(b.String(), a.Addr.String()+"/")
		}
		if !known || a.IsLoopback() || a.on == "" {
			t.Errorf("%v on %q", a.Addr, a.on)
		}
	}
	if _, err := m.synchronised(); err != nil {
		t.Logf("whether the clock is synchronised: %v", err)
	}
	if runtime.GOOS == "linux" && m.unprivileged == 0 {
		t.Log("every port is for everybody here")
	}
}
