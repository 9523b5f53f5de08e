// Package control is the control plane: it wires what keeps the fleet's desired
// state, takes its reports, and lets people and programs manage it, and carries
// out what must be done in the background.
package control

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/api"
	"larder/internal/control/arm"
	"larder/internal/control/config"
	"larder/internal/control/db"
	"larder/internal/control/gate"
	"larder/internal/control/lease"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/seal"
	"larder/internal/control/telemetry"
	"larder/internal/httpsrv"
	"larder/internal/pki/authority"
	"larder/internal/sys/durable"
	"larder/internal/sys/ports"
	"larder/internal/sys/private"
)

// Control is one replica of a control plane. Open makes it, Run serves.
type Control struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	check   func(files map[string]string) error // of publishers
	reg     *prometheus.Registry

	d            *db.DB
	key          *seal.Key
	subscription string
	roster       *roster.Roster
	access       *access.Service
	telemetry    *telemetry.Service
	alerts       *alert.Service
	authorities  *gate.Authorities
	gate         *gate.Gate
	lot          *gate.Lot
	arm          *arm.Service
	leases       *lease.Leases
	table        *route.Table
	server       *authority.Server
	own          *ownCertificate // nil: the authority's for everybody

	serving chan struct{}
	addr    string // written before serving is closed
}

// Options are what a Control is made of besides its configuration.
type Options struct {
	Log     *slog.Logger
	Version string
	// CheckPublishers says what is wrong with an organisation's publisher files,
	// by name, for the nodes; nil: nothing is looked at.
	CheckPublishers func(files map[string]string) error
}

// Open opens the database, brings it up to date and makes everything ready. Run
// must follow, or Close.
func Open(ctx context.Context, cfg *config.Config, o Options) (_ *Control, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Control{cfg: cfg, log: o.Log, version: o.Version, check: o.CheckPublishers, reg: prometheus.NewRegistry(), serving: make(chan struct{})}
	c.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := private.MkdirAll(cfg.State); err != nil {
		return nil, fmt.Errorf("state: making the directory: %w", err)
	}
	if c.d, err = OpenDB(ctx, cfg, o.Log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.d.Close()
		}
	}()
	if c.key, err = openKey(ctx, cfg, c.d); err != nil {
		return nil, err
	}
	if c.subscription, err = setting(ctx, c.d, "subscription", uuid.NewString); err != nil {
		return nil, err
	}
	if c.roster, err = roster.Open(ctx, c.d, c.key, o.Log); err != nil {
		return nil, err
	}
	if c.authorities, err = gate.OpenAuthorities(ctx, c.d, c.key, cfg.Names[0], time.Now); err != nil {
		return nil, err
	}
	if c.access, err = OpenAccess(cfg, c.d, c.key, o.Log); err != nil {
		return nil, err
	}
	c.telemetry = telemetry.New(telemetry.Options{
		DB: c.d, Log: o.Log, Registerer: c.reg,
		Minutes: time.Duration(cfg.Retention.Minutes), Quarters: time.Duration(cfg.Retention.Quarters), Days: time.Duration(cfg.Retention.Days),
	})
	c.alerts = alert.New(alert.Options{
		DB: c.d, Roster: c.roster, Sealer: c.key, Log: o.Log, Registerer: c.reg, Version: o.Version, Portal: portalURL(cfg), Ends: c.ends,
	})
	c.lot = gate.NewLot()
	c.gate = gate.New(gate.Options{DB: c.d, Lot: c.lot, Roster: c.roster, Authorities: c.authorities, Taker: c.telemetry, Refused: refusedReport, Audit: c.auditNode, Log: o.Log})
	c.arm = arm.New(arm.Options{DB: c.d, Roster: c.roster, Usage: c.telemetry, Subscription: c.subscription, PublicURL: publicURL, Audit: c.auditARM, Log: o.Log})
	c.leases = lease.New(c.d, o.Log)
	c.server = authority.NewServer(c.authorities.Authority(), func() []string { return serverNames(cfg) }, 0)
	if cfg.TLS.Certificate != "" {
		if c.own, err = openOwn(cfg.TLS); err != nil {
			return nil, err
		}
	}
	if c.table, err = route.New(o.Log, c.guard, c.routes()...); err != nil {
		return nil, err
	}
	c.table.Challenge = func(r *http.Request) string {
		return fmt.Sprintf(`Bearer authorization_uri="%s/%s", resource="%s"`, publicURL(r), c.subscription, publicURL(r))
	}
	return c, nil
}

// OpenDB opens the database of a configuration and brings it up to date.
func OpenDB(ctx context.Context, cfg *config.Config, log *slog.Logger) (*db.DB, error) {
	d, err := db.Open(ctx, cfg.Database.URL, log)
	if err != nil {
		return nil, err
	}
	if _, err := d.Migrate(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// openKey reads the key that seals secrets. It is made for a database that has
// no secrets yet; for another one a missing file is an error, or every secret in
// it would be lost unnoticed.
func openKey(ctx context.Context, cfg *config.Config, d *db.DB) (*seal.Key, error) {
	var n int
	if err := d.QueryRowContext(ctx, `SELECT count(*) FROM authorities`).Scan(&n); err != nil {
		return nil, err
	}
	k, err := seal.Open(cfg.KeyFile, n == 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("key_file: %w; the secrets in the database were sealed with it: copy it from another replica, or from a back-up", err)
	}
	return k, err
}

// OpenAccess makes what knows who may what, for a running control plane and for
// commands beside it.
func OpenAccess(cfg *config.Config, d *db.DB, key *seal.Key, log *slog.Logger) (*access.Service, error) {
	o := access.Options{DB: d, Sealer: key, Log: log}
	if c := cfg.OIDC; c != nil {
		o.OIDC = &access.OIDC{Issuer: c.Issuer, ClientID: c.ClientID, RoleClaim: c.RoleClaim, Roles: map[string]access.Role{}}
		for value, role := range c.Roles {
			r, err := access.ParseRole(role)
			if err != nil {
				return nil, fmt.Errorf("oidc.roles: %w", err)
			}
			o.OIDC.Roles[value] = r
		}
		if c.ClientSecretFile != "" {
			b, err := os.ReadFile(c.ClientSecretFile)
			if err != nil {
				return nil, fmt.Errorf("oidc.client_secret_file: %w", err)
			}
			o.OIDC.ClientSecret = strings.TrimSpace(string(b))
		}
	}
	return access.New(o), nil
}

// OpenKey reads the key that seals secrets, for commands beside a running
// control plane.
func OpenKey(cfg *config.Config) (*seal.Key, error) { return seal.Open(cfg.KeyFile, false) }

// setting reads a setting, writing what first makes if it is not there.
func setting(ctx context.Context, d *db.DB, name string, first func() string) (string, error) {
	if _, err := d.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, first()); err != nil {
		return "", fmt.Errorf("writing the setting %s: %w", name, err)
	}
	var v string
	err := d.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&v)
	return v, err
}

// serverNames are all names the authority's certificate is for.
func serverNames(cfg *config.Config) []string {
	names := append([]string{}, cfg.Names...)
	for _, n := range []string{fleetName, "localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func refusedReport(err error) *route.Error {
	switch {
	case errors.Is(err, telemetry.ErrInvalid):
		return &route.Error{Status: http.StatusBadRequest, Code: "InvalidReport", Message: err.Error(), Err: err}
	case errors.Is(err, telemetry.ErrOldLine):
		return &route.Error{Status: http.StatusForbidden, Code: "IdentityRevoked", Message: "This node was enrolled again on another machine.", Err: err}
	}
	return nil
}

// guard recognises a caller: nodes by their certificate, others by what they
// present.
func (c *Control) guard(r *http.Request) (*http.Request, error) {
	p, err := c.gate.Recognise(r)
	if err == nil && p == nil {
		p, err = c.access.Authenticate(r)
	}
	if err != nil {
		return r, asRouteError(err)
	}
	if p == nil {
		return r, nil
	}
	return r.WithContext(access.With(r.Context(), p)), nil
}

// asRouteError gives a refusal its answer.
func asRouteError(err error) error {
	var no *access.Refusal
	if errors.As(err, &no) {
		return &route.Error{Status: no.Status, Code: no.Code, Message: no.Message, Err: no.Err}
	}
	return err
}

func (c *Control) auditNode(ctx context.Context, q db.Queryer, r *http.Request, actor *access.Principal, action, target string) error {
	return c.access.Record(ctx, q, access.Entry{Actor: actor, Remote: remote(r), Action: action, Target: target})
}

func (c *Control) audit(ctx context.Context, q db.Queryer, r *http.Request, ch api.Change) error {
	return c.access.Record(ctx, q, access.Entry{Actor: access.From(r.Context()), Remote: remote(r), Action: ch.Action, Target: ch.Target, Before: ch.Before, After: ch.After})
}

// auditARM is audit for arm, which also does things in the background, for whom
// asked for them.
func (c *Control) auditARM(ctx context.Context, q db.Queryer, r *http.Request, actor string, ch arm.Change) error {
	e := access.Entry{Action: ch.Action, Target: ch.Target, Before: ch.Before, After: ch.After}
	if r != nil {
		e.Actor, e.Remote = access.From(r.Context()), remote(r)
	} else {
		e.Actor = &access.Principal{Name: actor}
	}
	return c.access.Record(ctx, q, e)
}

func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// publicURL is where the caller reaches the control plane.
func publicURL(r *http.Request) string { return "https://" + r.Host }

// controlURL is where nodes are told to reach the control plane: the name by
// which the caller did, if the configuration has it and it means this machine on
// other machines, too; else the first of the configuration.
func (c *Control) controlURL(r *http.Request) string {
	u := url.URL{Host: r.Host}
	name, port := strings.ToLower(u.Hostname()), u.Port()
	ip, err := netip.ParseAddr(name)
	if !slices.Contains(c.cfg.Names, name) || name == "localhost" || err == nil && ip.IsLoopback() {
		name = c.cfg.Names[0]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 443 {
		return (&url.URL{Scheme: "https", Host: bracketed(name)}).String()
	}
	return "https://" + net.JoinHostPort(name, port)
}

// bracketed is a host as URLs have it.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// Run serves until ctx ends.
func (c *Control) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, c.d.Close()) }()
	ln, err := ports.Listen(c.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c.addr = ln.Addr().String()
	ln = c.behindProxies(ln)
	// For commands and tests: with port 0 only the system knows.
	file := filepath.Join(c.cfg.State, "addresses.json")
	if err := durable.WriteFile(file, []byte(fmt.Sprintf("{\"control\": %q}\n", c.addr)), 0o644); err != nil {
		ln.Close()
		return err
	}
	defer os.Remove(file)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// What answers outlasts what is asked: requests finish before the parts they
	// use end.
	parts, endParts := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	fail := make(chan error, 16)
	spawn := func(ctx context.Context, what string, f func(ctx context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				select {
				case fail <- fmt.Errorf("%s: %w", what, err):
				default:
				}
				cancel()
			}
		})
	}
	spawn(parts, "telemetry", c.telemetry.Run)
	spawn(parts, "roster", c.roster.Run)
	spawn(ctx, "polls", c.gate.Run) // they end before the requests: nobody waits for a node's poll
	c.background(parts, spawn)
	c.log.InfoContext(ctx, "control plane serves", "address", c.addr, "names", c.cfg.Names, "database", string(c.d.Engine()), "version", c.version)
	close(c.serving)
	serveErr := httpsrv.Serve(ctx, c.lot.Listener(tls.NewListener(ln, c.tlsConfig())), c.handler(), c.log)
	cancel()
	endParts()
	wg.Wait()
	select {
	case err := <-fail:
		return errors.Join(err, serveErr)
	default:
		return serveErr
	}
}

// headerTime is how long a balancer may take to say whose connection it is.
const headerTime = 5 * time.Second

// behindProxies has connections of trusted proxies be of those they name.
func (c *Control) behindProxies(ln net.Listener) net.Listener {
	if len(c.cfg.TrustedProxies) == 0 {
		return ln
	}
	return &proxyproto.Listener{Listener: ln, ReadHeaderTimeout: headerTime, ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		ap, err := netip.ParseAddrPort(o.Upstream.String())
		if err == nil && slices.ContainsFunc(c.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(ap.Addr().Unmap()) }) {
			return proxyproto.USE, nil // health checks come without a header
		}
		return proxyproto.SKIP, nil
	}}
}

// Close releases what Open took, for those who do not Run.
func (c *Control) Close() error { return c.d.Close() }

// WaitServing returns the address when Run listens, or why it never will.
func (c *Control) WaitServing(ctx context.Context) (string, error) {
	select {
	case <-c.serving:
		return c.addr, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// FirstLink is the path of the one-time link for the first owner, "" if there is
// an owner already.
func (c *Control) FirstLink(ctx context.Context) (string, error) { return c.access.FirstLink(ctx) }

// Fingerprint is that of the root by which nodes trust the control plane.
func (c *Control) Fingerprint() string { return c.authorities.Fingerprint() }

// RootsPEM are the roots of the control plane's authority.
func (c *Control) RootsPEM() string { return c.authorities.Authority().RootsPEM() }

// tx runs f in a transaction and has the roster look at what it did.
func (c *Control) tx(ctx context.Context, f func(tx *sql.Tx) error) error {
	if err := c.d.Tx(ctx, f); err != nil {
		return err
	}
	return c.roster.Refresh(ctx)
}
