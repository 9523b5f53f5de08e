package ports

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// row is a line of Windows' table of listening sockets.
type row struct {
	local netip.AddrPort
	pid   uint32
}

var errTable = errors.New("the system's table of listeners ends too early")

// rows reads MIB_TCPTABLE_OWNER_PID or MIB_TCP6TABLE_OWNER_PID (tcpmib.h) from
// memory: a count, then rows of numbers as the machine has them, but
// addresses and ports as the network has them.
func rows(b []byte, v6 bool) ([]row, error) {
	size, addr, addrLen, port, pid := 24, 4, 4, 8, 20
	if v6 {
		size, addr, addrLen, port, pid = 56, 0, 16, 20, 52
	}
	if len(b) < 4 {
		return nil, errTable
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(len(b)) < uint64(n)*uint64(size) {
		return nil, errTable
	}
	all := make([]row, 0, n)
	for range n {
		ip, _ := netip.AddrFromSlice(b[addr : addr+addrLen])
		all = append(all, row{
			local: netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[port:])),
			pid:   binary.LittleEndian.Uint32(b[pid:]),
		})
		b = b[size:]
	}
	return all, nil
}

// kernelProcess is Windows' process for what the kernel itself serves.
const kernelProcess = 4

func kernel() Process {
	return Process{PID: kernelProcess, Name: "System (HTTP.sys: IIS, WinRM, and others that share ports by URL)", Path: "netsh http show servicestate lists them"}
}
