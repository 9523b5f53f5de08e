// Package config reads the configuration file of the control plane, strictly,
// and names every mistake in it at once.
package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"larder/internal/control/access"
	"larder/internal/strictyaml"
)

// Config is the configuration of one replica of the control plane. Everything
// works when absent. What is here needs a restart to change; users, tokens,
// alert rules and channels are in the database.
//
// Paths are absolute: a service has no working directory to rely on.
type Config struct {
	// Listen is where the portal, the API and the nodes are answered, over TLS.
	// Default: ":8440".
	Listen string `yaml:"listen"`

	// Names are the host names and addresses by which nodes and people reach the
	// control plane, the one for nodes' commands first. They are in its
	// certificate. Default: the machine's name, localhost and the loopback
	// addresses.
	Names []string `yaml:"names"`

	// State is the directory for the key that seals secrets, and for the
	// database unless it is elsewhere. Default: /var/lib/larder/control, on
	// Windows %ProgramData%\Larder\control.
	State string `yaml:"state"`

	Database Database `yaml:"database"`

	// KeyFile holds the key that seals secrets before they reach the database.
	// It is made with a new database; every replica needs the same. Default:
	// control.key in the state directory.
	KeyFile string `yaml:"key_file"`

	TLS  TLS   `yaml:"tls"`
	OIDC *OIDC `yaml:"oidc"`

	// MetricsFrom are the networks from which /metrics is answered without a
	// token, such as 10.1.2.0/24. Default: none.
	MetricsFrom []netip.Prefix `yaml:"metrics_from"`

	// TrustedProxies are the networks of load balancers in front of it, such as
	// 10.1.2.0/24: what comes from there may begin with a header of the PROXY
	// protocol (version 1 or 2) that says whose connection it is. Without it all
	// who come through a balancer share its address, for the audit and for what
	// bounds failures. Default: none.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`

	Retention Retention `yaml:"retention"`
	Log       Log       `yaml:"log"`
}

// Database says where everything is kept.
type Database struct {
	// URL is postgres://user:password@host:5432/name, or the path of an SQLite
	// file. Default: control.db in the state directory.
	URL string `yaml:"url"`
}

// TLS is the organisation's own certificate for the portal and the API.
// Default: one of the control plane's own authority, which nodes trust in any
// case.
type TLS struct {
	// Certificate and Key are PEM files. Nodes keep trusting the control plane's
	// own authority, which is shown to those who ask for no name it knows; both
	// are read again when they change.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// OIDC lets people sign in with the organisation's accounts.
type OIDC struct {
	Issuer           string `yaml:"issuer"`
	ClientID         string `yaml:"client_id"`
	ClientSecretFile string `yaml:"client_secret_file"`

	// RoleClaim is the claim of the ID token that says what somebody may, a
	// string or a list. Default: groups.
	RoleClaim string `yaml:"role_claim"`

	// Roles says what its values mean: {"Cache admins": owner}. Who has none of
	// them is refused.
	Roles map[string]string `yaml:"roles"`
}

// Retention is how long figures are kept.
type Retention struct {
	Minutes  strictyaml.Duration `yaml:"minutes"`  // default 48h
	Quarters strictyaml.Duration `yaml:"quarters"` // of an hour; default 35d
	Days     strictyaml.Duration `yaml:"days"`     // default 1100d
}

// Log says what is written down.
type Log struct {
	// Level is debug, info, warn or error. Default: info.
	Level slog.Level `yaml:"level"`
}

// Default returns the configuration of a control plane of which nothing was
// said. getenv is os.Getenv, or a test's.
func Default(getenv func(string) string) *Config {
	const day = 24 * time.Hour
	return &Config{
		Listen: ":8440",
		State:  defaultState(getenv),
		Retention: Retention{
			Minutes: strictyaml.Duration(2 * day), Quarters: strictyaml.Duration(35 * day), Days: strictyaml.Duration(1100 * day),
		},
	}
}

// Load reads the configuration in a file. An error about what is written there
// is a strictyaml.Mistakes with all of it.
func Load(name string, getenv func(string) string) (*Config, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c := Default(getenv)
	doc, _ := strictyaml.Decode(name, data, c) // its error is in doc, too
	seen := map[string]bool{}
	c.complete()
	c.validate(func(field, format string, args ...any) {
		if !seen[field] {
			seen[field] = true
			doc.Add(field, format, args...)
		}
	})
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate checks a configuration that was not read from a file, and fills in
// the defaults that depend on other fields. Its error is a strictyaml.Mistakes.
func (c *Config) Validate() error {
	c.complete()
	var found strictyaml.Mistakes
	c.validate(func(field, format string, args ...any) {
		found = append(found, strictyaml.Mistake{Field: field, Problem: fmt.Sprintf(format, args...)})
	})
	return found.Err()
}

func (c *Config) complete() {
	if len(c.Names) == 0 {
		if name, err := os.Hostname(); err == nil && hostForm.MatchString(name) {
			c.Names = append(c.Names, strings.ToLower(name))
		}
		c.Names = append(c.Names, "localhost", "127.0.0.1", "::1")
		c.Names = slices.Compact(c.Names)
	}
	if c.Database.URL == "" && c.State != "" {
		c.Database.URL = filepath.Join(c.State, "control.db")
	}
	if c.KeyFile == "" && c.State != "" {
		c.KeyFile = filepath.Join(c.State, "control.key")
	}
	if c.OIDC != nil && c.OIDC.RoleClaim == "" {
		c.OIDC.RoleClaim = "groups"
	}
}

// hostForm are the names that fit into a certificate.
var hostForm = regexp.MustCompile(`^(\*\.)?([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

type addFunc func(field, format string, args ...any)

func (c *Config) validate(add addFunc) {
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		add("listen", "found %q, expected host:port such as \":8440\"", c.Listen)
	}
	for i, n := range c.Names {
		if _, err := netip.ParseAddr(n); err != nil && !hostForm.MatchString(n) {
			add(fmt.Sprintf("names[%d]", i), "found %q, expected a host name or an IP address, without scheme and port", n)
		}
	}
	absolute("state", c.State, add)
	if !c.Postgres() {
		absolute("database.url", strings.TrimPrefix(c.Database.URL, "sqlite:"), add)
	} else if _, err := url.Parse(c.Database.URL); err != nil {
		add("database.url", "is not a URL; expected postgres://user:password@host:5432/name") // err holds the password
	}
	absolute("key_file", c.KeyFile, add)
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		add("tls", "found only one of certificate and key; expected both, or neither for a certificate of the control plane's own authority")
	}
	if c.TLS.Certificate != "" {
		absolute("tls.certificate", c.TLS.Certificate, add)
		absolute("tls.key", c.TLS.Key, add)
	}
	if c.OIDC != nil {
		c.OIDC.validate(add)
	}
	c.Retention.validate(add)
}

// Postgres reports whether the database is PostgreSQL.
func (c *Config) Postgres() bool {
	return strings.HasPrefix(c.Database.URL, "postgres://") || strings.HasPrefix(c.Database.URL, "postgresql://")
}

func absolute(field, path string, add addFunc) {
	switch {
	case path == "":
		add(field, "is empty; expected an absolute path")
	case !filepath.IsAbs(path):
		add(field, "found %q, expected an absolute path", path)
	}
}

func (o *OIDC) validate(add addFunc) {
	if u, err := url.Parse(o.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
		add("oidc.issuer", "found %q, expected the https address of the provider, as its discovery document gives it", o.Issuer)
	}
	if o.ClientID == "" {
		add("oidc.client_id", "must be set; the provider gives it when the control plane is registered there")
	}
	if o.ClientSecretFile != "" {
		absolute("oidc.client_secret_file", o.ClientSecretFile, add)
	}
	if len(o.Roles) == 0 {
		add("oidc.roles", "must be set; without it nobody who signs in may do anything. Expected for example {\"Cache admins\": owner}")
	}
	for value, role := range o.Roles {
		if _, err := access.ParseRole(role); err != nil {
			add("oidc.roles."+value, "found %q, expected owner, operator or reader", role)
		}
	}
}

func (r *Retention) validate(add addFunc) {
	const day = 24 * time.Hour
	check := func(field string, d strictyaml.Duration, low time.Duration) {
		if time.Duration(d) < low {
			add(field, "found %s, expected at least %s", d, strictyaml.Duration(low))
		}
	}
	check("retention.minutes", r.Minutes, 2*time.Hour)
	check("retention.quarters", r.Quarters, 7*day)
	check("retention.days", r.Days, 31*day)
	if r.Minutes > r.Quarters || r.Quarters > r.Days {
		add("retention", "found minutes %s, quarters %s, days %s; expected that the coarser figures are kept longer", r.Minutes, r.Quarters, r.Days)
	}
}
