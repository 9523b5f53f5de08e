package httpsrv

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// GuardHost lets only requests pass whose Host is localhost, a loopback
// address, the address the connection arrived at, or one of allowed (names or
// addresses; a port is ignored). A web page that points its own name at a
// loopback address, to reach a listener that trusts whoever is on this
// machine, keeps its own name in Host and gets 403 (DNS rebinding). Requests
// over Unix sockets pass: pages cannot make them.
func GuardHost(next http.Handler, allowed ...string) http.Handler {
	names := make([]string, 0, len(allowed))
	for _, a := range allowed {
		if name := hostname(a); name != "" {
			names = append(names, name)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ownHost(r, names) {
			writeError(w, r, &Error{
				Status:  http.StatusForbidden,
				Message: fmt.Sprintf("This listener does not answer for host %q; use localhost or its address.", r.Host),
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func ownHost(r *http.Request, names []string) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, ok := local.(*net.UnixAddr); ok {
		return true
	}
	name := hostname(r.Host)
	if name == "localhost" || slices.Contains(names, name) {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	if ip = ip.Unmap(); ip.IsLoopback() {
		return true
	}
	tcp, ok := local.(*net.TCPAddr)
	return ok && tcp.AddrPort().Addr().Unmap().WithZone("") == ip.WithZone("")
}

// hostname takes the port, brackets and final dot off a Host field, and
// lower-cases it.
func hostname(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// GuardOrigin refuses with 403 what a browser sends on behalf of another site
// (http.CrossOriginProtection). GET, HEAD and OPTIONS pass always, so they must
// change nothing. trusted are origins such as "https://portal.example" that
// may send nevertheless; one that is not an origin is an error.
func GuardOrigin(next http.Handler, trusted ...string) (http.Handler, error) {
	p := http.NewCrossOriginProtection()
	for _, origin := range trusted {
		if err := p.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("trusted origin %q: %w", origin, err)
		}
	}
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, r, &Error{
			Status:  http.StatusForbidden,
			Message: "A page of another site sent this request; it was not carried out.",
		})
	}))
	return p.Handler(next), nil
}
