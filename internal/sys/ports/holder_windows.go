package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// deniedHint is what to do when a port may not be opened.
const deniedHint = "it may be reserved: netsh int ipv4 show excludedportrange tcp, netsh http show urlacl"

func isTaken(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

func holder(network string, want netip.AddrPort) (Process, bool, error) {
	for _, family := range []uint32{windows.AF_INET, windows.AF_INET6} {
		table, err := listenTable(family)
		if err != nil {
			return Process{}, false, err
		}
		all, err := rows(table, family == windows.AF_INET6)
		if err != nil {
			return Process{}, false, err
		}
		for _, r := range all {
			if conflicts(network, r.local, want) {
				return describe(r.pid), true, nil
			}
		}
	}
	return Process{}, false, nil
}

// listenTable calls GetExtendedTcpTable, which golang.org/x/sys does not have.
func listenTable(family uint32) ([]byte, error) {
	const ownerPIDListener = 3 // TCP_TABLE_OWNER_PID_LISTENER
	proc := windows.NewLazySystemDLL("iphlpapi.dll").NewProc("GetExtendedTcpTable")
	if err := proc.Find(); err != nil {
		return nil, err
	}
	size := uint32(16 << 10)
	for range 8 { // the table may grow between two calls
		buf := make([]byte, size)
		r, _, _ := proc.Call(uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0, uintptr(family), ownerPIDListener, 0)
		switch err := windows.Errno(r); err {
		case windows.NO_ERROR:
			return buf, nil
		case windows.ERROR_INSUFFICIENT_BUFFER:
			size += 4 << 10
		default:
			return nil, fmt.Errorf("GetExtendedTcpTable: %w", err)
		}
	}
	return nil, errors.New("GetExtendedTcpTable: the table grows faster than it is read")
}

// describe says what can be learnt about a process; without rights that is
// little more than its number.
func describe(pid uint32) Process {
	if pid == kernelProcess {
		return kernel()
	}
	p := Process{PID: int(pid)}
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return p
	}
	defer windows.CloseHandle(h)
	path := make([]uint16, windows.MAX_LONG_PATH)
	n := uint32(len(path))
	if windows.QueryFullProcessImageName(h, 0, &path[0], &n) == nil {
		p.Path = windows.UTF16ToString(path[:n])
		p.Name = strings.TrimSuffix(filepath.Base(p.Path), ".exe")
	}
	var token windows.Token
	if windows.OpenProcessToken(h, windows.TOKEN_QUERY, &token) != nil {
		return p
	}
	defer token.Close()
	if u, err := token.GetTokenUser(); err == nil {
		p.User = u.User.Sid.String()
		if account, domain, _, err := u.User.Sid.LookupAccount(""); err == nil {
			p.User = domain + `\` + account
		}
	}
	return p
}
