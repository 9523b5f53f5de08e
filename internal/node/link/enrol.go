package link

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"larder/internal/fleet"
	"larder/internal/pki/authority"
	"larder/internal/sys/private"
)

// Enrolment is what a deployment command says.
type Enrolment struct {
	URL             string // https://host:port of the control plane
	Fingerprint     string // of its root
	CustomerID      string
	CacheNodeID     string
	CustomerKey     string // secret
	RegistrationKey string // secret, good once

	// Proxy is the proxy for a host where it cannot be reached directly; nil, or
	// nil for a host: none.
	Proxy func(host string) *url.URL
}

// Check names every mistake in an enrolment, by the words of the command.
func (e Enrolment) Check() error {
	var errs []error
	if err := CheckURL(e.URL); err != nil {
		errs = append(errs, fmt.Errorf("controlurl: %w", err))
	}
	if _, err := authority.ParseFingerprint(e.Fingerprint); err != nil {
		errs = append(errs, fmt.Errorf("controlfingerprint: %w", err))
	}
	for _, f := range []struct{ name, value string }{
		{"customerid", e.CustomerID}, {"cachenodeid", e.CacheNodeID}, {"customerkey", e.CustomerKey}, {"registrationkey", e.RegistrationKey},
	} {
		if strings.TrimSpace(f.value) == "" {
			errs = append(errs, fmt.Errorf("%s: is missing; the control plane shows the whole command at the node", f.name))
		}
	}
	return errors.Join(errs...)
}

// Enrolled is what came of an enrolment.
type Enrolled struct {
	CacheNodeID string
	NotAfter    time.Time // of the identity
}

// Enrol makes a key, proves the registration key and keeps the identity that
// comes back in dir, which it makes. An identity that was there before is
// replaced when the new one is written down, not earlier. A call whose answer
// was lost may be made again: it uses the same key, and the control plane takes
// that for an hour. Errors: *Refusal when the control plane says no.
func Enrol(ctx context.Context, dir string, e Enrolment, sys fleet.System) (*Enrolled, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	cfg, err := authority.PinRoot(e.Fingerprint)
	if err != nil {
		return nil, err
	}
	if err := private.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("making the directory of the node's identity: %w", err)
	}
	key, err := registrationKey(dir)
	if err != nil {
		return nil, err
	}
	csr, err := request(key)
	if err != nil {
		return nil, err
	}
	c := newClient(e.URL, cfg, e.Proxy)
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var issued fleet.Identity
	if _, err := c.call(ctx, "POST", fleet.PathRegister, &fleet.Registration{
		Protocol: fleet.Protocol, CustomerID: e.CustomerID, CacheNodeID: e.CacheNodeID, CustomerKey: e.CustomerKey, RegistrationKey: e.RegistrationKey,
		CSR: csr, System: sys,
	}, &issued); err != nil {
		return nil, err
	}
	if !strings.EqualFold(issued.CacheNodeID, e.CacheNodeID) {
		return nil, fmt.Errorf("the control plane gave the identity of node %s, expected %s", issued.CacheNodeID, e.CacheNodeID)
	}
	id, err := (&identity{URL: strings.TrimRight(e.URL, "/"), CustomerID: e.CustomerID}).with(key, &issued)
	if err != nil {
		return nil, err
	}
	if old, err := readIdentity(dir); err == nil && !strings.EqualFold(old.CacheNodeID, id.CacheNodeID) {
		// What the machine was told and counted as another node is not this one's.
		if err := errors.Join(remove(desiredFile(dir)), remove(bufferFile(dir))); err != nil {
			return nil, err
		}
	}
	if err := id.write(dir); err != nil {
		return nil, err
	}
	return &Enrolled{id.CacheNodeID, id.leaf().NotAfter}, remove(registeringFile(dir))
}

func registeringFile(dir string) string { return filepath.Join(dir, "registering.pem") }

// registrationKey is the key of an enrolment that has not come to its end, or a
// new one.
func registrationKey(dir string) (crypto.Signer, error) {
	file := registeringFile(dir)
	b, err := os.ReadFile(file)
	if err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if s, ok := k.(crypto.Signer); ok {
					return s, nil
				}
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the key of an enrolment: %w", err)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	if err := private.WriteFile(file, []byte(text)); err != nil {
		return nil, fmt.Errorf("writing the key of an enrolment: %w", err)
	}
	return key, nil
}

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Forget removes what Enrol and a Link keep in dir.
func Forget(dir string) error {
	var errs []error
	for _, f := range []string{identityFile(dir), registeringFile(dir), desiredFile(dir), bufferFile(dir)} {
		errs = append(errs, remove(f))
	}
	return errors.Join(errs...)
}

// Move has the identity of a directory look for its control plane elsewhere: it
// has another address by now.
func Move(dir, url string) error {
	if err := CheckURL(url); err != nil {
		return err
	}
	id, err := readIdentity(dir)
	if err != nil || id.URL == url {
		return err
	}
	id.URL = url
	return id.write(dir)
}

// Whose says for which node and which control plane a directory was enrolled.
// Errors: ErrNotEnrolled.
func Whose(dir string) (cacheNodeID, url string, err error) {
	id, err := readIdentity(dir)
	if err != nil {
		return "", "", err
	}
	return id.CacheNodeID, id.URL, nil
}

// Document is the last one that worked at the node of a directory, nil if there
// is none, for commands beside the node. Errors: ErrNotEnrolled.
func Document(dir string) (*fleet.Desired, error) {
	id, err := readIdentity(dir)
	if err != nil {
		return nil, err
	}
	return readDesired(dir, id.CacheNodeID)
}
