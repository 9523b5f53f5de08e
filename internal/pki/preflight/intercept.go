package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const whyIntercept = "clients take only a certificate that they trust for the name; what opens TLS on the way shows its own, and clients then go past the node without saying so"

// way is one way to a target.
type way struct {
	target
	proxy *url.URL // nil: none
}

func (w way) title() string {
	text := w.String() + " as a client sees it"
	if w.proxy != nil {
		text += " through the proxy " + w.proxy.Host
	}
	return text
}

// interceptChecks goes every way that clients may go and compares what is seen
// there with what this node shows. reached are the names that led here.
func interceptChecks(ctx context.Context, o Options, names []Name, ref reference) (checks []Check, reached map[string]bool) {
	ways, checks := waysOf(o, names)
	if len(ways) == 0 && len(checks) == 0 {
		return []Check{{ID: IDIntercept, Title: "What clients see", Result: Skipped, Why: whyIntercept, Found: "no name or address to go to"}}, nil
	}
	done := make([]Check, len(ways))
	same := make([]bool, len(ways))
	someAtOnce(len(ways), func(i int) {
		s, err := fetch(ctx, o.Resolver, ways[i].target, ways[i].proxy, nil)
		if err != nil {
			done[i] = unseen(ctx, ways[i], err, ref)
			return
		}
		done[i], same[i] = compare(o, ways[i], s, ref)
	})
	reached = make(map[string]bool)
	for i, w := range ways {
		if same[i] && w.proxy == nil && w.name != nil {
			reached[w.name.Name] = true
		}
	}
	return append(done, checks...), reached
}

// waysOf lists where to go: each name, directly and by the proxy that is set
// for it, and each address that clients are told. An address that nobody was
// told is only for want of anything better. The checks are for what cannot be
// tried at all.
func waysOf(o Options, names []Name) (ways []way, checks []Check) {
	number := strconv.Itoa(o.Port)
	add := func(t target, direct bool) {
		if slices.ContainsFunc(ways, func(w way) bool { return w.String() == t.String() }) {
			return
		}
		if direct {
			ways = append(ways, way{target: t})
		}
		proxy, err := o.Proxy(&url.URL{Scheme: "https", Host: t.String(), Path: "/"})
		switch {
		case err != nil:
			checks = append(checks, Check{ID: IDIntercept, Title: t.String() + " through a proxy", Result: Warning, Why: whyIntercept,
				Found: "the setting of the proxy cannot be read", Do: "correct HTTPS_PROXY; expected http://host:port"})
		case proxy != nil:
			ways = append(ways, way{t, proxy})
		}
	}
	for i, n := range names {
		if len(n.Addresses) == 0 && n.Source != FromConfiguration || n.isAddress() && n.Source != FromConfiguration {
			continue
		}
		add(target{n.Name, number, &names[i]}, len(n.Addresses) > 0)
	}
	for _, addr := range o.Connect {
		host, number, err := net.SplitHostPort(addr)
		if err != nil {
			checks = append(checks, Check{ID: IDIntercept, Title: addr + " as a client sees it", Result: Failed, Why: whyIntercept,
				Found: "an address that cannot be read", Do: "write it as host:port"})
			continue
		}
		add(target{host: host, port: number}, true)
	}
	if len(ways) == 0 {
		if i := slices.IndexFunc(names, func(n Name) bool { return n.isAddress() && !n.LinkLocal }); i >= 0 {
			add(target{names[i].Name, number, &names[i]}, true)
		}
	}
	return ways, checks
}

// unseen is the check of a way on which no certificate was seen.
func unseen(ctx context.Context, w way, err error, ref reference) Check {
	c := Check{ID: IDIntercept, Title: w.title(), Result: Skipped, Why: whyIntercept}
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		c.Found = "not looked at in time"
	case errors.As(err, &dns):
		c.Found = fmt.Sprintf("the name leads nowhere from here: %v", err)
	case w.proxy != nil:
		c.Result, c.Found = Warning, errText(err)
		c.Do = "if clients use this proxy, let it pass " + w.String() + ", or better let clients reach the node without it (their list of exceptions, NO_PROXY)"
	case ref.served:
		c.Result, c.Found = Warning, "no certificate is seen, although "+ref.what+" is there to be seen: "+errText(err)
		c.Do = "see that no firewall on this machine or on the way closes port " + w.port + ", and that the listener is on the address the name leads to"
	default:
		c.Found = "nothing answers yet: " + errText(err)
	}
	return c
}

func errText(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer within " + fetchTime.String()
	}
	return err.Error()
}

// compare is the check of a way on which a certificate was seen.
func compare(o Options, w way, s sight, ref reference) (c Check, same bool) {
	c = Check{ID: IDIntercept, Title: w.title(), Result: OK, Why: whyIntercept}
	hash := sha256Of(s.cert)
	if ref.sha256 == hash {
		c.Found = ref.what + ": nothing on this way opens TLS (SHA-256 " + hash + ")"
		return c, true
	}
	seen := "a certificate for " + subject(s) + ", issued by " + issuer(s) + " (SHA-256 " + hash + ")"
	if ref.sha256 == "" {
		c.Result, c.Found = Warning, seen+", and this node has none to show"
		c.Do = "find out what answers there before a certificate is imported: another program on this machine, another machine that the name leads to, or something on the way"
		return c, false
	}
	c.Result = Failed
	c.Found = seen + "; expected " + ref.what + " (SHA-256 " + ref.sha256 + ")"
	ours := o.machine.has(s.remote) || s.remote.IsLoopback()
	switch named := s.cert.VerifyHostname(w.host) == nil; {
	case w.proxy != nil:
		c.Found += "\nthe proxy opens TLS on the way (TLS inspection), or leads the name to another machine"
		c.Do = "exempt " + w.host + " from TLS inspection at " + w.proxy.Host + ", or let clients reach the node without the proxy (their list of exceptions, NO_PROXY)"
	case named && !ours:
		c.Found += "\nit was seen at " + s.remote.String() + ", not an address of this machine, and is made for this very name: something between opens TLS (TLS inspection), or another machine has that name"
		c.Do = "exempt " + w.String() + " from TLS inspection, or correct the name's DNS record"
	case named:
		c.Found += "\nit is made for this very name: something on this machine or on the way opens TLS (TLS inspection), or another program serves here with a certificate of its own"
		c.Do = "exempt " + w.String() + " from TLS inspection (firewall, security software on this machine), or stop the other program"
	case !ours:
		c.Found += "\nthe name leads to another machine, " + s.remote.String()
		c.Do = "correct the DNS record of " + w.host + "; it should lead here (" + o.machine.text() + ")"
	default:
		c.Found += "\nanother program of this machine answers there"
		c.Do = "see who has the port, and let the node have it: " + whoHolds(w.port)
	}
	if lines := inShells(w.target); len(lines) > 0 {
		c.Do += "\nthen look again, on a client too:\n" + strings.Join(lines, "\n")
	}
	return c, false
}

func subject(s sight) string {
	names := append([]string(nil), s.cert.DNSNames...)
	for _, ip := range s.cert.IPAddresses {
		names = append(names, ip.String())
	}
	switch len(names) {
	case 0:
		return distinguished(s.cert.Subject.String())
	case 1, 2, 3:
		return distinguished(strings.Join(names, ", "))
	}
	return distinguished(strings.Join(names[:3], ", ")) + " and others"
}

func issuer(s sight) string { return distinguished(s.cert.Issuer.String()) }

// distinguished is a name from a certificate that anybody may have made: what
// a terminal would obey is written out.
func distinguished(name string) string {
	if name == "" {
		return "nobody named"
	}
	quoted := strconv.QuoteToGraphic(name)
	if quoted == `"`+name+`"` {
		return name
	}
	return quoted
}

// clientCheck compares what was seen on a client with what this node shows,
// and says how to look. This machine alone cannot tell: what it sends to its
// own addresses never leaves it.
func clientCheck(o Options, names []Name, ref reference) Check {
	c := Check{ID: IDClient, Title: "The certificate on a client", Result: Info,
		Why: "what this machine sends to itself does not pass what is between it and its clients: only a client sees that"}
	var how []string
	if ways, _ := waysOf(o, names); len(ways) > 0 {
		how = inShells(ways[0].target)
	}
	if len(how) > 0 {
		how = append([]string{"to read it on a client:"}, how...)
	}
	serves := !ref.probe && ref.sha256 != ""
	found := "nobody looked yet"
	if serves {
		found += "; " + shown(ref)
	} else {
		found += "; there is nothing to see until the node has a certificate"
	}
	switch v, err := readSeen(o.Seen); {
	case o.Seen == "" && serves:
		c.Do = "run one of these on a client and compare, or give this check what it prints"
	case o.Seen == "":
		c.Do = "run one of these on a client when a certificate is imported, and give this check what it prints"
	case err != nil:
		c.Result, found, c.Do = Failed, err.Error(), "give what one of the commands printed, or the thumbprint alone"
	case !serves:
		c.Result, found = Warning, "a client sees a certificate"+byIssuer(v)+", and this node has none to show"
		c.Do = "find out what answered the client: another machine that the name leads to, or something on the way"
	case v.sha256 != "" && v.sha256 == ref.sha256, v.sha1 != "" && v.sha1 == ref.sha1:
		c.Result, found = OK, "the client sees the certificate of this node: nothing between them opens TLS"
	case v.sha256 == "" && ref.sha1 == "":
		c.Result, found = Skipped, "a SHA-1 thumbprint, and of the node's certificate only the SHA-256 is known: "+ref.sha256
		c.Do = "read the SHA-256 on the client: use the command for OpenSSL"
	default:
		c.Result = Failed
		found = "a client sees another certificate" + byIssuer(v) + " (" + v.text() + "); " + shown(ref)
		c.Do = "exempt this node's names from TLS inspection on the way to that client (proxy, firewall, security software on the client), or correct where the name leads there (nslookup on the client)"
	}
	c.Found = joinLines(append([]string{found}, how...)...)
	return c
}

func shown(ref reference) string {
	text := ref.what + " has SHA-256 " + ref.sha256
	if ref.sha1 != "" {
		text += ", SHA-1 " + ref.sha1
	}
	return text
}

func byIssuer(v view) string {
	if v.cert == nil {
		return ""
	}
	return " issued by " + distinguished(v.cert.Issuer.String())
}

func (v view) text() string {
	if v.sha256 != "" {
		return "SHA-256 " + v.sha256
	}
	return "SHA-1 " + v.sha1
}
