package origin

import "syscall"

// platformRefused is WSAECONNREFUSED; package syscall's ECONNREFUSED is not a
// number that Windows' sockets return.
const platformRefused = syscall.Errno(10061)
