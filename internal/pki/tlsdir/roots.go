package tlsdir

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"

	"larder/internal/pki/bundle"
	"larder/internal/sys/private"
)

// rootsFile holds the roots that an administrator gave with an import: the
// next one, and the question whether a certificate was revoked, need them too.
const rootsFile = "roots.pem"

// With returns st with the roots that were given in earlier imports.
func (d *Dir) With(st Standards) Standards {
	b, err := bundle.ReadFile(d.file(rootsFile), bundle.Options{})
	if err != nil {
		return st // none yet; a file that cannot be read vouches for nobody
	}
	st.Given = slices.Concat(st.Given, b.Certs)
	return st
}

// remember keeps the self-signed ones of given that lie at the end of a chain
// that was accepted.
func (d *Dir) remember(chain, given []*x509.Certificate) error {
	have, err := bundle.ReadFile(d.file(rootsFile), bundle.Options{})
	if err != nil {
		if _, serr := os.Stat(d.file(rootsFile)); !errors.Is(serr, fs.ErrNotExist) {
			return err
		}
		have = &bundle.Bundle{}
	}
	all := have.Certs
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	for _, root := range given {
		if slices.ContainsFunc(all, root.Equal) || root.Equal(chain[0]) {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(root)
		// Only whether it is the end of this chain: the rest was checked.
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil {
			all = append(all, root)
		}
	}
	if len(all) == len(have.Certs) {
		return nil
	}
	return private.WriteFile(d.file(rootsFile), bundle.Encode(all))
}
