package authority

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrNotOurs: no trusted root has signed it.
	ErrNotOurs = errors.New("not signed by this authority")
	// ErrNotANode: a certificate of ours, but no node's identity.
	ErrNotANode = errors.New("not the identity of a node")
	// ErrTooOld: it expired so long ago that a person must approve its renewal.
	ErrTooOld = errors.New("identity expired too long ago")
	// ErrRootExpired: the root that should sign is no longer good.
	ErrRootExpired = errors.New("the root has expired")
)

// RenewLimit is how long after its end an identity is renewed without a
// person's word: machines of schools and clubs are switched off for a summer.
const RenewLimit = 180 * 24 * time.Hour

// aheadOf is how far a certificate may begin in the future: the clock of the
// replica that signed it may be ahead of ours.
const aheadOf = 24 * time.Hour

// Claim is what an identity says.
type Claim struct {
	Node      string // GUID
	Line      int64
	Serial    string
	SPKI      string
	NotBefore time.Time
	NotAfter  time.Time
	Expired   bool
}

// Verify says what the certificates that a TLS client has shown are worth: the
// handshake has proved that it has the leaf's key. A leaf that has expired is no
// error, but Expired: renewal takes it. Errors: ErrNotOurs, ErrNotANode.
func (a *Authority) Verify(chain []*x509.Certificate, now time.Time) (*Claim, error) {
	if len(chain) == 0 {
		return nil, ErrNotOurs
	}
	leaf := chain[0]
	at := now
	c := &Claim{Serial: serialText(leaf.SerialNumber), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	switch {
	case now.After(leaf.NotAfter):
		// As of its own time, by a root that is good now.
		c.Expired, at = true, leaf.NotAfter
	case now.Before(leaf.NotBefore):
		if leaf.NotBefore.Sub(now) > aheadOf {
			return nil, fmt.Errorf("%w: it begins at %s", ErrNotOurs, leaf.NotBefore.UTC().Format(time.RFC3339))
		}
		at = leaf.NotBefore
	}
	paths, err := leaf.Verify(x509.VerifyOptions{Roots: a.cur.Load().pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	good := false
	for _, p := range paths {
		root := p[len(p)-1]
		good = good || now.Before(root.NotAfter)
	}
	if !good {
		return nil, fmt.Errorf("%w: its root has expired", ErrNotOurs)
	}
	if leaf.IsCA || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(leaf.UnknownExtKeyUsage) > 0 {
		return nil, ErrNotANode
	}
	for _, u := range leaf.URIs {
		s := u.String()
		if id, ok := strings.CutPrefix(s, "urn:uuid:"); ok && nodeForm.MatchString(id) {
			c.Node = id
		}
		if n, ok := strings.CutPrefix(s, lineURI); ok {
			if c.Line, err = strconv.ParseInt(n, 10, 64); err != nil {
				return nil, ErrNotANode
			}
		}
	}
	if c.Node == "" || c.Line < 1 {
		return nil, ErrNotANode
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	c.SPKI = hex.EncodeToString(sum[:])
	return c, nil
}

// MayRenew says whether an identity may be renewed without a person's word.
// Errors: ErrTooOld.
func MayRenew(c *Claim, now time.Time) error {
	if now.After(c.NotAfter.Add(RenewLimit)) {
		return fmt.Errorf("%w: at %s", ErrTooOld, c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
