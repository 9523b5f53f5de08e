package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/api"
	"larder/internal/control/config"
	"larder/internal/control/db"
	"larder/internal/control/lease"
	"larder/internal/control/portal"
	"larder/internal/control/route"
	"larder/internal/fleet"
	"larder/internal/httpsrv"
	"larder/internal/pki/livecert"
)

const fleetName = fleet.ServerName

// tlsConfig shows nodes, which ask for fleetName, a certificate of the authority
// and asks them for theirs; it does not ask browsers, which would ask people.
func (c *Control) tlsConfig() *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: livecert.CipherSuites(), NextProtos: []string{"http/1.1"}, GetCertificate: c.server.GetCertificate}
	people := base.Clone()
	if c.own != nil {
		people.GetCertificate = c.own.get
	}
	nodes := base.Clone()
	nodes.ClientAuth = tls.RequestClientCert // gate looks at it: it takes expired ones for renewal
	people.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if strings.EqualFold(hello.ServerName, fleetName) {
			return nodes, nil
		}
		return nil, nil
	}
	return people
}

// ownCertificate is the organisation's, read again when its file changes.
type ownCertificate struct {
	cfg config.TLS

	mu   sync.Mutex
	cert *tls.Certificate // guarded by mu
	seen time.Time        // guarded by mu; of the file
	look time.Time        // guarded by mu; when it was looked at last
}

func openOwn(cfg config.TLS) (*ownCertificate, error) {
	o := &ownCertificate{cfg: cfg}
	return o, o.read()
}

func (o *ownCertificate) read() error {
	fi, err := os.Stat(o.cfg.Certificate)
	if err != nil {
		return fmt.Errorf("tls.certificate: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(o.cfg.Certificate, o.cfg.Key)
	if err != nil {
		return fmt.Errorf("tls.certificate and tls.key: %w", err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("tls.certificate: %w", err)
		}
	}
	o.cert, o.seen, o.look = &cert, fi.ModTime(), time.Now()
	return nil
}

func (o *ownCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.look) > 10*time.Second {
		o.look = time.Now()
		if fi, err := os.Stat(o.cfg.Certificate); err == nil && !fi.ModTime().Equal(o.seen) {
			_ = o.read() // half a pair: the one before serves on, and the next look is soon
		}
	}
	return o.cert, nil
}

// handler is everything the control plane answers.
func (c *Control) handler() http.Handler {
	guarded, err := httpsrv.GuardOrigin(c.table)
	if err != nil {
		panic(err) // there are no trusted origins that could be wrong
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A body that trickles in must not hold its goroutine for ever. Longer than
		// any poll, whose connection is read from while it waits.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(2 * time.Minute))
		h := w.Header()
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		guarded.ServeHTTP(w, r)
	})
}

// routes are all there are.
func (c *Control) routes() []route.Route {
	a := api.New(api.Options{
		DB: c.d, Roster: c.roster, Access: c.access, Usage: c.telemetry, Alerts: c.alerts, Authorities: c.authorities, Audit: c.audit, PublicURL: publicURL, ControlURL: c.controlURL, CheckPublishers: c.check, Fingerprint: c.authorities.Fingerprint,
		Version: c.version, Log: c.log,
	})
	all := append(c.gate.Routes(), a.Routes()...)
	all = append(all, c.arm.Routes()...)
	all = append(all, portal.New(portal.Options{
		DB: c.d, Access: c.access, Roster: c.roster, Usage: c.telemetry, Alerts: c.alerts, PublicURL: publicURL, Version: c.version, Log: c.log,
		Audit: func(ctx context.Context, q db.Queryer, r *http.Request, e access.Entry) error {
			e.Remote = remote(r)
			return c.access.Record(ctx, q, e)
		},
	}).Routes()...)
	all = append(all,
		route.Route{Method: "GET", Path: "/healthz", Name: "Health", Does: "Whether this replica runs", Needs: access.Public, Type: "text/plain", Handle: func(w http.ResponseWriter, r *http.Request) error {
			_, err := w.Write([]byte("ok\n"))
			return err
		}},
		route.Route{Method: "GET", Path: "/readyz", Name: "Ready", Does: "Whether this replica reaches its database", Needs: access.Public, Type: "text/plain", Handle: c.ready},
		route.Route{Method: "GET", Path: "/metrics", Name: "Metrics", Does: "Metrics of this replica, for Prometheus", Needs: access.Public, Type: "text/plain", Handle: c.metrics},
		route.Route{Method: "GET", Path: "/ca.pem", Name: "Roots", Does: "The roots of the control plane's own authority", Needs: access.Public, Type: "application/x-pem-file", Handle: func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "application/x-pem-file")
			_, err := w.Write([]byte(c.RootsPEM()))
			return err
		}},
	)
	var described []route.Route
	all = append(all, route.Route{Method: "GET", Path: route.OpenAPIPath, Name: "OpenAPI", Does: "This description", Needs: access.Public, Type: "application/json", Handle: func(w http.ResponseWriter, r *http.Request) error {
		b, err := route.OpenAPI(described, "Larder", c.version, "/api/larder/")
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_, err = w.Write(append(b, '\n'))
		return err
	}})
	described = all
	return all
}

func (c *Control) ready(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := c.d.PingContext(ctx); err != nil {
		return &route.Error{Status: http.StatusServiceUnavailable, Code: "NotReady", Message: "The database does not answer.", Err: err}
	}
	_, err := w.Write([]byte("ready\n"))
	return err
}

// metrics are for those who have a token, and for the networks of the
// configuration.
func (c *Control) metrics(w http.ResponseWriter, r *http.Request) error {
	if !c.mayScrape(r) {
		g, err := c.guard(r)
		if err != nil {
			return err
		}
		if p := access.From(g.Context()); !p.Can(access.Read, access.Everything) {
			return &route.Error{Status: http.StatusUnauthorized, Code: "AuthenticationFailed", Message: "Metrics need a token that may read everything, or an address of metrics_from."}
		}
	}
	promhttp.HandlerFor(c.reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
	return nil
}

func (c *Control) mayScrape(r *http.Request) bool {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	for _, p := range c.cfg.MetricsFrom {
		if p.Contains(ap.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// background begins what is done by itself.
func (c *Control) background(ctx context.Context, spawn func(ctx context.Context, what string, f func(ctx context.Context) error)) {
	spawn(ctx, "operations", c.arm.Run)
	spawn(ctx, "authorities", func(ctx context.Context) error {
		return lease.Every(ctx, c.log, "authorities", 5*time.Second, c.authorities.Load)
	})
	spawn(ctx, "housekeeping", func(ctx context.Context) error {
		return c.leases.While(ctx, "housekeeping", func(ctx context.Context) error {
			return lease.Every(ctx, c.log, "housekeeping", 10*time.Minute, func(ctx context.Context) error {
				return errors.Join(c.access.Clean(ctx), c.arm.Clean(ctx), c.alerts.Clean(ctx), c.roster.Clean(ctx, time.Now()), c.telemetry.Trim(ctx, time.Now()))
			})
		})
	})
	spawn(ctx, "watch", func(ctx context.Context) error {
		return c.leases.While(ctx, "watch", func(ctx context.Context) error {
			return lease.Every(ctx, c.log, "watch", time.Minute, c.watch)
		})
	})
	spawn(ctx, "alerts", func(ctx context.Context) error { return c.leases.While(ctx, "alerts", c.alerts.Run) })
}

// watch goes through all nodes once: what began and ended at them is written
// down, and what needs somebody is found. With ten thousand nodes reading what
// they said last is most of the work, so it is read once for both.
func (c *Control) watch(ctx context.Context) error {
	history, err := c.arm.Observe(ctx)
	if err != nil {
		return err
	}
	pass, err := c.alerts.Begin(ctx)
	if err != nil {
		return err
	}
	var errs []error
	seen := 0
	for n, err := range c.roster.All(ctx) {
		if err != nil {
			return err // half of the nodes say nothing about the others
		}
		// Nobody waits for this, and many wait for other things: ten thousand
		// nodes take ten seconds of the minute, at a fifth of a processor.
		if seen++; seen%50 == 0 {
			select {
			case <-time.After(30 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := history.Node(ctx, n); err != nil {
			errs = append(errs, err)
		}
		pass.Node(n)
	}
	return errors.Join(errors.Join(errs...), pass.End(ctx))
}

// portalURL is where people find the portal, by the configuration's first name.
func portalURL(cfg *config.Config) string {
	_, port, err := net.SplitHostPort(cfg.Listen)
	switch {
	case err != nil || port == "0":
		return ""
	case port == "443":
		return "https://" + cfg.Names[0] + "/"
	}
	return "https://" + net.JoinHostPort(cfg.Names[0], port) + "/"
}

// ends are what of the control plane's own ends some day.
func (c *Control) ends(ctx context.Context) ([]alert.End, error) {
	var all []alert.End
	tokens, err := c.access.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if !t.Expires.IsZero() && t.Revoked.IsZero() && t.Expires.Sub(t.LastUsed) > 0 && !t.LastUsed.IsZero() {
			all = append(all, alert.End{What: "token " + t.Name, At: t.Expires, Life: t.Expires.Sub(t.Created), Fix: "Make a new token, give it to whoever uses this one, and revoke this one."})
		}
	}
	for _, r := range c.authorities.Authority().Roots() {
		all = append(all, alert.End{What: "the root " + r.Subject.CommonName, At: r.NotAfter, Life: r.NotAfter.Sub(r.NotBefore), Fix: "Announce the next root, activate it when all nodes trust it, and retire this one (docs/operating/control.md)."})
	}
	if c.own != nil {
		if cert, err := c.own.get(nil); err == nil {
			all = append(all, alert.End{What: "the portal's certificate", At: cert.Leaf.NotAfter, Life: cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore), Fix: "Put a new one into the files of tls.certificate and tls.key; it is read by itself."})
		}
	}
	return all, nil
}
