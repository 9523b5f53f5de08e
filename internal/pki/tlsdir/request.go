package tlsdir

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"larder/internal/pki/csr"
	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
	"larder/internal/sys/private"
)

// goodName is what requests and certificates may be called: it becomes a file's
// name on every system.
var goodName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)

// CheckName says what is wrong with the name of a request or certificate.
func CheckName(field, name string) error {
	if goodName.MatchString(name) && !strings.HasSuffix(name, ".") && !strings.HasSuffix(name+".key", PendingSuffix) {
		return nil
	}
	p := &problem.Problem{Field: field, Found: fmt.Sprintf("%q", name), Expected: "up to 100 letters, digits, dots, hyphens and underscores, not beginning with a dot or hyphen, nor ending in -pending", Next: "choose a name such as node-2026"}
	if name == "" {
		p.Found = "nothing"
	}
	return p
}

// Requested is a request that lies in the directory.
type Requested struct {
	Name    string `json:"name"`
	CSRFile string `json:"csrFile"`
	KeyFile string `json:"keyFile"` // "" if its key is not here
	KeyType string `json:"keyType"`
}

// Request makes a key and a request for it: keys/NAME.key, and certs/NAME.csr
// for the authority. The key never leaves the directory. A name that is taken
// is ErrConflict.
func (d *Dir) Request(ctx context.Context, name string, r csr.Request) (*Requested, error) {
	if err := errors.Join(CheckName("--csr-name", name), r.Check()); err != nil {
		return nil, err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	done := &Requested{Name: name, CSRFile: d.file("certs", name+".csr"), KeyFile: d.file("keys", name+".key")}
	for _, file := range []string{done.KeyFile, done.CSRFile} {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %w", ErrConflict, &problem.Problem{Field: "--csr-name", Found: name + ", which is taken (" + file + ")", Expected: "a name that is free",
				Next: "choose another one; to have the same request signed again use larder tls renew"})
		}
	}
	key, err := keys.Generate(r.Algorithm, r.Size)
	if err != nil {
		return nil, fmt.Errorf("making the key: %w", err)
	}
	done.KeyType = keys.Kind(key.Public())
	if err := d.writeKey(done.KeyFile, key); err != nil {
		return nil, err
	}
	if err := d.writeRequest(done.CSRFile, r, key); err != nil {
		return nil, errors.Join(err, os.Remove(done.KeyFile)) // nobody knows it yet
	}
	return done, inventory.Audit(d.path, inventory.Event{Time: time.Now(), What: "requested", Name: name, By: d.by, Detail: r.CommonName})
}

func (d *Dir) writeKey(file string, key crypto.Signer) error {
	text, err := keys.MarshalPEM(key)
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	if err := private.WriteFile(file, text); err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	return nil
}

func (d *Dir) writeRequest(file string, r csr.Request, key crypto.Signer) error {
	der, err := r.Create(key)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	if err := private.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})); err != nil {
		return fmt.Errorf("writing the request: %w", err)
	}
	return nil
}

// RequestFor returns the request in the directory that was made with this key,
// ErrNotFound if there is none.
func (d *Dir) RequestFor(public crypto.PublicKey) (name string, der []byte, err error) {
	files, err := os.ReadDir(d.file("certs"))
	if err != nil {
		return "", nil, dirProblem(d.path, err)
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".csr" {
			continue
		}
		data, err := os.ReadFile(d.file("certs", f.Name()))
		if err != nil {
			continue
		}
		req, err := csr.Parse(data)
		if err == nil && keys.Same(keys.PublicOfRequest(req), public) {
			return strings.TrimSuffix(f.Name(), ".csr"), req.Raw, nil
		}
	}
	return "", nil, fmt.Errorf("no request in %s was made with that key: %w", d.file("certs"), ErrNotFound)
}

// Again is a request that is put out again, to be signed again.
type Again struct {
	Requested
	Subject string   `json:"subject"`
	SANs    []string `json:"sans"`
	DER     []byte   `json:"-"`
}

// RequestAgain returns the request of the certificate in use, with the same
// key. Where its file is gone, or the certificate came with a key of its own,
// it is made anew from the certificate.
func (d *Dir) RequestAgain(ctx context.Context) (*Again, error) {
	chain, key, keyFile, err := d.Active()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, &problem.Problem{Field: "certificate", Found: "none that was ever in use here", Expected: "one whose request could be signed again", Next: "make a request with larder tls csr"})
	}
	if err != nil {
		return nil, err
	}
	a := &Again{Subject: chain[0].Subject.String(), SANs: entry(chain[0]).SANs}
	a.KeyFile, a.KeyType = livecert.Resolve(d.path, keyFile), keys.Kind(key.Public())
	switch a.Name, a.DER, err = d.RequestFor(key.Public()); {
	case err == nil:
		a.CSRFile = d.file("certs", a.Name+".csr")
		return a, nil
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	names, err := san.OfCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("names of the certificate in use: %w", err)
	}
	r := requestLike(key.Public(), chain[0], names)
	a.Name = strings.TrimSuffix(filepath.Base(keyFile), filepath.Ext(keyFile))
	for n := 2; exists(d.file("certs", a.Name+".csr")); n++ { // of another key
		a.Name = fmt.Sprintf("%s-%d", strings.TrimSuffix(a.Name, fmt.Sprintf("-%d", n-1)), n)
	}
	a.CSRFile = d.file("certs", a.Name+".csr")
	if a.DER, err = r.Create(key); err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	return a, private.WriteFile(a.CSRFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: a.DER}))
}

// requestLike is a request for what a certificate says.
func requestLike(public crypto.PublicKey, c *x509.Certificate, names san.Names) csr.Request {
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	r := csr.Request{CommonName: c.Subject.CommonName, Country: first(c.Subject.Country), State: first(c.Subject.Province), Organization: first(c.Subject.Organization), Names: names}
	r.Algorithm, r.Size = keys.AlgorithmOf(public)
	if hosts := names.Hosts(); r.CommonName == "" && len(hosts) > 0 {
		r.CommonName = hosts[0] // some authorities leave it out; requests have one
	}
	return r
}

// RequestLike is a request for what the certificate in use says; ErrNotFound or
// fs.ErrNotExist if there is none.
func (d *Dir) RequestLike() (csr.Request, error) {
	chain, key, _, err := d.Active()
	if err != nil {
		return csr.Request{}, err
	}
	names, err := san.OfCertificate(chain[0])
	if err != nil {
		return csr.Request{}, fmt.Errorf("names of the certificate in use: %w", err)
	}
	return requestLike(key.Public(), chain[0], names), nil
}
