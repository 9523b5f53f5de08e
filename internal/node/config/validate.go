package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"larder/internal/strictyaml"
)

// addFunc records what is wrong with a field.
type addFunc func(field, format string, args ...any)

func (c *Config) validate(add addFunc) {
	c.Listen.validate(add)
	c.validateDrives(add)
	c.Catalog.validate(add)
	c.Upstream.validate(add)
	if absolute("state", c.State, true, add) || c.TLS.Dir != "" && c.TLS.Dir != c.tlsDir() {
		absolute("tls.dir", c.TLS.Dir, true, add)
	}
	c.TLS.validate(add)
	validateControl(c.Control.URL, add)
	absolute("log.access", c.Log.Access, false, add)
	if size := c.Log.AccessMaxSize; size < 0 || size > 0 && size < 1e6 {
		add("log.access_max_size", "found %s, expected at least 1MB, or 0 where something else rotates the file", size)
	}
	if keep := c.Log.AccessKeep; keep < 0 || keep > 1000 {
		add("log.access_keep", "found %d, expected 0 to 1000 files", keep)
	}
	if c.Reserve < 0 {
		add("reserve", "found %d, expected a size, or 0 for the default", c.Reserve)
	}
	if c.ScrubRate < 0 {
		add("scrub_rate", "found %d, expected a rate, or 0 for no scrubbing", c.ScrubRate)
	}
}

func (l *Listen) validate(add addFunc) {
	type listener struct{ field, host, port string }
	var seen []listener
	check := func(field, address string) {
		host, port, err := splitAddress(address)
		if err != nil {
			add(field, "%s", err)
			return
		}
		for _, other := range seen {
			if port == "0" || port != other.port || host != other.host && host != "" && other.host != "" {
				continue
			}
			add(field, "%q takes the same port as %s; give each listener its own", address, other.field)
			break
		}
		seen = append(seen, listener{field, host, port})
	}
	for i, a := range l.HTTP {
		check(fmt.Sprintf("listen.http[%d]", i), a)
	}
	for i, a := range l.HTTPS {
		check(fmt.Sprintf("listen.https[%d]", i), a)
	}
	if l.Connections < 0 {
		add("listen.connections", "found %d, expected a number from 1, or 0 for what the system allows", l.Connections)
	}
	if l.ConnectionsPerAddress < 1 {
		add("listen.connections_per_address", "found %d, expected a number from 1", l.ConnectionsPerAddress)
	}
	if len(l.HTTP)+len(l.HTTPS) == 0 {
		add("listen", "neither http nor https has an address; a node that cannot be reached serves nobody")
	}
	check("listen.admin", l.Admin)
}

// splitAddress takes host:port apart. The host is empty or *, an IP address, or
// a name.
func splitAddress(address string) (host, port string, err error) {
	const want = `expected host:port such as "127.0.0.1:8080", or ":8080" for all addresses`
	if address == "" {
		return "", "", fmt.Errorf("is empty; %s", want)
	}
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		if _, numeric := portNumber(address); numeric == nil {
			return "", "", fmt.Errorf("found %q, a port alone; write %q", clip(address), ":"+address)
		}
		if ip, e := netip.ParseAddr(address); e == nil {
			return "", "", fmt.Errorf("found %q, an address without a port; %s", clip(address), `write `+strconv.Quote(net.JoinHostPort(ip.String(), "80")))
		}
		return "", "", fmt.Errorf("found %q, %s", clip(address), want)
	}
	n, err := portNumber(port)
	if err != nil {
		return "", "", fmt.Errorf("found port %q, expected a number from 0 to 65535", clip(port))
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsFunc(host, notInHostName) {
		return "", "", fmt.Errorf("found host %q, expected an IP address or a name; %s", clip(host), want)
	}
	return strings.ToLower(host), strconv.Itoa(n), nil
}

// portNumber reads a port as digits only: the system would look others up in
// a table of names.
func portNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err
}

func (c *Config) validateDrives(add addFunc) {
	if len(c.Drives) == 0 {
		add("drives", "must be set; for example [{path: /srv/larder/1, size: 500GB}]")
	}
	for i, d := range c.Drives {
		at := fmt.Sprintf("drives[%d]", i)
		if absolute(at+".path", d.Path, true, add) {
			for j, other := range c.Drives[:i] {
				if overlap(d.Path, other.Path) {
					add(at+".path", "%q overlaps drives[%d] %q; each drive needs a directory of its own", d.Path, j, other.Path)
					break
				}
			}
		}
		switch {
		case d.Size <= 0:
			add(at+".size", "must be set; 80 %% of the drive is a good start, such as 500GB")
		case d.Size < 1<<20:
			add(at+".size", "found %d bytes, expected at least 1MiB; write the unit, such as 500GB", d.Size)
		}
	}
}

func (t *TLS) validate(add addFunc) {
	absolute("tls.roots", t.Roots, false, add)
	switch t.OnRevoked {
	case "previous", "off", "keep":
	default:
		add("tls.on_revoked", "found %q, expected previous, off or keep", clip(t.OnRevoked))
	}
	for i, name := range t.ClientNames {
		field := fmt.Sprintf("tls.client_names[%d]", i)
		_, err := netip.ParseAddr(name)
		switch {
		case name == "":
			add(field, "is empty; expected a host name or an address, as clients use it")
		case err == nil:
		case strings.Contains(name, "*"):
			add(field, "found %q, expected the very name that clients use: a wildcard is for certificates", clip(name))
		case strings.ContainsFunc(name, notInHostName) || strings.Contains(name, ".."):
			add(field, "found %q, expected a host name or an address without scheme, port or path", clip(name))
		}
	}
}

func notInHostName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
}

// overlap reports whether a directory is another or lies below it.
func overlap(a, b string) bool {
	a, b = filepath.Clean(a), filepath.Clean(b)
	return within(a, b) || within(b, a)
}

func within(dir, root string) bool {
	rel, err := filepath.Rel(root, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// absolute checks a path and reports whether it is good.
func absolute(field, path string, required bool, add addFunc) bool {
	switch {
	case path == "" && required:
		add(field, "must be set; expected an absolute path")
		return false
	case path == "":
		return true
	case strings.ContainsRune(path, 0):
		add(field, "holds a zero byte; expected an absolute path")
		return false
	case !filepath.IsAbs(path):
		add(field, "found %q, expected an absolute path: a service has no working directory to rely on", clip(path))
		return false
	}
	return true
}

func (c *Catalog) validate(add addFunc) {
	for i, name := range c.Builtin {
		at := fmt.Sprintf("catalog.builtin[%d]", i)
		if name == "" {
			add(at, "is empty; expected the name of a built-in publisher")
		}
		for j, other := range c.Builtin[:i] {
			if name == other && name != "" {
				add(at, "%q is already builtin[%d]; remove one", clip(name), j)
				break
			}
		}
	}
	for i, dir := range c.Dirs {
		at := fmt.Sprintf("catalog.dirs[%d]", i)
		if !absolute(at, dir, true, add) {
			continue
		}
		for j, other := range c.Dirs[:i] {
			if filepath.Clean(dir) == filepath.Clean(other) {
				add(at, "%q is already dirs[%d]; remove one", clip(dir), j)
				break
			}
		}
	}
}

func (u *Upstream) validate(add addFunc) {
	absolute("upstream.proxy_ca", u.ProxyCA, false, add)
	u.Limit.validate("upstream.limit", add)
	span := func(field string, d, most time.Duration) {
		if d <= 0 || d > most {
			add(field, "found %s, expected more than 0s and at most %s", strictyaml.Duration(d), strictyaml.Duration(most))
		}
	}
	span("upstream.connect_timeout", u.ConnectTimeout, time.Minute)
	span("upstream.silence_timeout", u.SilenceTimeout, 10*time.Minute)
	if n := u.ConnectionsPerOrigin; n < 1 || n > 10000 {
		add("upstream.connections_per_origin", "found %d, expected 1 to 10000", n)
	}
}

func validateControl(s string, add addFunc) {
	if s == "" {
		return
	}
	const want = "expected an https URL such as https://control.example:8440"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || !validPort(u):
		add("control.url", "is not a URL; %s", want) // not quoted: it may hold a password
	case u.Scheme != "https":
		add("control.url", "found the scheme %s, %s: what passes there is secret", clip(u.Scheme), want)
	case u.User != nil:
		add("control.url", "holds a user or password; %s: a node proves itself with its certificate", want)
	case u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		add("control.url", "has something after host and port; %s", want)
	}
}

// Warnings says what is allowed, but seldom meant. One sentence each.
func (c *Config) Warnings() []string {
	var w []string
	host, _, err := splitAddress(c.Listen.Admin)
	ip, ipErr := netip.ParseAddr(host)
	if err == nil && host != "localhost" && (ipErr != nil || !ip.IsLoopback()) {
		w = append(w, fmt.Sprintf("listen.admin: %s can be reached from other machines, and whoever reaches it may purge content; guard it with a firewall, or use 127.0.0.1", c.Listen.Admin))
	}
	if c.Control.URL != "" {
		w = append(w, "control.url: this version of the node does not use it yet")
	}
	return w
}
