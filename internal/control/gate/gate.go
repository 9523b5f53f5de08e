// Package gate is where nodes come in: it registers them, renews their
// identities, gives them their documents and takes their deliveries.
package gate

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/fleet"
	"larder/internal/pki/authority"
)

// Taker takes deliveries, each minute of a node's line once, and returns the
// highest it has.
type Taker interface {
	Take(ctx context.Context, node, customer string, line int64, d *fleet.Delivery, received time.Time) (seq int64, err error)
}

// Options are what a Gate works with.
type Options struct {
	DB          *db.DB
	Roster      *roster.Roster
	Authorities *Authorities
	Taker       Taker
	// Refused turns an error of Taker that is the node's mistake into its answer,
	// nil for other errors.
	Refused func(err error) *route.Error
	// Audit writes down what happened, within the transaction it happened in.
	Audit func(ctx context.Context, q db.Queryer, r *http.Request, actor *access.Principal, action, target string) error
	// Lot holds polls; nil: handlers do. Run must be running.
	Lot *Lot
	Now func() time.Time
	Log *slog.Logger
}

// Gate answers nodes.
type Gate struct {
	o     Options
	tries *tries // registrations, by address

	seen sync.Map // serials whose use was written down → struct{}
}

// New makes a Gate.
func New(o Options) *Gate {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Gate{o: o, tries: newTries()}
}

// Routes are what the gate answers.
func (g *Gate) Routes() []route.Route {
	return []route.Route{
		{Method: "POST", Path: fleet.PathRegister, Name: "Fleet_Register", Does: "Register a machine as a node, with a key that is good once", Needs: access.Public,
			Body: fleet.Registration{}, Answer: fleet.Identity{}, Handle: g.register},
		{Method: "POST", Path: fleet.PathRenew, Name: "Fleet_Renew", Does: "Renew a node's identity, also after it expired", Needs: access.Public, // it looks at the certificate itself: it takes expired ones
			Body: fleet.Renewal{}, Answer: fleet.Identity{}, Handle: g.renew},
		{Method: "GET", Path: fleet.PathDesired, Name: "Fleet_Desired", Does: "Wait for a document with a number above the one given", Needs: access.AsNode,
			Query:  []route.Query{{Name: "after", Does: "the number that the node has", Type: "integer"}, {Name: "wait", Does: "seconds to wait, 55 at most", Type: "number"}},
			Answer: fleet.Desired{}, Handle: g.desired},
		{Method: "POST", Path: fleet.PathReports, Name: "Fleet_Report", Does: "Deliver how a node is, and the minutes not acknowledged yet", Needs: access.AsNode,
			Body: fleet.Delivery{}, Answer: fleet.Accepted{}, Handle: g.report},
	}
}

// Recognise returns the node that a connection's certificate is good for; nil
// if there is no certificate.
func (g *Gate) Recognise(r *http.Request) (*access.Principal, error) {
	c, m, err := g.claim(r)
	if err != nil || c == nil {
		return nil, err
	}
	if c.Expired {
		return nil, &route.Error{Status: http.StatusUnauthorized, Code: "IdentityExpired", Message: fmt.Sprintf("The node's identity expired at %s; it renews at %s.", c.NotAfter.UTC().Format(time.RFC3339), fleet.PathRenew)}
	}
	if m.Line != c.Line || m.Revoked {
		return nil, revoked()
	}
	if _, ok := g.seen.LoadOrStore(c.Serial, struct{}{}); !ok {
		if err := g.o.Roster.UseIdentity(r.Context(), c.Serial, g.o.Now()); err != nil {
			g.seen.Delete(c.Serial)
			return nil, err
		}
	}
	return &access.Principal{Kind: access.Node, ID: m.Node, Name: m.Name, Role: access.NodeRole}, nil
}

func revoked() *route.Error {
	return &route.Error{Status: http.StatusForbidden, Code: "IdentityRevoked", Message: "This identity is no longer good: the node was deleted, revoked, or enrolled again on another machine. Enrol this one anew if it is meant to be the node."}
}

// claim is what the connection's certificate says, and the node it names.
func (g *Gate) claim(r *http.Request) (*authority.Claim, roster.Member, error) {
	var none roster.Member
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, none, nil
	}
	c, err := g.o.Authorities.Verify(r.TLS.PeerCertificates, g.o.Now())
	if err != nil {
		return nil, none, &route.Error{Status: http.StatusUnauthorized, Code: "IdentityUnknown", Message: "The client certificate is not a node's identity of this control plane.", Err: err}
	}
	m, ok := g.o.Roster.Now().Member(c.Node)
	if !ok {
		// This replica may not have heard of it yet.
		if err := g.o.Roster.Refresh(r.Context()); err != nil {
			return nil, none, err
		}
		if m, ok = g.o.Roster.Now().Member(c.Node); !ok {
			return nil, none, revoked()
		}
	}
	if m.Line < c.Line { // likewise
		if err := g.o.Roster.Refresh(r.Context()); err != nil {
			return nil, none, err
		}
		m, _ = g.o.Roster.Now().Member(c.Node)
	}
	return c, m, nil
}

func checkProtocol(n int) error {
	if n < fleet.Oldest {
		return &route.Error{Status: http.StatusBadRequest, Code: "ProtocolTooOld", Target: "protocol",
			Message: fmt.Sprintf("protocol: found %d, expected at least %d; update the node.", n, fleet.Oldest)}
	}
	return nil
}

func (g *Gate) register(w http.ResponseWriter, r *http.Request) error {
	if wait := g.tries.wait(r.RemoteAddr, g.o.Now()); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		return &route.Error{Status: http.StatusTooManyRequests, Code: "TooManyRequests", Message: "Too many registrations from this address failed; try again later."}
	}
	err := g.admit(w, r)
	if e := (*route.Error)(nil); errors.As(err, &e) && e.Status < 500 {
		g.tries.failed(r.RemoteAddr, g.o.Now())
	}
	return err
}

// admit registers whoever proves to be meant.
func (g *Gate) admit(w http.ResponseWriter, r *http.Request) error {
	var req fleet.Registration
	if err := route.ReadJSON(w, r, &req, false); err != nil {
		return err
	}
	if err := checkProtocol(req.Protocol); err != nil {
		return err
	}
	spki, err := spkiOfRequest(req.CSR)
	if err != nil {
		return err
	}
	now := g.o.Now()
	var id fleet.Identity
	err = g.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		n, err := g.o.Roster.Redeem(r.Context(), tx, roster.Proof{
			CustomerID: req.CustomerID, Node: req.CacheNodeID, CustomerKey: req.CustomerKey, RegistrationKey: req.RegistrationKey, SPKI: spki,
		}, now)
		if err != nil {
			return err
		}
		if id, err = g.issue(r.Context(), tx, req.CSR, n.NodeID, n.Line, now); err != nil {
			return err
		}
		return g.o.Audit(r.Context(), tx, r, &access.Principal{Kind: access.Node, ID: n.NodeID, Name: n.Name, Role: access.NodeRole}, "node.register", n.Path)
	})
	if err != nil {
		return registrationError(err)
	}
	g.o.Roster.Kick()
	g.o.Log.InfoContext(r.Context(), "node registered", "node", id.CacheNodeID, "line", id.Line, "remote", r.RemoteAddr)
	return route.JSON(w, http.StatusOK, id)
}

func registrationError(err error) error {
	refuse := func(code, message string) error {
		return &route.Error{Status: http.StatusForbidden, Code: code, Message: message, Err: err}
	}
	switch {
	case errors.Is(err, roster.ErrKeyInvalid):
		return refuse("RegistrationKeyInvalid", "customerid, cachenodeid, customerkey and registrationkey do not belong together; take the command anew from the control plane.")
	case errors.Is(err, roster.ErrKeyUsed):
		return refuse("RegistrationKeyUsed", "This registration key was used; take the command anew from the control plane.")
	case errors.Is(err, roster.ErrKeyExpired):
		return refuse("RegistrationKeyExpired", fmt.Sprintf("This registration key has expired, it is good for %s; take the command anew from the control plane.", roster.KeyLife))
	}
	return err
}

// spkiOfRequest is the SHA-256 of the public key in a PKCS#10 request.
func spkiOfRequest(csr string) (string, error) {
	block, _ := pem.Decode([]byte(csr))
	if block == nil {
		return "", route.Invalid("csr", "found no PEM, expected a CERTIFICATE REQUEST")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", route.Invalid("csr", "is not a PKCS#10 request: %v", err)
	}
	return spkiOf(sha256.Sum256(req.RawSubjectPublicKeyInfo)), nil
}

func (g *Gate) issue(ctx context.Context, q db.Queryer, csr, node string, line int64, now time.Time) (fleet.Identity, error) {
	ca := g.o.Authorities.Authority()
	issued, err := ca.IssueNode(csr, node, line, now)
	if errors.Is(err, authority.ErrRootExpired) {
		return fleet.Identity{}, &route.Error{Status: http.StatusServiceUnavailable, Code: "RootExpired", Message: "The control plane's root has expired, so it signs no identities: whoever runs it announces and activates another one.", Err: err}
	}
	if err != nil {
		return fleet.Identity{}, route.Invalid("csr", "%v", err)
	}
	err = g.o.Roster.AddIdentity(ctx, q, roster.Identity{
		Serial: issued.Serial, Node: node, Line: line, SPKI: issued.SPKI, NotBefore: issued.NotBefore, NotAfter: issued.NotAfter, Issued: now,
	})
	return fleet.Identity{CacheNodeID: node, Certificate: issued.PEM(), Roots: ca.RootsPEM(), Line: line}, err
}

func (g *Gate) renew(w http.ResponseWriter, r *http.Request) error {
	c, _, err := g.claim(r)
	if err != nil {
		return err
	}
	if c == nil {
		return &route.Error{Status: http.StatusUnauthorized, Code: "AuthenticationFailed", Message: "A renewal needs the node's identity as client certificate."}
	}
	var req fleet.Renewal
	if err := route.ReadJSON(w, r, &req, false); err != nil {
		return err
	}
	if err := checkProtocol(req.Protocol); err != nil {
		return err
	}
	now := g.o.Now()
	var id fleet.Identity
	err = g.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		known, err := g.o.Roster.Renewable(r.Context(), tx, c.Serial)
		if err != nil {
			return err
		}
		if err := authority.MayRenew(c, now); err != nil && known.Approved.Before(known.NotAfter) {
			return err
		}
		id, err = g.issue(r.Context(), tx, req.CSR, c.Node, c.Line, now)
		return err
	})
	switch {
	case errors.Is(err, roster.ErrSucceeded):
		if nerr := g.o.Roster.NoteCopy(r.Context(), c.Node, now); nerr != nil {
			g.o.Log.ErrorContext(r.Context(), "copied identity not written down", "node", c.Node, "err", nerr)
		}
		return &route.Error{Status: http.StatusForbidden, Code: "IdentityCopied", Message: "A later identity of this node is in use, so this machine is a copy of the node, or was restored from a back-up. Enrol it anew.", Err: err}
	case errors.Is(err, roster.ErrRevoked):
		return revoked()
	case errors.Is(err, authority.ErrTooOld):
		return &route.Error{Status: http.StatusForbidden, Code: "IdentityTooOld",
			Message: fmt.Sprintf("The identity expired at %s, too long ago to be renewed without a person: approve it on the control plane, or enrol the node anew.", c.NotAfter.UTC().Format(time.RFC3339)), Err: err}
	case err != nil:
		return err
	}
	return route.JSON(w, http.StatusOK, id)
}

// maxNumber is the highest number of a document that a node may have: JSON's
// readers count no further exactly.
const maxNumber = 1 << 53

// maxWait is how long a poll is held. Load balancers end connections that are
// silent for a minute.
const maxWait = 55 * time.Second

func (g *Gate) desired(w http.ResponseWriter, r *http.Request) error {
	node := access.From(r.Context()).ID
	after, err := number(r, "after", maxNumber)
	if err != nil {
		return err
	}
	wait, err := seconds(r, "wait")
	if err != nil {
		return err
	}
	wait = min(wait, maxWait)
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	line, overtaken := int64(0), false
	for {
		changed := g.o.Roster.Changed()
		m, ok := g.o.Roster.Now().Member(node)
		if line == 0 {
			line = m.Line
		}
		switch {
		case !ok || m.Revoked || m.Line != line:
			return revoked()
		case m.Desired > after:
			d, err := g.o.Roster.Document(r.Context(), node)
			if err != nil {
				return err
			}
			return route.JSON(w, http.StatusOK, d)
		case m.Desired < after && !overtaken:
			overtaken = true
			if err := g.overtake(r.Context(), m, after); err != nil {
				return err
			}
			continue
		}
		if g.park(w, node, line, after, wait) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
}

// overtake mends what a node that is ahead of us would wait for.
func (g *Gate) overtake(ctx context.Context, m roster.Member, after int64) error {
	ahead, err := g.o.Roster.Overtake(ctx, m.Node, after)
	if err != nil {
		return err
	}
	if ahead {
		g.o.Log.WarnContext(ctx, "node had a later document than the database, as after a restore: numbered anew", "node", m.Node, "had", after)
	}
	return g.o.Roster.Refresh(ctx)
}

func number(r *http.Request, name string, high int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > high {
		return 0, route.Invalid(name, "found %q, expected a whole number from 0", text)
	}
	return n, nil
}

// seconds reads a span in seconds, with or without a fraction.
func seconds(r *http.Request, name string) (time.Duration, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0 && f <= 1e6) || strings.ContainsAny(text, "eExXpP_") {
		return 0, route.Invalid(name, "found %q, expected seconds from 0", text)
	}
	return time.Duration(f * float64(time.Second)), nil
}

// maxDelivery is the most a delivery may take once it is unpacked, in bytes.
const maxDelivery = 8 << 20

// unpackers are kept: each is 40 KB.
var unpackers = sync.Pool{New: func() any { return new(gzip.Reader) }}

func (g *Gate) report(w http.ResponseWriter, r *http.Request) error {
	received := g.o.Now()
	p := access.From(r.Context())
	var body io.Reader = http.MaxBytesReader(w, r.Body, maxDelivery)
	switch enc := r.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip":
		z := unpackers.Get().(*gzip.Reader)
		defer unpackers.Put(z)
		if err := z.Reset(body); err != nil {
			return &route.Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body is not gzip, as Content-Encoding says it is.", Err: err}
		}
		body = http.MaxBytesReader(w, z, maxDelivery)
	default:
		return &route.Error{Status: http.StatusUnsupportedMediaType, Code: "UnsupportedEncoding", Message: fmt.Sprintf("Content-Encoding: found %q, expected gzip or none.", enc)}
	}
	var d fleet.Delivery
	if err := json.NewDecoder(body).Decode(&d); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return &route.Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body is not a delivery: " + err.Error(), Err: err}
	}
	if err := checkProtocol(d.Protocol); err != nil {
		return err
	}
	m, ok := g.o.Roster.Now().Member(p.ID)
	if !ok {
		return revoked()
	}
	seq, err := g.o.Taker.Take(r.Context(), m.Node, m.Customer, m.Line, &d, received)
	if err != nil {
		if e := g.o.Refused(err); e != nil {
			return e
		}
		return err
	}
	return route.JSON(w, http.StatusOK, fleet.Accepted{Seq: seq, Desired: m.Desired, Time: g.o.Now().UTC(), Roots: g.o.Authorities.Authority().RootsPEM()})
}
