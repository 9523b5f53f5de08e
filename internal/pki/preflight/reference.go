package preflight

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// reference is the certificate that everybody who comes to this node ought to
// see.
type reference struct {
	sha256 string // lower-case hexadecimal; "" there is none
	sha1   string // upper-case hexadecimal; "" not known
	what   string // for people
	probe  bool   // it is shown by Run, only now
	served bool   // something is there to be reached: the node or the probe
}

// findReference learns what the node shows: by what it says, by looking at it
// from here, or by what it will show when it runs. Nothing of that, and the
// ports that are held show a certificate made up for this moment.
func findReference(ctx context.Context, o Options, active activePair, held *holds) reference {
	if o.Node.serves() {
		ref := reference{sha256: normal(o.Node.ServedSHA256), what: "the certificate that the node serves", served: true}
		for _, addr := range o.Node.HTTPS {
			host, number, err := net.SplitHostPort(local(addr))
			if err != nil {
				continue
			}
			s, err := fetch(ctx, nil, target{host: host, port: number}, nil, nil)
			if err == nil && (ref.sha256 == "" || ref.sha256 == sha256Of(s.cert)) {
				ref.sha256, ref.sha1 = sha256Of(s.cert), sha1Of(s.cert)
				break
			}
		}
		if ref.sha1 == "" && ref.sha256 == active.status.SHA256 {
			ref.sha1 = active.status.SHA1
		}
		return ref
	}
	if len(held.listeners) > 0 {
		cert, err := throwAway(o)
		if err == nil {
			held.serve(cert)
			return reference{sha256: sha256Of(cert.Leaf), sha1: sha1Of(cert.Leaf), what: "the certificate made up for this check", probe: true, served: true}
		}
	}
	if active.status.SHA256 != "" {
		return reference{sha256: active.status.SHA256, sha1: active.status.SHA1, what: "the certificate that is active on disk"}
	}
	return reference{}
}

// throwAway makes a certificate that nobody trusts, for some minutes.
func throwAway(o Options) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	now := o.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "larder tls preflight"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	// An inspecting proxy is to have no reason to refuse it but its issuer.
	for _, n := range o.Names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if isPlain(n) {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate just made: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// holds are the ports that were free and are held while Run looks.
type holds struct {
	listeners []net.Listener
	ctx       context.Context // ends at close; visits live under it
	cancel    context.CancelFunc
	visits    sync.WaitGroup // whoever comes, and those who wait for them
}

func newHolds() *holds {
	h := new(holds)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// serve shows cert to whoever comes, and nothing else.
func (h *holds) serve(cert *tls.Certificate) {
	config := &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}}
	for _, l := range h.listeners {
		h.visits.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				h.visits.Go(func() {
					defer conn.Close()
					ctx, cancel := context.WithTimeout(h.ctx, fetchTime)
					defer cancel()
					_ = tls.Server(conn, config).HandshakeContext(ctx) // a scanner's trouble is not ours
				})
			}
		})
	}
}

// close gives the ports back.
func (h *holds) close() {
	for _, l := range h.listeners {
		_ = l.Close() // nothing was written
	}
	h.cancel()
	h.visits.Wait()
}
