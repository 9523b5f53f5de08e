package scep

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"larder/internal/pki/keys"
)

// The servers of two other projects. What they accept is what Sign's comment
// says.

func TestMicroMDM(t *testing.T) {
	t.Parallel()
	url, ca := microMDM(t)
	fingerprint := fmt.Sprintf("%x", sha256.Sum256(ca.Raw))
	for _, algorithm := range []string{keys.RSA, keys.EC} {
		var log strings.Builder
		s := signer(t, Config{URL: url, Challenge: word, Fingerprint: fingerprint, Log: slog.New(slog.NewTextHandler(&log, nil))})
		csr, key := requestOf(t, algorithm, "micro-"+algorithm+".example.com")
		chain, err := s.Sign(t.Context(), csr, key, nil)
		current := wantCert(t, chain, err, csr, 1) // its CA is a root
		current.Key = key

		// A renewal with another key. This server wants the challenge again.
		csr, key = request(t, algorithm, "micro-"+algorithm+".example.com")
		chain, err = s.Sign(t.Context(), csr, key, current)
		wantCert(t, chain, err, csr, 1)
		if tried := strings.Contains(log.String(), "message=RenewalReq challenge=false"); tried != (algorithm == keys.RSA) {
			t.Errorf("%s: a renewal without the challenge was tried: %v\n%s", algorithm, tried, log.String())
		}
	}
	csr, key := request(t, keys.Ed25519, host)
	_, err := signer(t, Config{URL: url, Challenge: word, Fingerprint: fingerprint}).Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "badRequest", "an Ed25519 key")

	csr, key = rsaRequest(t, host)
	_, err = signer(t, Config{URL: url, Challenge: notIt, Fingerprint: fingerprint}).Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "badRequest", "challenge password is right")
	_, err = signer(t, Config{URL: url}).Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "badRequest")
	_, err = signer(t, Config{URL: url, Challenge: word, Fingerprint: strings.Repeat("ab", 32)}).Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "CA fingerprint", fingerprint, strings.Repeat("ab", 32), "somebody else answers")
	_, err = signer(t, Config{URL: url + "/nothing", Challenge: word, Fingerprint: fingerprint}).Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "SCEP GetCACert", "404", "the address is right")
}

func TestStepCA(t *testing.T) {
	t.Parallel()
	url, intermediate, ra := stepCA(t)
	for name, of := range map[string][]byte{"plain": intermediate.Raw, "ra": ra.Raw} {
		s := signer(t, Config{URL: url + "/" + name, Challenge: word, Fingerprint: fmt.Sprintf("%X", sha256.Sum256(of))})
		for _, algorithm := range []string{keys.RSA, keys.EC, keys.Ed25519} {
			csr, key := requestOf(t, algorithm, "step.example.com")
			chain, err := s.Sign(t.Context(), csr, key, nil)
			current := wantCert(t, chain, err, csr, 2)
			if !chain[1].Equal(intermediate) {
				t.Errorf("%s: issued by %s", name, chain[1].Subject)
			}
			current.Key = key
			csr, key = request(t, algorithm, "step.example.com")
			chain, err = s.Sign(t.Context(), csr, key, current)
			wantCert(t, chain, err, csr, 2)
		}
		csr, key := rsaRequest(t, host)
		_, err := signer(t, Config{URL: url + "/" + name, Challenge: notIt, Fingerprint: fmt.Sprintf("%x", sha256.Sum256(of))}).Sign(t.Context(), csr, key, nil)
		wantRefused(t, err, "badRequest", "challenge")
	}
	// The intermediate's fingerprint does not stand for a registration
	// authority that has a certificate like anybody's.
	csr, key := rsaRequest(t, host)
	s := signer(t, Config{URL: url + "/ra", Challenge: word, Fingerprint: fmt.Sprintf("%x", sha256.Sum256(intermediate.Raw))})
	_, err := s.Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "SCEP GetCACert", fmt.Sprintf("%x (CN=SCEP decrypter)", sha256.Sum256(ra.Raw)), "give its SHA-256 as the fingerprint")

	_, err = signer(t, Config{URL: url + "/nobody", Challenge: word, Fingerprint: thumbprint(intermediate)}).Sign(t.Context(), csr, key, nil)
	wantWords(t, err, "SCEP GetCACaps", "500", "provisioner nobody not found")
}
