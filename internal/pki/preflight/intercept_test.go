package preflight

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/pki/problem"
)

// titled finds the check whose title has words.
func titled(t testing.TB, checks []Check, words string) Check {
	t.Helper()
	for _, c := range checks {
		if strings.Contains(c.Title, words) {
			return c
		}
	}
	t.Fatalf("no check has %q in its title: %+v", words, checks)
	return Check{}
}

// TestProxyThatInspects is found whether the node serves a certificate
// already or not yet.
func TestProxyThatInspects(t *testing.T) {
	t.Parallel()
	ca, appliance := lardertest.NewCA(t), lardertest.NewCA(t)
	pair := ca.Leaf(t, "cache.example")
	state, addr, number := node(t, pair)
	serving := func(n NodeState) Options { return Options{HTTPS: []string{addr}, Port: number, Node: n} }
	free := func(n NodeState) Options {
		addr, number := freePort(t)
		return Options{HTTPS: []string{addr}, Port: number, Node: n}
	}
	for _, tt := range []struct {
		name    string
		options func(NodeState) Options
		node    NodeState
		what    string
	}{
		{"a node that serves", serving, state, "the certificate that the node serves"},
		{"a node that cannot say what it serves", serving, NodeState{Running: true, HTTPS: []string{addr}}, "the certificate that the node serves"},
		{"no node", free, NodeState{}, "the certificate made up for this check"},
		{"a node without a certificate", free, NodeState{Running: true}, "the certificate made up for this check"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run := func(p proxy) (checks []Check, there, proxyAt string) {
				o := quiet(t, tt.options(tt.node))
				o.Names = []string{"cache.example"}
				o.Resolver = resolver(t, map[string][]string{"cache.example": {hostOf(t, o.HTTPS[0])}})
				there = fmt.Sprintf("cache.example:%d", o.Port)
				p.leads = map[string]string{there: o.HTTPS[0]}
				o.Proxy = p.start(t)
				u, _ := o.Proxy(nil)
				return Run(t.Context(), o), there, u.Host
			}
			checks, there, proxyAt := run(proxy{inspect: appliance, password: "geheim"})
			found := of(checks, IDIntercept)
			if len(found) != 2 {
				t.Fatalf("%d ways, want directly and by the proxy: %+v", len(found), found)
			}
			want(t, found[0], OK, tt.what+": nothing on this way opens TLS")
			_, number, _ := net.SplitHostPort(there)
			want(t, found[1], Failed, "a certificate for cache.example, issued by CN=Test authority", "expected "+tt.what, "TLS inspection",
				"exempt cache.example from TLS inspection at "+proxyAt, "openssl s_client -connect "+there, "curl -vk -m 10 -o /dev/null https://"+there+"/", "TcpClient('cache.example',"+number+")")
			if !strings.Contains(found[1].Title, "through the proxy "+proxyAt) {
				t.Errorf("title: %s", found[1].Title)
			}
			if strings.Contains(fmt.Sprint(checks), "geheim") {
				t.Errorf("the password is told: %+v", checks)
			}
			checks, _, _ = run(proxy{})
			want(t, titled(t, checks, "through the proxy"), OK, tt.what)
		})
	}
}

func TestProxyThatDoesNotLetThrough(t *testing.T) {
	t.Parallel()
	state, addr, number := node(t, lardertest.NewCA(t).Leaf(t, "127.0.0.1"))
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, mute, func(conn net.Conn) { _, _ = io.WriteString(conn, "SSH-2.0-OpenSSH\r\n") })
	at := func(scheme, host string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) {
			return &url.URL{Scheme: scheme, Host: host, User: url.UserPassword("cache", "geheim")}, nil
		}
	}
	closed, _ := freePort(t)
	for _, tt := range []struct {
		name  string
		proxy func(*url.URL) (*url.URL, error)
		words []string
	}{
		{"refuses", proxy{status: "403 Forbidden"}.start(t), []string{"the proxy does not let it through: it answers 403 Forbidden"}},
		{"wants another password", proxy{password: "other"}.start(t), nil},
		{"is not there", at("http", closed), []string{"reaching the proxy", "refused"}},
		{"speaks something else", at("http", mute.Addr().String()), []string{"no answer in HTTP"}},
		{"is of a kind not known here", at("socks5", closed), []string{`it is one for "socks5"`}},
		{"is to speak TLS and does not", at("https", mute.Addr().String()), []string{"asking the proxy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := quiet(t, Options{HTTPS: []string{addr}, Port: number, Node: state, Names: []string{"127.0.0.1"}, Proxy: tt.proxy})
			if tt.name == "wants another password" {
				u, _ := tt.proxy(nil)
				o.Proxy = at("http", u.Host)
				tt.words = []string{"it answers 407 Proxy Authentication Required"}
			}
			checks := Run(t.Context(), o)
			want(t, titled(t, checks, "through the proxy"), Warning, append(tt.words, "without it (their list of exceptions, NO_PROXY)")...)
			if strings.Contains(fmt.Sprint(checks), "geheim") {
				t.Errorf("the password is told: %+v", checks)
			}
		})
	}
	o := quiet(t, Options{HTTPS: []string{addr}, Port: number, Node: state, Names: []string{"127.0.0.1"},
		Proxy: func(*url.URL) (*url.URL, error) { return nil, errors.New(`parse "http://cache:geheim@%": bad`) }})
	c := titled(t, Run(t.Context(), o), "through a proxy")
	want(t, c, Warning, "cannot be read", "HTTPS_PROXY")
	if strings.Contains(fmt.Sprint(c), "geheim") {
		t.Errorf("the password is told: %+v", c)
	}
}

// TestNamesThatLeadToAnother are told apart from inspection by what is seen
// where they lead.
func TestNamesThatLeadToAnother(t *testing.T) {
	t.Parallel()
	ca, other := lardertest.NewCA(t), lardertest.NewCA(t)
	state, addr, number := node(t, ca.Leaf(t, "cache.example"))
	second := fmt.Sprintf("127.0.0.2:%d", number)
	if l, err := net.Listen("tcp", second); err != nil {
		t.Skipf("this system has one address for loopback: %v", err)
	} else {
		l.Close()
	}
	stranger := other.Leaf(t, "intranet.example", "named.example")
	serveTLS(t, second, &tls.Config{Certificates: []tls.Certificate{stranger.TLS}})
	o := quiet(t, Options{HTTPS: []string{addr}, Port: number, Node: state, Names: []string{"cache.example", "old.example", "named.example", "balanced.example", "gone.example"},
		Resolver: resolver(t, map[string][]string{"cache.example": {"127.0.0.1"}, "old.example": {"127.0.0.2"}, "named.example": {"127.0.0.2"}, "balanced.example": {"127.0.0.1"}})})
	// By its addresses, this machine is another one than all of these.
	o.machine = here("192.0.2.10")
	checks := Run(t.Context(), o)
	want(t, titled(t, checks, "cache.example:"), OK)
	want(t, titled(t, checks, "balanced.example:"), OK)
	// Loopback is this machine, whatever its addresses are.
	want(t, titled(t, checks, "old.example:"), Failed, "a certificate for intranet.example, named.example, issued by CN=Test authority", "another program of this machine answers there")
	want(t, titled(t, checks, "named.example:"), Failed, "it is made for this very name", "TLS inspection")
	if len(of(checks, IDIntercept)) != 4 {
		t.Errorf("%d ways, want 4: gone.example leads nowhere: %+v", len(of(checks, IDIntercept)), of(checks, IDIntercept))
	}

	foreign := sight{cert: stranger.Cert, remote: here("192.0.2.99").addresses[0].Addr}
	ref := reference{sha256: state.ServedSHA256, what: "the certificate that the node serves", served: true}
	c, _ := compare(o, way{target: target{host: "old.example", port: "443"}}, foreign, ref)
	want(t, c, Failed, "the name leads to another machine, 192.0.2.99", "correct the DNS record of old.example; it should lead here (192.0.2.10)")
	c, _ = compare(o, way{target: target{host: "named.example", port: "443"}}, foreign, ref)
	want(t, c, Failed, "seen at 192.0.2.99, not an address of this machine, and is made for this very name", "exempt named.example:443 from TLS inspection")
}

// TestNameBehindABalancer leads to an address of another machine by which this
// node is reached all the same: no problem.
func TestNameBehindABalancer(t *testing.T) {
	t.Parallel()
	pair := lardertest.NewCA(t).Leaf(t, "cache.example")
	l := serveTLS(t, ":0", &tls.Config{Certificates: []tls.Certificate{pair.TLS}})
	var outside string
	for _, a := range interfaceAddresses() {
		if a.Is4() && !a.IsLinkLocalUnicast() {
			outside = a.Addr.String()
		}
	}
	if outside == "" {
		t.Skip("no address but loopback")
	}
	o := quiet(t, Options{HTTPS: []string{l.Addr().String()}, Port: l.Addr().(*net.TCPAddr).Port, Names: []string{"cache.example"},
		Node:     NodeState{Running: true, HTTPS: []string{l.Addr().String()}, ServedSHA256: sha256Of(pair.Cert)},
		Resolver: resolver(t, map[string][]string{"cache.example": {outside}}), machine: here("203.0.113.7")})
	checks := Run(t.Context(), o)
	want(t, one(t, checks, IDNames), OK, outside+", not of this machine, but it leads here")
	want(t, one(t, checks, IDPort), OK)
}

func TestNothingIsSeen(t *testing.T) {
	t.Parallel()
	pair := lardertest.NewCA(t).Leaf(t, "127.0.0.1")
	state, addr, number := node(t, pair)
	closed, closedNumber := freePort(t)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, plain, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	o := quiet(t, Options{HTTPS: []string{addr}, Port: number, Node: state, Names: []string{"127.0.0.1"}, Connect: []string{closed, plain.Addr().String(), "443"}})
	checks := Run(t.Context(), o)
	want(t, titled(t, checks, addr+" as a client sees it"), OK)
	want(t, titled(t, checks, closed+" as a client sees it"), Warning, "no certificate is seen, although the certificate that the node serves is there to be seen", "refused", fmt.Sprintf("port %d", closedNumber))
	want(t, titled(t, checks, plain.Addr().String()), Warning, "does not look like a TLS handshake")
	want(t, titled(t, checks, "443 as a client sees it"), Failed, "an address that cannot be read", "host:port")

	o = quiet(t, Options{Connect: []string{closed}, Names: []string{"127.0.0.1"}, Port: closedNumber})
	want(t, titled(t, Run(t.Context(), o), closed+" as"), Skipped, "nothing answers yet")
	o = quiet(t, Options{machine: &machine{synchronised: here().synchronised}})
	want(t, one(t, Run(t.Context(), o), IDIntercept), Skipped, "no name or address to go to")
	// Nobody was told an address, and there is nothing better.
	o = quiet(t, Options{HTTPS: []string{addr}, Port: number, Node: state})
	want(t, titled(t, Run(t.Context(), o), addr+" as a client sees it"), OK)
}

// TestCommands are run as they are printed, and what they print is what a
// person gives back.
func TestCommands(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	pair, other := lardertest.NewCA(t).Leaf(t, "localhost", "127.0.0.1"), lardertest.NewCA(t).Leaf(t, "localhost")
	state, addr, number := node(t, pair)
	serveOther := serveTLS(t, "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{other.TLS}})
	run := func(line string) string {
		t.Helper()
		name, command, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if _, err := exec.LookPath(strings.Fields(command)[0]); err != nil {
			t.Skipf("needs %s", name)
		}
		out, err := exec.Command("sh", "-c", "env -u HTTPS_PROXY -u https_proxy -u ALL_PROXY "+command+" 2>&1").CombinedOutput()
		if err != nil && name == "OpenSSL" {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return string(out)
	}
	o := quiet(t, Options{HTTPS: []string{addr}, Port: number, Node: state, Names: []string{"localhost"}, Resolver: resolver(t, map[string][]string{"localhost": {"127.0.0.1"}})})
	for _, host := range []string{"localhost", "127.0.0.1"} {
		lines := inShells(target{host: host, port: fmt.Sprint(number)})
		o.Seen = run(lines[0])
		want(t, one(t, Run(t.Context(), o), IDClient), OK, "the client sees the certificate of this node")
		if curl := run(lines[1]); !strings.Contains(curl, "Test authority") {
			t.Errorf("curl does not show who issued it:\n%s", curl)
		}
		_, otherNumber, _ := net.SplitHostPort(serveOther.Addr().String())
		o.Seen = run(inShells(target{host: host, port: otherNumber})[0])
		want(t, one(t, Run(t.Context(), o), IDClient), Failed, "SHA-256 "+sha256Of(other.Cert), "has SHA-256 "+sha256Of(pair.Cert))
	}
}

func TestCommandsHoldNothingButNames(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"", "-proxy", "a b", "a;reboot", "$(reboot)", "a'b", "a\nb", "`a`", "a|b", "é.example"} {
		if lines := commands(target{host: host, port: "443"}); lines != nil {
			t.Errorf("%q: %q", host, lines)
		}
	}
	if lines := commands(target{host: "fd00::1", port: "443"}); len(lines) != 3 || !strings.Contains(lines[0], "-connect [fd00::1]:443 -noservername") || !strings.Contains(lines[1], "https://[fd00::1]:443/") {
		t.Errorf("IPv6: %q", lines)
	}
}

func TestSeenByAClient(t *testing.T) {
	t.Parallel()
	ca := lardertest.NewCA(t)
	pair, other := ca.Leaf(t, "127.0.0.1"), ca.Leaf(t, "127.0.0.1")
	state, addr, number := node(t, pair)
	colons := func(hash string) string {
		var b strings.Builder
		for i := 0; i < len(hash); i += 2 {
			if i > 0 {
				b.WriteByte(':')
			}
			b.WriteString(strings.ToUpper(hash[i : i+2]))
		}
		return b.String()
	}
	blind := state
	blind.HTTPS = nil // only its word for it
	for _, tt := range []struct {
		name, seen string
		node       NodeState
		result     Result
		words      []string
	}{
		{"nothing", "", state, Info, []string{"nobody looked yet; the certificate that the node serves has SHA-256 " + sha256Of(pair.Cert) + ", SHA-1 " + sha1Of(pair.Cert), "openssl s_client -connect " + addr + " -noservername"}},
		{"SHA-256", sha256Of(pair.Cert), state, OK, nil},
		{"SHA-1", sha1Of(pair.Cert), state, OK, nil},
		{"SHA-1 in lower case", strings.ToLower(sha1Of(pair.Cert)), state, OK, nil},
		{"as OpenSSL prints it", "subject=CN = 127.0.0.1\nissuer=CN = Test authority\nsha256 Fingerprint=" + colons(sha256Of(pair.Cert)) + "\n", state, OK, nil},
		{"as Windows shows it", "\u200e" + strings.ReplaceAll(strings.ToLower(colons(sha1Of(pair.Cert))), ":", " "), state, OK, nil},
		{"as PowerShell prints it", "CN=Test authority\r\n" + sha1Of(pair.Cert) + "\r\n", state, OK, nil},
		{"PEM", "---\nServer certificate\n" + string(pair.CertPEM) + "subject=…", state, OK, nil},
		{"another", sha256Of(other.Cert), state, Failed, []string{"a client sees another certificate (SHA-256 " + sha256Of(other.Cert) + ")", "exempt this node's names"}},
		{"another, SHA-1", sha1Of(other.Cert), state, Failed, []string{"SHA-1 " + sha1Of(other.Cert)}},
		{"another, PEM", string(other.CertPEM), state, Failed, []string{"another certificate issued by CN=Test authority (SHA-256"}},
		{"SHA-1, and only the other is known", sha1Of(pair.Cert), blind, Skipped, []string{"only the SHA-256 is known: " + sha256Of(pair.Cert), "use the command for OpenSSL"}},
		{"something, and nothing is served", sha1Of(pair.Cert), NodeState{}, Warning, []string{"this node has none to show"}},
		{"unreadable", "it works for me", state, Failed, []string{"what a client saw: found neither of them; expected a SHA-1 or SHA-256 thumbprint"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := quiet(t, Options{Port: number, Node: tt.node, Names: []string{"127.0.0.1"}, Seen: tt.seen})
			c := one(t, Run(t.Context(), o), IDClient)
			want(t, c, tt.result, append(tt.words, "to read it on a client", "curl -vk", "TcpClient('127.0.0.1',")...)
		})
	}
	// The word of a node that was not seen, and the files it has it from.
	o := quiet(t, Options{Port: number, Node: blind, Names: []string{"127.0.0.1"}, Seen: sha1Of(pair.Cert)})
	pair.Install(t, o.Dir, "node")
	want(t, one(t, Run(t.Context(), o), IDClient), OK)
}

func TestSeenThatCannotBeRead(t *testing.T) {
	t.Parallel()
	pair := lardertest.NewCA(t).Leaf(t, "127.0.0.1")
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Cert.Raw[:100]})
	for name, tt := range map[string]struct{ seen, found string }{
		"words":         {"no idea", "neither of them"},
		"too short":     {"abcdef", "neither of them"},
		"a hash of 512": {strings.Repeat("ab", 64), "neither of them"},
		"a key":         {string(pair.KeyPEM), "PEM without a whole certificate"},
		"half":          {string(pair.CertPEM[:200]), "PEM without a whole certificate"},
		"broken":        {string(broken), "a certificate that cannot be read"},
		"huge":          {strings.Repeat("a", mostSeen+1), "more than 1 MiB"},
	} {
		_, err := readSeen(tt.seen)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Found != tt.found || p.Expected == "" || p.Next == "" {
			t.Errorf("%s: %v, want found %q", name, err, tt.found)
		}
		if err != nil && name == "a key" && strings.Contains(err.Error(), "MII") {
			t.Errorf("the key is told: %v", err)
		}
	}
}

func FuzzSeen(f *testing.F) {
	pair := lardertest.NewCA(f).Leaf(f, "127.0.0.1")
	for _, s := range []string{"", string(pair.CertPEM), sha1Of(pair.Cert), "sha256 Fingerprint=" + sha256Of(pair.Cert), "\u200eab cd", "AB:CD-EF", "-----BEGIN "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := readSeen(s)
		if (err == nil) == (v == view{}) {
			t.Fatalf("%q: %+v, %v", s, v, err)
		}
		if v.sha256 != "" && (len(v.sha256) != 64 || v.sha256 != strings.ToLower(v.sha256)) || v.sha1 != "" && (len(v.sha1) != 40 || v.sha1 != strings.ToUpper(v.sha1)) {
			t.Fatalf("%q: %+v", s, v)
		}
		if err == nil && v.cert == nil {
			again, err := readSeen(v.text())
			if err != nil || v.sha256 != again.sha256 {
				t.Fatalf("%q: %+v, %v", v.text(), again, err)
			}
		}
	})
}

func FuzzVersions(f *testing.F) {
	for _, v := range []string{"", "v1.2.3", "1.2.3-rc.1", "devel-0123456789ab", "v1.2.3+x", "1.2.3-1.a", "99999999999999999999.0.0"} {
		f.Add(v, "v1.2.3-rc.2")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, okX := compareVersions(a, b)
		y, okY := compareVersions(b, a)
		if okX != okY || x != -y {
			t.Fatalf("%q and %q: %d %v, the other way round %d %v", a, b, x, okX, y, okY)
		}
		if z, ok := compareVersions(a, a); ok && z != 0 {
			t.Fatalf("%q is not itself: %d", a, z)
		}
	})
}

// TestVisitorOfTheProbeWhoStays does not keep Run from coming to an end.
func TestVisitorOfTheProbeWhoStays(t *testing.T) {
	t.Parallel()
	addr, number := freePort(t)
	ports, held := portChecks(t.Context(), quiet(t, Options{HTTPS: []string{addr}, Port: number}).withDefaults())
	want(t, ports[0].check, OK)
	cert, err := throwAway(Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	held.serve(cert)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	held.close()
	if took := time.Since(start); took > fetchTime/2 {
		t.Errorf("closing took %v", took)
	}
}
