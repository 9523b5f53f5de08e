package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"

	"larder/internal/control"
	"larder/internal/control/config"
	"larder/internal/control/db"
	"larder/internal/control/gate"
	"larder/internal/control/roster"
	"larder/internal/fleet"
	"larder/internal/pki/authority"
)

const (
	maxNodes         = 500_000
	nodesPerCustomer = 100
)

// identity is what a node proves itself by.
type identity struct {
	node string // GUID
	cert tls.Certificate
}

// enrolled are the nodes that the control plane was given.
type enrolled struct {
	identities []identity
	roots      string // PEM, to trust the control plane by
}

// enrol makes n nodes, each with a record, drives, and an identity of its first
// line, in the database of a configuration, which must have none. It does what
// an administrator and the registrations would do, without the network between
// them, and before the control plane runs. The nodes share one key; their
// certificates are their own.
func enrol(ctx context.Context, file string, n int) (_ *enrolled, err error) {
	cfg, err := config.Load(file, os.Getenv)
	if err != nil {
		return nil, err
	}
	// It makes what a first start makes: the tables, the key file, the authority.
	c, err := control.Open(ctx, cfg, control.Options{})
	if err != nil {
		return nil, err
	}
	if err := c.Close(); err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, cfg.Database.URL, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var there int
	if err := d.QueryRowContext(ctx, `SELECT count(*) FROM nodes`).Scan(&there); err != nil {
		return nil, err
	}
	if there > 0 {
		return nil, fmt.Errorf("-database: found one with %d nodes, expected an empty one", there)
	}
	e, err := newEnrolment(ctx, cfg, d)
	if err != nil {
		return nil, err
	}
	if err := d.Tx(ctx, func(tx *sql.Tx) error {
		_, err := e.roster.PutGroup(ctx, tx, roster.Group{Subscription: e.subscription, Name: group, Location: location, Created: time.Now()})
		return err
	}); err != nil {
		return nil, err
	}
	all := &enrolled{roots: e.authorities.Authority().RootsPEM()}
	for first := 0; first < n; first += nodesPerCustomer {
		var made []identity
		if err := d.Tx(ctx, func(tx *sql.Tx) error {
			made, err = e.customer(ctx, tx, first, min(n, first+nodesPerCustomer))
			return err
		}); err != nil {
			return nil, err
		}
		all.identities = append(all.identities, made...)
	}
	return all, nil
}

const (
	group    = "fleet"
	location = "westeurope"
)

// enrolment is what enrol works with.
type enrolment struct {
	roster       *roster.Roster
	authorities  *gate.Authorities
	subscription string
	key          *ecdsa.PrivateKey
	csr          string // PEM, for key
}

func newEnrolment(ctx context.Context, cfg *config.Config, d *db.DB) (*enrolment, error) {
	e := new(enrolment)
	sealer, err := control.OpenKey(cfg)
	if err != nil {
		return nil, err
	}
	if e.roster, err = roster.Open(ctx, d, sealer, nil); err != nil {
		return nil, err
	}
	if e.authorities, err = gate.OpenAuthorities(ctx, d, sealer, cfg.Names[0], time.Now); err != nil {
		return nil, err
	}
	if err := d.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = 'subscription'`).Scan(&e.subscription); err != nil {
		return nil, err
	}
	if e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), e.key)
	if err != nil {
		return nil, err
	}
	e.csr = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	return e, nil
}

// customer makes an organisation with the nodes from first up to end.
func (e *enrolment) customer(ctx context.Context, tx *sql.Tx, first, end int) ([]identity, error) {
	now := time.Now()
	c := &roster.Customer{
		Subscription: e.subscription, Group: group, Name: fmt.Sprintf("customer-%d", first/nodesPerCustomer), Location: location,
		CustomerID: uuid.NewString(), Properties: []byte("{}"), Provisioning: "Succeeded",
	}
	c.System.Touch("bench", "Application", now)
	if err := e.roster.InsertCustomer(ctx, tx, c); err != nil {
		return nil, err
	}
	primary, _, err := e.roster.CustomerKeys(ctx, tx, c.ID)
	if err != nil {
		return nil, err
	}
	var made []identity
	for i := first; i < end; i++ {
		n := &roster.Node{
			NodeID: uuid.NewString(), Customer: c.ID, Path: c.Path() + fmt.Sprintf("/enterpriseMccCacheNodes/node-%d", i), Name: fmt.Sprintf("node-%d", i), Location: location,
			Properties: []byte("{}"), Provisioning: "Succeeded", Configured: true, Created: now,
			Spec: roster.Spec{Drives: []fleet.Drive{{Path: drives[0], Size: driveBudget}, {Path: drives[1], Size: driveBudget}}, Site: fmt.Sprintf("site-%d", i/10)},
		}
		n.System.Touch("bench", "Application", now)
		if err := e.roster.InsertNode(ctx, tx, n); err != nil {
			return nil, err
		}
		id, err := e.register(ctx, tx, c.CustomerID, primary, n.NodeID, now)
		if err != nil {
			return nil, fmt.Errorf("registering %s: %w", n.Name, err)
		}
		made = append(made, identity{n.NodeID, id})
	}
	return made, nil
}

// register gives a node an identity as a registration does.
func (e *enrolment) register(ctx context.Context, tx *sql.Tx, customer, customerKey, node string, now time.Time) (tls.Certificate, error) {
	var none tls.Certificate
	key, _, err := e.roster.RegistrationKey(ctx, tx, node, now)
	if err != nil {
		return none, err
	}
	issued, err := e.authorities.Authority().IssueNode(e.csr, node, 1, now)
	if err != nil {
		return none, err
	}
	n, err := e.roster.Redeem(ctx, tx, roster.Proof{CustomerID: customer, Node: node, CustomerKey: customerKey, RegistrationKey: key, SPKI: issued.SPKI}, now)
	if err != nil {
		return none, err
	}
	if n.Line != 1 {
		return none, fmt.Errorf("found line %d, expected the first", n.Line)
	}
	err = e.roster.AddIdentity(ctx, tx, roster.Identity{Serial: issued.Serial, Node: node, Line: n.Line, SPKI: issued.SPKI, NotBefore: issued.NotBefore, NotAfter: issued.NotAfter, Issued: now})
	cert := tls.Certificate{PrivateKey: e.key, Leaf: issued.Chain[0]}
	for _, c := range issued.Chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, err
}

// clientTLS is how nodes trust the control plane; each adds its own certificate.
func (e *enrolled) clientTLS() (*tls.Config, error) {
	cfg, err := authority.TrustRoots(e.roots)
	if err != nil {
		return nil, err
	}
	cfg.ServerName, cfg.NextProtos = fleet.ServerName, []string{"http/1.1"}
	return cfg, nil
}
