package acme

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"larder/internal/lardertest"
)

func TestParseChain(t *testing.T) {
	t.Parallel()
	ca := lardertest.NewCA(t)
	leaf := ca.Leaf(t, "cache.example")
	chain, err := parseChain(append(slices.Clone(leaf.CertPEM), ca.PEM...))
	if err != nil || len(chain) != 2 || !chain[0].Equal(leaf.Cert) {
		t.Errorf("parseChain is %v, %v", chain, err)
	}
	for text, want := range map[string]string{
		"":                  "no certificate in PEM",
		"junk":              "no certificate in PEM",
		string(leaf.KeyPEM): `a block of type "PRIVATE KEY"`,
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})): "x509",
	} {
		if _, err := parseChain([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseChain is %v; want %s", err, want)
		}
	}
	other := lardertest.NewCA(t)
	if got, ok := prefer([][]*x509.Certificate{chain, {other.Cert}}, "nobody"); ok || len(got) != 2 {
		t.Errorf("prefer is %v, %v; want the first", got, ok)
	}
	if got, ok := prefer(nil, ""); ok || got != nil {
		t.Errorf("prefer is %v, %v of nothing", got, ok)
	}
}

func FuzzParseChain(f *testing.F) {
	ca := lardertest.NewCA(f)
	f.Add(ca.PEM)
	f.Fuzz(func(t *testing.T, text []byte) {
		if chain, err := parseChain(text); err == nil && len(chain) == 0 {
			t.Error("no chain and no error")
		}
	})
}

func FuzzIdentifiers(f *testing.F) {
	f.Fuzz(func(t *testing.T, der []byte) {
		req, err := x509.ParseCertificateRequest(der)
		if err != nil {
			return
		}
		ids, problems := identifiers(req)
		if len(ids) == 0 && len(problems) == 0 {
			t.Error("a request without names passes")
		}
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	if got := clean(" a\n\tb\x00\x1b[31mc "); got != "a b [31mc" {
		t.Errorf("clean is %q", got)
	}
	if got := clean(strings.Repeat("ä", 1000)); got != strings.Repeat("ä", 600)+"…" {
		t.Errorf("clean is %d bytes", len(got))
	}
}
