package ports

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
)

func TestOwnListenerIsFound(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		t.Skip("who listens is not known on this system")
	}
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		l, err := net.Listen("tcp4", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, addr := range []string{"127.0.0.1:" + port, ":" + port, "localhost:" + port} {
			p, found, err := Holder("tcp", addr)
			if wine() && err == nil && found && p.PID == 0 {
				continue
			}
			if err != nil || !found || p.PID != os.Getpid() {
				t.Fatalf("%s while %s is listened on: %+v, %v, %v; want process %d", addr, listen, p, found, err, os.Getpid())
			}
			self, _ := os.Executable()
			if !strings.EqualFold(filepath.Base(p.Path), filepath.Base(self)) || p.User == "" {
				t.Errorf("%s: %+v, want path %s and an account", addr, p, self)
			}
			err = Free(addr)
			if err == nil || !strings.Contains(err.Error(), "held by "+p.String()) {
				t.Errorf("Free(%s): %v, want it to name %s", addr, err, p)
			}
		}
		l.Close()
		if p, found, err := Holder("tcp", "127.0.0.1:"+port); found || err != nil {
			t.Errorf("after closing: %+v, %v, %v", p, found, err)
		}
	}
}

func TestFreePort(t *testing.T) {
	t.Parallel()
	if err := Free("127.0.0.1:0"); err != nil {
		t.Error(err)
	}
	if err := Free("192.0.2.1:0"); err == nil || !strings.HasPrefix(err.Error(), "192.0.2.1:0: ") {
		t.Errorf("an address of somebody else: %v", err)
	}
}

func TestMistakesOfCallers(t *testing.T) {
	t.Parallel()
	if _, _, err := Holder("udp", ":53"); err == nil || !strings.Contains(err.Error(), `found "udp", expected tcp, tcp4 or tcp6`) {
		t.Errorf("udp: %v", err)
	}
	if _, _, err := Holder("tcp", "443"); err == nil || !strings.Contains(err.Error(), "missing port") {
		t.Errorf("no port: %v", err)
	}
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network, listener, want string
		conflict                bool
	}{
		{"tcp", "10.0.0.1:443", "10.0.0.1:443", true},
		{"tcp", "10.0.0.1:443", "10.0.0.1:80", false},
		{"tcp", "10.0.0.1:443", "10.0.0.2:443", false},
		{"tcp", "10.0.0.1:443", "0.0.0.0:443", true},
		{"tcp", "10.0.0.1:443", "[::]:443", true},
		{"tcp", "0.0.0.0:443", "10.0.0.2:443", true},
		{"tcp", "0.0.0.0:443", "[2001:db8::1]:443", false},
		{"tcp", "[::]:443", "10.0.0.2:443", true},
		{"tcp", "[::]:443", "[2001:db8::1]:443", true},
		{"tcp", "[2001:db8::1]:443", "0.0.0.0:443", false},
		{"tcp4", "[2001:db8::1]:443", "[::]:443", false},
		{"tcp4", "[::]:443", "10.0.0.2:443", true},
		{"tcp6", "0.0.0.0:443", "[::]:443", false},
		{"tcp6", "[::]:443", "[::1]:443", true},
	} {
		if got := conflicts(c.network, netip.MustParseAddrPort(c.listener), netip.MustParseAddrPort(c.want)); got != c.conflict {
			t.Errorf("%s: listener %s, wanted %s: %v, want %v", c.network, c.listener, c.want, got, c.conflict)
		}
	}
	if !conflicts("tcp", netip.MustParseAddrPort("10.0.0.1:443"), netip.AddrPortFrom(netip.Addr{}, 443)) {
		t.Error("a listener on one address is not in the way of all addresses")
	}
}

const tcpText = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0000000000000000 20 4 30 10 -1
   2: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000 54321        0 200 1 0000000000000000 100 0 0 10 0
`

const tcp6Text = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 300 1 0000000000000000 100 0 0 10 0
   1: B80D0120000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 400 1 0000000000000000 100 0 0 10 0
`

func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: os.ModeSymlink | 0o777}
}

func TestProcessesOfProc(t *testing.T) {
	t.Parallel()
	proc := fstest.MapFS{
		"self/net/tcp":   {Data: []byte(tcpText)},
		"self/net/tcp6":  {Data: []byte(tcp6Text)},
		"1/fd/30":        link("socket:[300]"),
		"1/comm":         {Data: []byte("systemd\n")},
		"12/fd/0":        link("/dev/null"),
		"12/fd/7":        link("socket:[100]"),
		"12/comm":        {Data: []byte("dnsmasq\n")},
		"12/exe":         link("/usr/sbin/dnsmasq"),
		"800/fd/6":       link("socket:[300]"),
		"800/comm":       {Data: []byte("nginx\n")},
		"800/cmdline":    {Data: []byte("nginx: master process\x00")},
		"801/fd/6":       link("socket:[300]"),
		"801/comm":       {Data: []byte("nginx\n")},
		"fs/nothing":     {},
		"13/comm":        {Data: []byte("no fd to see\n")},
		"self/net/other": {},
	}
	for addr, want := range map[string]string{
		"127.0.0.1:8080":   "dnsmasq (process 12, /usr/sbin/dnsmasq, account root)",
		"10.1.1.1:8080":    "",
		"0.0.0.0:80":       "nginx (process 800, nginx: master process, account root)", // nor systemd, nor the worker
		"[2001:db8::1]:81": "a process of account root, whose name only root may see",
		"10.1.1.1:443":     "a process of account number 54321, whose name only root may see",
		"10.1.1.1:82":      "",
	} {
		p, found, err := procHolder(proc, "tcp", netip.MustParseAddrPort(addr))
		if err != nil || found != (want != "") || found && strings.ReplaceAll(p.String(), accountName(0), "root") != want {
			t.Errorf("%s: %s, %v, %v; want %q", addr, p, found, err, want)
		}
	}
	delete(proc, "self/net/tcp6")
	if _, found, err := procHolder(proc, "tcp", netip.MustParseAddrPort("127.0.0.1:8080")); err != nil || !found {
		t.Errorf("a kernel without IPv6: %v, %v", found, err)
	}
	delete(proc, "self/net/tcp")
	if _, _, err := procHolder(proc, "tcp", netip.MustParseAddrPort("127.0.0.1:8080")); err == nil {
		t.Error("a /proc that cannot be read: no error, so the port would look free")
	}
}

func TestBrokenProcText(t *testing.T) {
	t.Parallel()
	const good = "   0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 100 1"
	for bad, want := range map[string]string{
		"   0: 0100007F:1F90 00000000:0000 0A":                "line 2: found 4 fields, expected at least 10",
		strings.Replace(good, "0100007F", "0100007", 1):       `line 2: address: found "0100007", expected 8 or 32 hexadecimal digits`,
		strings.Replace(good, ":1F90", ":FFFFF", 1):           "line 2: port: ",
		strings.Replace(good, " 0 0 0 100", " 0 x 0 100", 1):  "line 2: account: ",
		strings.Replace(good, " 0 0 0 100", " 0 0 0 -100", 1): "line 2: inode: ",
	} {
		if _, err := listeners([]byte("heading\n" + bad + "\n")); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", bad, err, want)
		}
	}
	if got, err := listeners([]byte("heading\n" + good + "\n")); err != nil || len(got) != 1 {
		t.Errorf("the line all others are made from: %v, %v", got, err)
	}
}

// windowsTable is a table as GetExtendedTcpTable writes it.
func windowsTable(v6 bool, all ...row) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(all)))
	for _, r := range all {
		port := binary.BigEndian.AppendUint16(nil, r.local.Port())
		port = append(port, 0xaa, 0xbb) // the upper half is not promised to be zero
		if v6 {
			ip := r.local.Addr().As16()
			b = append(b, ip[:]...)
			b = binary.LittleEndian.AppendUint32(b, 7) // scope
			b = append(b, port...)
			b = append(b, make([]byte, 16+4+4)...)
			b = binary.LittleEndian.AppendUint32(b, 2) // listening
		} else {
			ip := r.local.Addr().As4()
			b = binary.LittleEndian.AppendUint32(b, 2)
			b = append(b, ip[:]...)
			b = append(b, port...)
			b = append(b, make([]byte, 8)...)
		}
		b = binary.LittleEndian.AppendUint32(b, r.pid)
	}
	return b
}

func TestTablesOfWindows(t *testing.T) {
	t.Parallel()
	for v6, all := range map[bool][]row{
		false: {{netip.MustParseAddrPort("0.0.0.0:80"), 4}, {netip.MustParseAddrPort("10.0.0.5:443"), 4711}},
		true:  {{netip.MustParseAddrPort("[::]:443"), 12}, {netip.MustParseAddrPort("[2001:db8::5]:8080"), 65536}},
	} {
		table := append(windowsTable(v6, all...), 1, 2, 3) // and what the buffer had room for
		got, err := rows(table, v6)
		if err != nil || len(got) != 2 || got[0] != all[0] || got[1] != all[1] {
			t.Errorf("got %v, %v; want %v", got, err, all)
		}
		for n := range len(table) - 3 {
			if _, err := rows(table[:n], v6); err == nil {
				t.Errorf("a table cut at %d: no error", n)
			}
		}
	}
	if text := kernel().String(); !strings.Contains(text, "HTTP.sys: IIS, WinRM") || !strings.Contains(text, "process 4") {
		t.Error(text)
	}
}

func FuzzListeners(f *testing.F) {
	f.Add([]byte(tcpText))
	f.Add([]byte(tcp6Text))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := listeners(text)
		if err != nil && len(all) > 0 {
			t.Errorf("both %v and %v", all, err)
		}
		for _, s := range all {
			if !s.local.IsValid() {
				t.Errorf("no address in %+v", s)
			}
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add(windowsTable(false, row{netip.MustParseAddrPort("0.0.0.0:80"), 4}), false)
	f.Add(windowsTable(true, row{netip.MustParseAddrPort("[::]:80"), 4}), true)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		all, err := rows(b, v6)
		if err != nil {
			return
		}
		if len(all)*24 > len(b) {
			t.Errorf("%d rows out of %d bytes", len(all), len(b))
		}
	})
}
