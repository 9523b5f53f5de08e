package enroll

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"larder/internal/pki/bundle"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/enroll/command"
	"larder/internal/pki/enroll/est"
	"larder/internal/pki/enroll/scep"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
	"larder/internal/sys/private"
)

// signer makes the signer that the settings describe, and what to call when it
// is no longer needed.
func (r *Renewer) signer(s *Settings) (signer, func(), error) {
	none := func() {}
	switch {
	case s.ACME != nil:
		made, err := r.acme(s.ACME)
		if err != nil {
			return nil, none, err
		}
		return made, made.Close, nil
	case s.EST != nil:
		made, err := r.est(s.EST)
		return made, none, err
	case s.SCEP != nil:
		made, err := r.scep(s.SCEP)
		return made, none, err
	}
	made, err := command.New(command.Config{Command: s.Command.Run, Timeout: s.Command.Timeout})
	return made, none, err
}

func (r *Renewer) acme(a *ACME) (*acme.Signer, error) {
	sum := sha256.Sum256([]byte(a.Directory + "\x00" + a.EABKeyID))
	cfg := acme.Config{
		DirectoryURL: a.Directory, Contact: a.Email, AgreeTerms: a.AgreeTerms, PreferredChain: a.PreferredChain, Log: r.log(),
		AccountKeyFile: r.path("credentials/acme-" + hex.EncodeToString(sum[:4]) + ".key"), // one account for each authority
		SaveKey:        private.WriteFile,
	}
	var errs []error
	if a.CA != "" {
		roots, err := r.pool("acme.ca", a.CA)
		errs = append(errs, err)
		cfg.Roots = roots
	}
	if a.EABKeyID != "" {
		key, err := r.secret("acme.eab_key_file", a.EABKeyFile)
		errs = append(errs, err)
		cfg.EAB = &acme.EAB{KeyID: a.EABKeyID, HMACKey: key}
	}
	ways := a.Challenge
	if len(ways) == 0 {
		ways = []string{acme.HTTP01}
	}
	for _, way := range ways {
		if way == acme.DNS01 {
			cfg.Ways = append(cfg.Ways, acme.Way{Challenge: way, Solver: &acme.DNSCommand{Command: a.DNSCommand}})
			continue
		}
		solver := r.Solvers[way]
		if solver == nil {
			errs = append(errs, &problem.Problem{Field: "acme.challenge", Found: way, Expected: "a challenge that can be answered from here",
				Next: "let the running node renew, or use dns-01"})
			continue
		}
		cfg.Ways = append(cfg.Ways, acme.Way{Challenge: way, Solver: solver})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return acme.New(cfg)
}

func (r *Renewer) est(e *EST) (*est.Signer, error) {
	cfg := est.Config{URL: e.URL, Fingerprint: e.Fingerprint, User: e.User, Log: r.log()}
	var errs []error
	if e.CA != "" {
		roots, err := r.pool("est.ca", e.CA)
		errs = append(errs, err)
		cfg.Roots = roots
	}
	if e.PasswordFile != "" {
		password, err := r.secret("est.password_file", e.PasswordFile)
		errs = append(errs, err)
		cfg.Password = signing.Secret(password)
	}
	if e.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(r.path(e.ClientCert), r.path(e.ClientKey))
		if err != nil {
			errs = append(errs, &problem.Problem{Field: "est.client_cert", Found: "a pair that cannot be used", Expected: "a certificate and its key in PEM", Err: err, Next: "name files that belong together"})
		}
		cfg.ClientCert = &pair
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return est.New(cfg)
}

func (r *Renewer) scep(s *SCEP) (*scep.Signer, error) {
	cfg := scep.Config{URL: s.URL, Fingerprint: s.Fingerprint, CAIdentifier: s.CA, Log: r.log()}
	if s.ChallengeFile != "" {
		challenge, err := r.secret("scep.challenge_file", s.ChallengeFile)
		if err != nil {
			return nil, err
		}
		cfg.Challenge = signing.Secret(challenge)
	}
	return scep.New(cfg)
}

// path is where a file of the settings lies.
func (r *Renewer) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.Dir.Path(), filepath.FromSlash(name))
}

// certificates reads a PEM file of the settings.
func (r *Renewer) certificates(field, name string) ([]*x509.Certificate, error) {
	b, err := bundle.ReadFile(r.path(name), bundle.Options{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return b.Certs, nil
}

func (r *Renewer) pool(field, name string) (*x509.CertPool, error) {
	certs, err := r.certificates(field, name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// secret reads a file that holds one secret. What others can read is not used:
// it is no secret.
func (r *Renewer) secret(field, name string) (string, error) {
	file := r.path(name)
	p := &problem.Problem{Field: field + " (" + file + ")", Expected: "a file with the secret that only the node's account can read"}
	data, err := os.ReadFile(file)
	if err != nil {
		p.Found, p.Err, p.Next = "a file that cannot be read", err, "set it again with larder tls auto"
		if errors.Is(err, fs.ErrNotExist) {
			p.Found, p.Err = "no such file", nil
		}
		return "", p
	}
	if found, loose := private.Loose(file); loose {
		p.Found, p.Next = found, "chmod 600, and change the secret if others have an account here"
		return "", p
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		p.Found, p.Next = "an empty file", "write the secret into it"
		return "", p
	}
	return text, nil
}
