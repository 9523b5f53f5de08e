package preflight

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
	"larder/internal/pki/vet"
)

// activePair is what active.yaml leads to.
type activePair struct {
	status livecert.Status
	err    error // why it cannot be used
	none   bool  // nothing is in use
	off    bool  // because HTTPS is switched off
}

func readActive(dir string) activePair {
	s, err := livecert.Check(dir)
	p := activePair{status: s, err: err, none: errors.Is(err, livecert.ErrNoneActive)}
	if p.none {
		a, err := livecert.ReadActive(dir)
		p.off = err == nil && a.Disabled
	}
	return p
}

// certificateCheck says which certificate is active and for how long.
func certificateCheck(o Options, active activePair) Check {
	c := Check{ID: IDCertificate, Title: "Active certificate", Result: OK,
		Why: "it is what clients see; when it ends, they go past the node"}
	s := active.status
	left := s.NotAfter.Sub(o.Now())
	served := normal(o.Node.ServedSHA256)
	switch {
	case active.none && o.Node.serves():
		c.Result, c.Found = Warning, "none in "+o.Dir+", although the node serves one"
		c.Do = "see that this looks at the TLS directory of the node (tls.dir)"
	case active.off:
		c.Result, c.Found, c.Do = Info, "none: HTTPS is switched off", "larder tls enable switches it on again"
	case active.none:
		c.Result, c.Found = Info, "none yet"
		c.Do = "make a request: larder tls csr; have it signed, then larder tls import"
	case s.SHA256 == "":
		c.Result, c.Found, c.Do = Failed, active.err.Error(), "mend that, or import a certificate again: larder tls import"
	default:
		c.Found = fmt.Sprintf("%s for %s, issued by %s, until %s, SHA-256 %s", distinguished(s.Subject), distinguished(strings.Join(s.SANs, ", ")), distinguished(s.Issuer), moment(s.NotAfter), s.SHA256)
		switch {
		case left < 0:
			c.Result, c.Do = Failed, "renew it: larder tls renew"
			c.Found += "; it has ended"
		case o.Now().Before(s.NotBefore):
			c.Result, c.Do = Failed, "set the clock of this machine, or wait: it begins "+moment(s.NotBefore)
			c.Found += "; it has not begun"
		case vet.Left(s.NotBefore, s.NotAfter, o.Now()) >= vet.Notice:
			c.Result, c.Do = Warning, "renew it: larder tls renew"
			c.Found += "; " + days(left)
		default:
			c.Found += "; " + days(left)
		}
		if served != "" && served != s.SHA256 {
			c.Result = worse(c.Result, Warning)
			c.Found += "\nthe node serves another one, SHA-256 " + served
			c.Do = joinLines(c.Do, "see why the node has not taken it (larder tls show, the node's log), and that this looks at its TLS directory")
		}
	}
	return c
}

func days(left time.Duration) string {
	switch n := int(left / (24 * time.Hour)); n {
	case 0:
		return "less than a day left"
	case 1:
		return "1 day left"
	default:
		return fmt.Sprintf("%d days left", n)
	}
}

// chainCheck says whether the active certificate leads to a root.
func chainCheck(o Options, active activePair) Check {
	c := Check{ID: IDChain, Title: "Chain to a root", Result: Skipped,
		Why: "clients take the certificate only if it leads, by what the node sends along, to a root that they trust"}
	if active.status.File == "" {
		c.Found = "no certificate is active"
		return c
	}
	data, err := readSmall(active.status.File)
	if err != nil {
		c.Found = fmt.Sprintf("the certificate could not be read: %v", err)
		return c
	}
	certs := certificates(data)
	if len(certs) == 0 {
		c.Found = "no certificate in " + active.status.File
		return c
	}
	between := x509.NewCertPool()
	for _, cert := range certs[1:] {
		between.AddCert(cert)
	}
	// Whether it is valid now is asked elsewhere.
	at := o.Now()
	if at.After(certs[0].NotAfter) {
		at = certs[0].NotAfter
	}
	if at.Before(certs[0].NotBefore) {
		at = certs[0].NotBefore
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{Roots: o.Roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	switch {
	case err == nil:
		chain := chains[0]
		c.Result, c.Found = OK, "leads to "+distinguished(chain[len(chain)-1].Subject.String())
	case o.Roots != nil:
		c.Result, c.Found = Failed, fmt.Sprintf("does not lead to a root that was given: %v", err)
		c.Do = "import it again together with the certificates of the authorities between it and the root"
	default:
		// The root of an organisation is often on its clients only.
		c.Result, c.Found = Info, fmt.Sprintf("does not lead to a root that this machine trusts: %v", err)
		c.Do = "see that clients trust the root of " + distinguished(certs[len(certs)-1].Issuer.String()) + "; give that root to this check to be sure of the rest"
	}
	return c
}

// waitingCheck looks for keys that have no certificate yet.
func waitingCheck(o Options) Check {
	c := Check{ID: IDWaiting, Title: "Keys without a certificate", Result: OK, Found: "none",
		Why: "a request that was signed is of use only with the key it was made with, which is here"}
	names, err := filepath.Glob(filepath.Join(o.Dir, "keys", "*.key"))
	if err != nil || len(names) == 0 {
		return c // the pattern is bad only if the directory's name is
	}
	have := signed(o.Dir)
	var found, do []string
	for _, file := range names[:min(len(names), mostFiles)] {
		name := strings.TrimSuffix(filepath.Base(file), ".key")
		data, err := readSmall(file)
		var key crypto.Signer
		if err == nil {
			key, err = keys.ParsePEM(data)
		}
		if err != nil {
			c.Result = Warning
			found = append(found, fmt.Sprintf("%s cannot be read: %v", file, bare(err)))
			do = append(do, "let this account read "+file+", or move it away if it is no key")
			continue
		}
		if have.has(key.Public()) {
			continue
		}
		c.Result = worse(c.Result, Info)
		request := filepath.Join(o.Dir, "certs", name+".csr")
		if _, err := os.Stat(request); err != nil {
			found = append(found, name+": a key ("+keys.Kind(key.Public())+") without request and certificate")
			do = append(do, "make a request with it, or remove "+file+" if nobody will")
			continue
		}
		found = append(found, name+": requested by "+request+" ("+keys.Kind(key.Public())+"), no certificate yet")
		do = append(do, "have "+request+" signed, then: larder tls import")
	}
	if len(found) > 0 {
		c.Found, c.Do = strings.Join(found, "\n"), strings.Join(do, "\n")
	}
	return c
}

// publicKeys are those that certificates were issued for.
type publicKeys []crypto.PublicKey

func (p publicKeys) has(key crypto.PublicKey) bool {
	for _, k := range p {
		if keys.Same(k, key) {
			return true
		}
	}
	return false
}

// signed returns the keys of all certificates in dir's certs. Files that are
// none are no concern here.
func signed(dir string) (all publicKeys) {
	entries, err := os.ReadDir(filepath.Join(dir, "certs"))
	if err != nil {
		return nil
	}
	for _, e := range entries[:min(len(entries), mostFiles)] {
		switch filepath.Ext(e.Name()) {
		case ".crt", ".pem", ".cer":
		default:
			continue
		}
		data, err := readSmall(filepath.Join(dir, "certs", e.Name()))
		if err != nil {
			continue
		}
		for _, c := range certificates(data) {
			all = append(all, keys.PublicOf(c))
		}
	}
	return all
}

// certificates reads what there is in PEM, or one in DER.
func certificates(data []byte) (all []*x509.Certificate) {
	if c, err := x509.ParseCertificate(data); err == nil {
		return []*x509.Certificate{c}
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			all = append(all, c)
		}
	}
}

const (
	mostFiles = 1000    // of one directory that are read
	mostBytes = 1 << 20 // of one file
)

// readSmall reads a regular file.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name) // before opening: opening a pipe would wait
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > mostBytes:
		return nil, fmt.Errorf("it is larger than %d bytes", mostBytes)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, mostBytes))
}
