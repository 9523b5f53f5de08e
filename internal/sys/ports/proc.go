package ports

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// socket is a line of /proc/net/tcp that matters here.
type socket struct {
	local netip.AddrPort
	uid   uint32
	inode uint64
}

// procHolder is holder for a machine whose /proc is proc. It is compiled on
// every system, as it is only text.
func procHolder(proc fs.FS, network string, want netip.AddrPort) (Process, bool, error) {
	var in []socket
	for _, name := range []string{"self/net/tcp", "self/net/tcp6"} {
		b, err := fs.ReadFile(proc, name)
		if errors.Is(err, fs.ErrNotExist) && name == "self/net/tcp6" { // a kernel without IPv6
			continue
		}
		if err != nil {
			return Process{}, false, err
		}
		sockets, err := listeners(b)
		if err != nil {
			return Process{}, false, fmt.Errorf("/proc/%s: %w", name, err)
		}
		for _, s := range sockets {
			if conflicts(network, s.local, want) {
				in = append(in, s)
			}
		}
	}
	if len(in) == 0 {
		return Process{}, false, nil
	}
	for _, s := range in {
		pids, err := owners(proc, s.inode)
		if err != nil {
			return Process{}, false, err
		}
		if len(pids) > 0 {
			return describeProc(proc, pids[0], s.uid), true, nil
		}
	}
	return Process{User: accountName(in[0].uid)}, true, nil
}

// listeners reads the sockets that listen from the text of /proc/net/tcp or
// tcp6 (proc_net_tcp.txt of the kernel's documentation).
func listeners(text []byte) ([]socket, error) {
	const listening = "0A"
	var all []socket
	for n, line := range slices.Collect(strings.Lines(string(text))) {
		f := strings.Fields(line)
		if n == 0 || len(f) == 0 { // the heading
			continue
		}
		if len(f) < 10 {
			return nil, fmt.Errorf("line %d: found %d fields, expected at least 10", n+1, len(f))
		}
		if f[3] != listening {
			continue
		}
		local, err := hexAddr(f[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		uid, err := strconv.ParseUint(f[7], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: account: %w", n+1, err)
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: inode: %w", n+1, err)
		}
		all = append(all, socket{local, uint32(uid), inode})
	}
	return all, nil
}

// hexAddr reads 0100007F:1F90: words of four bytes as a little-endian machine
// has them in memory, then the port. Linux runs the node on such machines only.
func hexAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address: found %q, expected 8 or 32 hexadecimal digits", host)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port: %w", err)
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), nil
}

// owners is who has a socket open, the one to name first: servers hand their
// socket to children, and a service manager opens it for a server.
func owners(proc fs.FS, inode uint64) (pids []int, err error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, err
	}
	target := fmt.Sprintf("socket:[%d]", inode)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fds, err := fs.ReadDir(proc, path.Join(e.Name(), "fd"))
		if err != nil { // another account's, or just gone
			continue
		}
		for _, fd := range fds {
			if to, err := fs.ReadLink(proc, path.Join(e.Name(), "fd", fd.Name())); err == nil && to == target {
				pids = append(pids, pid)
				break
			}
		}
	}
	slices.Sort(pids)
	if len(pids) > 1 && pids[0] == 1 {
		pids = pids[1:]
	}
	return pids, nil
}

func describeProc(proc fs.FS, pid int, uid uint32) Process {
	dir := strconv.Itoa(pid)
	p := Process{PID: pid, User: accountName(uid)}
	if b, err := fs.ReadFile(proc, path.Join(dir, "comm")); err == nil {
		p.Name = strings.TrimSpace(string(b))
	}
	if to, err := fs.ReadLink(proc, path.Join(dir, "exe")); err == nil {
		p.Path = to
	} else if b, err := fs.ReadFile(proc, path.Join(dir, "cmdline")); err == nil {
		first, _, _ := bytes.Cut(b, []byte{0})
		p.Path = string(first)
	}
	return p
}
