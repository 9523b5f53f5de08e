package bundle_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"larder/internal/pki/bundle"
	"larder/internal/pki/keys"
)

// pki is a root, an authority below it and a server's certificate, made by
// OpenSSL in a directory: root.pem, ca.pem, leaf.pem, leaf.key, leaf.csr, and
// chain.pem with the three certificates in a wrong order.
type pki struct{ dir string }

// algorithms are arguments of openssl genpkey.
var algorithms = map[string][]string{
	"RSA 2048":    {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	"ECDSA P-256": {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"},
	"ECDSA P-384": {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-pkeyopt", "ec_param_enc:named_curve"},
	"Ed25519":     {"-algorithm", "ED25519"},
	"Ed448":       {"-algorithm", "ED448"},
}

func newPKI(t testing.TB, algorithm string) *pki {
	t.Helper()
	p := &pki{t.TempDir()}
	for _, who := range []struct{ name, subject, issuer, extensions string }{
		{"root", "/CN=Test root", "root", "basicConstraints=critical,CA:TRUE"},
		{"ca", "/O=Larder/CN=Test authority", "root", "basicConstraints=critical,CA:TRUE\nauthorityKeyIdentifier=keyid"},
		{"leaf", "/CN=cache.example", "ca", "subjectAltName=DNS:cache.example\nextendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid"},
	} {
		p.run(t, append([]string{"genpkey", "-out", who.name + ".key"}, algorithms[algorithm]...)...)
		p.run(t, "req", "-new", "-key", who.name+".key", "-subj", who.subject, "-out", who.name+".csr")
		p.write(t, who.name+".ext", []byte(who.extensions+"\nsubjectKeyIdentifier=hash\n"))
		sign := []string{"x509", "-req", "-in", who.name + ".csr", "-extfile", who.name + ".ext", "-days", "30", "-out", who.name + ".pem", "-set_serial", "0x4711"}
		if who.issuer == who.name {
			sign = append(sign, "-signkey", who.name+".key")
		} else {
			sign = append(sign, "-CA", who.issuer+".pem", "-CAkey", who.issuer+".key")
		}
		p.run(t, sign...)
	}
	p.write(t, "chain.pem", slices.Concat(p.read(t, "root.pem"), p.read(t, "leaf.pem"), p.read(t, "ca.pem")))
	p.write(t, "cas.pem", slices.Concat(p.read(t, "root.pem"), p.read(t, "ca.pem")))
	return p
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// run runs openssl in the directory and returns what it prints.
func (p *pki) run(t testing.TB, args ...string) []byte {
	t.Helper()
	return p.tool(t, "openssl", args...)
}

func (p *pki) tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

func (p *pki) read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(p.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (p *pki) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(p.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// der is the DER of the first block of a PEM file.
func (p *pki) der(t testing.TB, name string) []byte {
	t.Helper()
	b, _ := pem.Decode(p.read(t, name))
	if b == nil {
		t.Fatalf("%s is not PEM", name)
	}
	return b.Bytes
}

func (p *pki) cert(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(p.der(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// whole checks that b has the leaf, the authority and the root, that the
// leaf's key finds the chain, and that b has so many keys.
func (p *pki) whole(t *testing.T, b *bundle.Bundle, wantKeys int) {
	t.Helper()
	leaf, ca, root := p.cert(t, "leaf.pem"), p.cert(t, "ca.pem"), p.cert(t, "root.pem")
	key, err := keys.ParsePEM(p.read(t, "leaf.key"))
	if err != nil {
		t.Fatal(err)
	}
	chain, unused, err := b.Chain(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if !same(chain, leaf, ca) || !same(unused, root) {
		t.Errorf("chain %s, unused %s; want leaf and authority, and the root unused", subjects(chain), subjects(unused))
	}
	if leafs := b.Leafs(); !same(leafs, leaf) {
		t.Errorf("leafs %s; want the leaf", subjects(leafs))
	}
	if len(b.Keys) != wantKeys || wantKeys > 0 && !keys.Same(b.Keys[0].Public(), key.Public()) {
		t.Errorf("%d keys; want %d, the leaf's first", len(b.Keys), wantKeys)
	}
}

func same(got []*x509.Certificate, want ...*x509.Certificate) bool {
	return slices.EqualFunc(got, want, (*x509.Certificate).Equal)
}

func subjects(certs []*x509.Certificate) string {
	var all []string
	for _, c := range certs {
		all = append(all, c.Subject.String())
	}
	return "[" + strings.Join(all, "; ") + "]"
}

func wide(text []byte, order binary.ByteOrder, mark bool) []byte {
	units := utf16.Encode([]rune(string(text)))
	if mark {
		units = append([]uint16{0xfeff}, units...)
	}
	data := make([]byte, 2*len(units))
	for i, u := range units {
		order.PutUint16(data[2*i:], u)
	}
	return data
}

// TestOpenSSL reads what OpenSSL writes, for every kind of key, by content
// alone: all files have the same name.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	for algorithm := range algorithms {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t, algorithm)
			pfx := func(args ...string) func(t *testing.T) []byte {
				return func(t *testing.T) []byte {
					t.Helper()
					out := filepath.Join(t.TempDir(), "out")
					p.run(t, append([]string{"pkcs12", "-export", "-inkey", "leaf.key", "-in", "leaf.pem", "-certfile", "cas.pem", "-out", out}, args...)...)
					data, err := os.ReadFile(out)
					if err != nil {
						t.Fatal(err)
					}
					return data
				}
			}
			key := func(args ...string) func(t *testing.T) []byte {
				return func(t *testing.T) []byte {
					t.Helper()
					return append(p.read(t, "chain.pem"), p.run(t, args...)...)
				}
			}
			file := func(data ...[]byte) func(t *testing.T) []byte {
				return func(*testing.T) []byte { return slices.Concat(data...) }
			}
			chain := p.read(t, "chain.pem")
			p7 := p.run(t, "crl2pkcs7", "-nocrl", "-certfile", "chain.pem", "-outform", "DER")
			p7pem := p.run(t, "crl2pkcs7", "-nocrl", "-certfile", "chain.pem")
			pass := bundle.Options{Password: "correct horse", HasPassword: true}
			none, empty := bundle.Options{}, bundle.Options{HasPassword: true}
			legacy := []string{"-provider", "default", "-provider", "legacy"}
			type row struct {
				name             string
				o                bundle.Options
				keys             int
				format, encoding string
				data             func(t *testing.T) []byte
			}
			tests := []row{
				{"PEM", none, 0, "PEM", "PEM", file(chain)},
				{"PEM with key", none, 1, "PEM", "PEM", file(chain, p.read(t, "leaf.key"))},
				{"PEM, request and text in it", none, 0, "PEM", "PEM", file(p.run(t, "x509", "-text", "-in", "leaf.pem"), p.read(t, "leaf.csr"), []byte("subject=whatever\n"), p.read(t, "cas.pem"))},
				{"PEM, each twice", none, 1, "PEM", "PEM", file(chain, p.read(t, "leaf.key"), chain, p.read(t, "leaf.key"))},
				{"PEM, trusted", none, 0, "PEM", "PEM", file(p.run(t, "x509", "-trustout", "-addtrust", "serverAuth", "-in", "leaf.pem"), p.read(t, "cas.pem"))},
				{"PEM, CRLF and a mark", none, 0, "PEM", "PEM", file([]byte("\xef\xbb\xbf"), bytes.ReplaceAll(chain, []byte("\n"), []byte("\r\n")))},
				{"PEM, old Macintosh", none, 0, "PEM", "PEM", file(bytes.ReplaceAll(chain, []byte("\n"), []byte("\r")))},
				{"PEM, indented", none, 0, "PEM", "PEM", file([]byte("tls: |\n"), bytes.ReplaceAll(append([]byte("  "), chain...), []byte("\n"), []byte(" \n  ")))},
				{"PEM, each in one line", none, 0, "PEM", "PEM", file(bytes.ReplaceAll(bytes.ReplaceAll(chain, []byte("\n"), []byte(" ")), []byte("- -"), []byte("-\n-")))},
				{"PEM, no line's end at its end", none, 0, "PEM", "PEM", file(bytes.TrimSpace(chain))},
				{"PEM, UTF-16 LE", none, 0, "PEM", "PEM, UTF-16", file(wide(chain, binary.LittleEndian, true))},
				{"PEM, UTF-16 BE", none, 0, "PEM", "PEM, UTF-16", file(wide(chain, binary.BigEndian, true))},
				{"PEM, UTF-16 without mark", none, 0, "PEM", "PEM, UTF-16", file(wide(chain, binary.LittleEndian, false))},
				{"DER, one after the other", none, 0, "DER", "binary", file(p.der(t, "leaf.pem"), p.der(t, "root.pem"), p.der(t, "ca.pem"))},
				{"DER with key", none, 1, "DER", "binary", file(p.der(t, "leaf.pem"), p.der(t, "root.pem"), p.der(t, "ca.pem"), p.der(t, "leaf.key"), []byte("\r\n"))},
				{"Base64", none, 0, "PKCS#7", "Base64", file([]byte(base64.StdEncoding.EncodeToString(p7)))},
				{"Base64, UTF-16", none, 0, "PKCS#7", "Base64, UTF-16", file(wide([]byte(base64.StdEncoding.EncodeToString(p7)), binary.LittleEndian, true))},
				{"PKCS#7", none, 0, "PKCS#7", "binary", file(p7)},
				{"PKCS#7 in PEM", none, 0, "PKCS#7", "PEM", file(p7pem)},
				{"PKCS#7 in PEM, as CMS", none, 0, "PKCS#7", "PEM", file(bytes.ReplaceAll(p7pem, []byte("PKCS7"), []byte("CMS")))},
				{"PKCS#7 in PEM, as certificate", none, 0, "PKCS#7", "PEM", file(bytes.ReplaceAll(p7pem, []byte("PKCS7"), []byte("CERTIFICATE")))},
				{"PKCS#7, BER", none, 0, "PKCS#7", "binary", file(toBER(t, p7))},
				{"PKCS#8, AES-256", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-v2", "aes-256-cbc", "-passout", "pass:correct horse")},
				{"PKCS#8, AES-192, SHA-512", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512", "-passout", "pass:correct horse")},
				{"PKCS#8, AES-128, SHA-1", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1", "-passout", "pass:correct horse")},
				{"PKCS#8, 3DES", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-v2", "des3", "-passout", "pass:correct horse")},
				{"PKCS#8, scrypt", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-scrypt", "-passout", "pass:correct horse")},
				{"PKCS#8, PKCS#12's 3DES", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-v1", "PBE-SHA1-3DES", "-passout", "pass:correct horse")},
				{"PKCS#8, 2-key 3DES", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-v1", "PBE-SHA1-2DES", "-passout", "pass:correct horse")},
				{"PKCS#8, DES with MD5", pass, 1, "PEM", "PEM", key(append([]string{"pkcs8", "-topk8", "-in", "leaf.key", "-v1", "PBE-MD5-DES", "-passout", "pass:correct horse"}, legacy...)...)},
				{"PKCS#8, DES with SHA-1", pass, 1, "PEM", "PEM", key(append([]string{"pkcs8", "-topk8", "-in", "leaf.key", "-v1", "PBE-SHA1-DES", "-passout", "pass:correct horse"}, legacy...)...)},
				{"PKCS#12", pass, 1, "PKCS#12", "binary", pfx("-passout", "pass:correct horse")},
				{"PKCS#12, -legacy", pass, 1, "PKCS#12", "binary", pfx("-legacy", "-passout", "pass:correct horse")},
				{"PKCS#12, RC2-40 and 3DES", pass, 1, "PKCS#12", "binary", pfx(append(legacy, "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-passout", "pass:correct horse")...)},
				{"PKCS#12, RC2-128", pass, 1, "PKCS#12", "binary", pfx(append(legacy, "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-RC2-128", "-macalg", "sha1", "-passout", "pass:correct horse")...)},
				{"PKCS#12, empty password", empty, 1, "PKCS#12", "binary", pfx("-passout", "pass:")},
				{"PKCS#12, empty password not given", none, 1, "PKCS#12", "binary", pfx("-passout", "pass:")},
				{"PKCS#12, -legacy, empty password", none, 1, "PKCS#12", "binary", pfx("-legacy", "-passout", "pass:")},
				{"PKCS#12, no encryption and no checksum", none, 1, "PKCS#12", "binary", pfx("-keypbe", "NONE", "-certpbe", "NONE", "-nomac", "-passout", "pass:")},
				{"PKCS#12, no encryption, needless password", pass, 1, "PKCS#12", "binary", pfx("-keypbe", "NONE", "-certpbe", "NONE", "-nomac", "-passout", "pass:")},
				{"PKCS#12, no checksum", pass, 1, "PKCS#12", "binary", pfx("-nomac", "-passout", "pass:correct horse")},
				{"PKCS#12, -legacy, no checksum", pass, 1, "PKCS#12", "binary", pfx("-legacy", "-nomac", "-passout", "pass:correct horse")},
				{"PKCS#12, only a checksum", pass, 1, "PKCS#12", "binary", pfx("-keypbe", "NONE", "-certpbe", "NONE", "-passout", "pass:correct horse")},
				{"PKCS#12, checksum with SHA-512", pass, 1, "PKCS#12", "binary", pfx("-macalg", "sha512", "-passout", "pass:correct horse")},
				{"PKCS#12, checksum with SHA-384", pass, 1, "PKCS#12", "binary", pfx("-macalg", "sha384", "-passout", "pass:correct horse")},
				{"PKCS#12, checksum with SHA-224", pass, 1, "PKCS#12", "binary", pfx("-macalg", "sha224", "-passout", "pass:correct horse")},
				{"PKCS#12, one round", pass, 1, "PKCS#12", "binary", pfx("-noiter", "-nomaciter", "-passout", "pass:correct horse")},
				{"PKCS#12, a long password", bundle.Options{Password: strings.Repeat("long ", 30)}, 1, "PKCS#12", "binary", pfx("-legacy", "-passout", "pass:"+strings.Repeat("long ", 30))},
				{"PKCS#12, umlauts and beyond", bundle.Options{Password: "Kühlschrank€𝄞"}, 1, "PKCS#12", "binary", pfx("-passout", "pass:Kühlschrank€𝄞")},
				{"PKCS#12, -legacy, umlauts and beyond", bundle.Options{Password: "Kühlschrank€𝄞"}, 1, "PKCS#12", "binary", pfx("-legacy", "-passout", "pass:Kühlschrank€𝄞")},
				{"PKCS#12, BER", pass, 1, "PKCS#12", "binary", func(t *testing.T) []byte { return toBER(t, pfx("-passout", "pass:correct horse")(t)) }},
				{"PKCS#12 in Base64", pass, 1, "PKCS#12", "Base64", func(t *testing.T) []byte {
					return []byte(base64.StdEncoding.EncodeToString(pfx("-passout", "pass:correct horse")(t)))
				}},
			}
			if algorithm == "ECDSA P-256" { // once: they take their time
				tests = append(tests,
					row{"PKCS#8, many rounds", pass, 1, "PEM", "PEM", key("pkcs8", "-topk8", "-in", "leaf.key", "-iter", "600000", "-passout", "pass:correct horse")},
					row{"PKCS#12, many rounds", pass, 1, "PKCS#12", "binary", pfx("-iter", "200000", "-passout", "pass:correct horse")},
				)
			}
			if strings.HasPrefix(algorithm, "RSA") || strings.HasPrefix(algorithm, "ECDSA") {
				for _, cipher := range []string{"-aes256", "-aes128", "-des3"} {
					tests = append(tests, row{"traditional " + cipher, pass, 1, "PEM", "PEM",
						key("pkey", "-in", "leaf.key", "-traditional", cipher, "-passout", "pass:correct horse")})
				}
				signed := p.run(t, "cms", "-sign", "-binary", "-in", "leaf.csr", "-signer", "leaf.pem", "-inkey", "leaf.key", "-certfile", "cas.pem", "-nodetach", "-stream", "-outform", "DER")
				if !bytes.HasPrefix(signed, []byte("\x30\x80")) {
					t.Error("OpenSSL did not write BER")
				}
				tests = append(tests, row{"PKCS#7, signed, as a stream", none, 0, "PKCS#7", "binary", file(signed)})
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					t.Parallel()
					name := filepath.Join(t.TempDir(), "certnew.cer")
					if err := os.WriteFile(name, tt.data(t), 0o600); err != nil {
						t.Fatal(err)
					}
					b, err := bundle.ReadFile(name, tt.o)
					if err != nil {
						t.Fatal(err)
					}
					if b.Format != tt.format || b.Encoding != tt.encoding {
						t.Errorf("%s in %s; want %s in %s", b.Format, b.Encoding, tt.format, tt.encoding)
					}
					p.whole(t, b, tt.keys)
				})
			}
		})
	}
}
