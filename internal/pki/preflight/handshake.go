package preflight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// wrongName is a server name that no node has (RFC 6761 section 6.4).
const wrongName = "preflight.invalid"

// tlsCheck shakes hands in the ways that clients do.
func tlsCheck(ctx context.Context, o Options, ports []port) Check {
	c := Check{ID: IDTLS, Title: "TLS", Result: Skipped,
		Why: "download clients speak TLS 1.2 or 1.3, come by names and by addresses (then without a server name), and break on HTTP/2"}
	addr, byNode := answering(o, ports)
	if addr == "" {
		c.Found = "nothing answers on the HTTPS port yet"
		return c
	}
	host, number, err := net.SplitHostPort(local(addr))
	if err != nil {
		c.Found = "an address that cannot be read: " + addr
		return c
	}
	t := target{host: host, port: number}
	known := "localhost" // a name as good as any: the node does not choose by it
	for _, n := range o.Names {
		if net.ParseIP(n) == nil && isPlain(n) {
			known = n
			break
		}
	}
	tries := []struct {
		what   string
		config *tls.Config
		sight  sight
		err    error
	}{
		{what: "TLS 1.3", config: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: known}},
		{what: "TLS 1.2", config: &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, ServerName: known}},
		{what: "without a server name", config: &tls.Config{}},
		{what: "another server name", config: &tls.Config{ServerName: wrongName}},
	}
	var wg sync.WaitGroup
	for i := range tries {
		wg.Go(func() {
			tries[i].config.NextProtos = []string{"h2", "http/1.1"} // as Windows offers
			tries[i].sight, tries[i].err = fetch(ctx, nil, t, nil, tries[i].config)
		})
	}
	wg.Wait()
	c.Title, c.Result = "TLS at "+addr, OK
	var found, do []string
	if !byNode {
		found = append(found, "what answers is not known to be this node")
	}
	first := ""
	for _, try := range tries {
		if try.err == nil && !try.sight.state.HandshakeComplete {
			try.err = errUnfinished
		}
		if try.err != nil {
			c.Result = Failed
			found = append(found, fmt.Sprintf("%s: does not work: %s", try.what, errText(try.err)))
			continue
		}
		hash, state := sha256Of(try.sight.cert), try.sight.state
		text := fmt.Sprintf("%s: works, %s", try.what, tls.CipherSuiteName(state.CipherSuite))
		switch {
		case first == "":
			first = hash
		case first != hash:
			c.Result = Failed
			text += ", but with another certificate (SHA-256 " + hash + ")"
		}
		if state.NegotiatedProtocol == "h2" {
			c.Result = Failed
			text += ", but with HTTP/2"
			do = append(do, "serve HTTP/1.1 alone: take away what is before the node, or HTTP/2 from it")
		}
		found = append(found, text)
	}
	if said := normal(o.Node.ServedSHA256); byNode && said != "" && first != "" && said != first {
		c.Result = Failed
		found = append(found, "the node says that it serves another certificate (SHA-256 "+said+") than the one seen here (SHA-256 "+first+"): something on this machine opens TLS")
	}
	if c.Result == Failed {
		do = append(do, "see the node's log for failed handshakes, and that nothing but the node answers on "+addr)
		if !byNode {
			c.Result = Warning
		}
	}
	c.Found, c.Do = strings.Join(found, "\n"), strings.Join(distinct(do), "\n")
	return c
}

var errUnfinished = errors.New("the handshake breaks off after the certificate")

// answering is the address where something answers, the node's own first.
func answering(o Options, ports []port) (addr string, byNode bool) {
	for _, p := range ports {
		if p.byNode {
			return p.addr, true
		}
	}
	if o.Node.Running && len(o.Node.HTTPS) > 0 {
		return o.Node.HTTPS[0], true
	}
	for _, p := range ports {
		if p.taken {
			return p.addr, false
		}
	}
	return "", false
}
