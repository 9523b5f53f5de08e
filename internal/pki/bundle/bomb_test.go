package bundle

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"larder/internal/pki/problem"
)

// What the bombs are made of.

func must(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}
}

func raw(der []byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }

func oid(t testing.TB, text string) asn1.ObjectIdentifier {
	t.Helper()
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n := 0
		if _, err := fmt.Sscan(part, &n); err != nil {
			t.Fatal(err)
		}
		id = append(id, n)
	}
	return id
}

// n is a count, which may be larger than any integer of Go's.
func n(text string) *big.Int {
	i, ok := new(big.Int).SetString(text, 0)
	if !ok {
		panic(text)
	}
	return i
}

func pbe(t testing.TB, rounds *big.Int) pkix.AlgorithmIdentifier { // PKCS#12's 3DES
	return pkix.AlgorithmIdentifier{Algorithm: oid(t, oidPKCS12+"3"), Parameters: raw(must(t, pbeParams{[]byte("saltsalt"), rounds}))}
}

func kdf2(t testing.TB, rounds *big.Int, length int, hmac string) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: oid(t, oidPKCS5+"12"), Parameters: raw(must(t, pbkdf2Params{
		Salt: raw(must(t, []byte("saltsalt"))), Rounds: rounds, Length: length, PRF: pkix.AlgorithmIdentifier{Algorithm: oid(t, oidHMAC+hmac)},
	}))}
}

func scryptKDF(t testing.TB, cost, r, p string) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: oid(t, "1.3.6.1.4.1.11591.4.11"), Parameters: raw(must(t, scryptParams{Salt: []byte("saltsalt"), N: n(cost), R: n(r), P: n(p)}))}
}

func pbes(t testing.TB, kdf pkix.AlgorithmIdentifier) pkix.AlgorithmIdentifier { // AES-256
	return pkix.AlgorithmIdentifier{Algorithm: oid(t, oidPKCS5+"13"), Parameters: raw(must(t, pbes2Params{
		KDF: kdf, Cipher: pkix.AlgorithmIdentifier{Algorithm: oid(t, oidAES+"42"), Parameters: raw(must(t, make([]byte, 16)))},
	}))}
}

func shrouded(t testing.TB, algorithm pkix.AlgorithmIdentifier, data []byte) safeBag {
	return safeBag{ID: oidShroudedKeyBag, Value: explicit(must(t, encryptedPrivateKeyInfo{algorithm, data}))}
}

func plainSafe(t testing.TB, bags ...safeBag) contentInfoDER {
	return contentInfoDER{oidData, explicit(must(t, must(t, marshalBags(t, bags))))}
}

// marshalBags writes bags without attributes.
func marshalBags(t testing.TB, bags []safeBag) []asn1.RawValue {
	t.Helper()
	all := []asn1.RawValue{}
	for _, b := range bags {
		all = append(all, raw(must(t, struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}{b.ID, b.Value})))
	}
	return all
}

func encryptedSafe(t testing.TB, algorithm pkix.AlgorithmIdentifier, data []byte) contentInfoDER {
	t.Helper()
	type content struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Data      asn1.RawValue
	}
	return contentInfoDER{oidEncryptedData, explicit(must(t, struct {
		Version int
		Content content
	}{0, content{oidData, algorithm, asn1.RawValue{Class: asn1.ClassContextSpecific, Bytes: data}}}))}
}

func pfxOf(t testing.TB, mac *macData, safes ...contentInfoDER) []byte {
	t.Helper()
	outer := contentInfoDER{oidData, explicit(must(t, must(t, safes)))}
	if mac == nil {
		return must(t, struct {
			Version  int
			AuthSafe contentInfoDER
		}{3, outer})
	}
	return must(t, pfxDER{3, outer, *mac})
}

func mac(t testing.TB, algorithm string, rounds *big.Int) *macData {
	return &macData{digestInfo{pkix.AlgorithmIdentifier{Algorithm: oid(t, algorithm)}, make([]byte, 32)}, []byte("saltsalt"), rounds}
}

func pbmac(t testing.TB, rounds *big.Int, length int) *macData {
	m := mac(t, oidPKCS5+"14", big.NewInt(1))
	m.MAC.Algorithm.Parameters = raw(must(t, pbes2Params{KDF: kdf2(t, rounds, length, "9"), Cipher: pkix.AlgorithmIdentifier{Algorithm: oid(t, oidHMAC+"9")}}))
	return m
}

// sealed encrypts data with AES-256 and the given password.
func sealed(t testing.TB, secret string, rounds int, data []byte) []byte {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, secret, []byte("saltsalt"), rounds, 32)
	if err != nil {
		t.Fatal(err)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	pad := 16 - len(data)%16
	out := append(bytes.Clone(data), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(b, make([]byte, 16)).CryptBlocks(out, out)
	return out
}

// inTime fails the test if f takes longer than anybody would wait.
func inTime(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // of a machine that does other things too
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("it takes too long")
	}
}

// TestBombs: what would keep the machine busy is refused before the work is
// done, wherever it is hidden.
func TestBombs(t *testing.T) {
	t.Parallel()
	block := make([]byte, 16)
	hidden := encryptedSafe(t, pbes(t, kdf2(t, big.NewInt(1000), 0, "9")),
		sealed(t, "pw", 1000, must(t, marshalBags(t, []safeBag{shrouded(t, pbes(t, kdf2(t, n("2000000000"), 0, "9")), block)}))))
	key := func(algorithm pkix.AlgorithmIdentifier) []byte {
		return must(t, encryptedPrivateKeyInfo{algorithm, block})
	}
	inBags := must(t, marshalBags(t, nil))
	for range 20 {
		inBags = must(t, marshalBags(t, []safeBag{{ID: oidSafeContentsBag, Value: explicit(inBags)}}))
	}
	const rounds = "; expected at most 10000000 rounds of key derivation in a file; next: export it again with usual settings (some thousand rounds); so many only keep this machine busy"
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"checksum", pfxOf(t, mac(t, "1.3.14.3.2.26", n("2000000000")), plainSafe(t)),
			"found a PKCS#12 file (it asks for 2000000000 rounds of key derivation)" + rounds},
		{"checksum, beyond all integers", pfxOf(t, mac(t, oidSHA2+"1", n("0x1000000000000000000000000000000")), plainSafe(t)),
			"found a PKCS#12 file (it asks for 2^120 rounds of key derivation)" + rounds},
		{"checksum, SHA-512", pfxOf(t, mac(t, oidSHA2+"3", n("4000000")), plainSafe(t)),
			"found a PKCS#12 file (it asks for 4000000 rounds of key derivation)" + rounds},
		{"checksum, PBMAC1", pfxOf(t, pbmac(t, n("2000000000"), 32), plainSafe(t)),
			"found a PKCS#12 file (it asks for 2000000000 rounds of key derivation)" + rounds},
		{"checksum, PBMAC1 with a key of a gigabyte", pfxOf(t, pbmac(t, n("1"), 1<<30), plainSafe(t)),
			"found a PKCS#12 file (a checksum with a key of 1073741824 bytes); expected encryption as RFC 8018 and RFC 7292 have it; next: copy the whole file again from where it was issued"},
		{"checksum, no rounds", pfxOf(t, mac(t, oidSHA2+"1", n("0")), plainSafe(t)),
			"found a PKCS#12 file (0 rounds of key derivation); expected encryption as RFC 8018 and RFC 7292 have it; next: copy the whole file again from where it was issued"},
		{"checksum of an unknown kind", pfxOf(t, mac(t, "1.2.3.4", n("1")), plainSafe(t)),
			"found a PKCS#12 file (the checksum 1.2.3.4 is not known here); expected encryption as OpenSSL and Windows write it: AES or 3DES; next: export it again, with AES-256"},
		{"certificates", pfxOf(t, nil, encryptedSafe(t, pbe(t, n("2000000000")), block)),
			"found a PKCS#12 file (it asks for 2000000000 rounds of key derivation)" + rounds},
		{"certificates, fewer than no rounds", pfxOf(t, nil, encryptedSafe(t, pbe(t, n("-1")), block)),
			"found a PKCS#12 file (-1 rounds of key derivation); expected encryption as RFC 8018 and RFC 7292 have it; next: copy the whole file again from where it was issued"},
		{"key", pfxOf(t, nil, plainSafe(t, shrouded(t, pbes(t, kdf2(t, n("2000000000"), 0, "9")), block))),
			"found a PKCS#12 file (it asks for 2000000000 rounds of key derivation)" + rounds},
		{"inside an encrypted part", pfxOf(t, nil, hidden),
			"found a PKCS#12 file (it asks for 2000000000 rounds of key derivation)" + rounds},
		{"key in PEM", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: key(pbes(t, kdf2(t, n("2000000000"), 0, "11")))}),
			"found an encrypted private key in PEM block 1 (ENCRYPTED PRIVATE KEY, line 1) (it asks for 2000000000 rounds of key derivation)" + rounds},
		{"scrypt, memory", key(pbes(t, scryptKDF(t, "0x40000000", "8", "1"))),
			"found an encrypted private key (it asks for scrypt with N=1073741824, r=8, p=1, more than 64 MiB of memory)" + rounds},
		{"scrypt, memory by its blocks", key(pbes(t, scryptKDF(t, "2", "8", "0x10000000"))),
			"found an encrypted private key (it asks for scrypt with N=2, r=8, p=268435456, more than 64 MiB of memory)" + rounds},
		{"scrypt, beyond all integers", key(pbes(t, scryptKDF(t, "0x1000000000000000000000000000000", "0x1000000000000000000000000000000", "1"))),
			"found an encrypted private key (it asks for scrypt with N=2^120, r=2^120, p=1, more than 64 MiB of memory)" + rounds},
		{"scrypt, time", key(pbes(t, scryptKDF(t, "65536", "8", "1000"))),
			"found an encrypted private key (it asks for scrypt with N=65536, r=8, p=1000)" + rounds},
		{"scrypt, no power of two", key(pbes(t, scryptKDF(t, "1000", "8", "1"))),
			"found an encrypted private key (scrypt: N must be > 1 and a power of 2); expected encryption as RFC 8018 and RFC 7292 have it; next: copy the whole file again from where it was issued"},
		{"scrypt, nothing", key(pbes(t, scryptKDF(t, "0", "8", "1"))),
			"found an encrypted private key (a parameter of scrypt below 1); expected encryption as RFC 8018 and RFC 7292 have it; next: copy the whole file again from where it was issued"},
		{"nested without end", bytes.Repeat([]byte("\x30\x80"), mostBytes/2),
			"found binary data that is no certificate (structures nested more than 64 deep); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"nested octet strings", append([]byte("\x30\x80"), bytes.Repeat([]byte("\x24\x80"), mostBytes/2-1)...),
			"found binary data that is no certificate (structures nested more than 64 deep); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"nested and whole", nested(200_000),
			"found binary data that is no certificate (structures nested more than 64 deep); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"bags in bags", pfxOf(t, nil, contentInfoDER{oidData, explicit(must(t, inBags))}),
			"found a PKCS#12 file with bags in bags in bags; expected PKCS#12 as RFC 7292 has it; next: export it again, with a password"},
		{"signed with a certificate", must(t, struct {
			Version  int
			AuthSafe contentInfoDER
		}{3, contentInfoDER{oidSignedData, explicit(must(t, 1))}}),
			"found a PKCS#12 file signed with a certificate instead of a password; expected PKCS#12 as RFC 7292 has it, with a password; next: export it again, with a password"},
		{"protected for accounts", pfxOf(t, nil, contentInfoDER{oidEnvelopedData, explicit(must(t, 1))}),
			"found a PKCS#12 file protected for accounts or certificates instead of by a password; expected PKCS#12 as RFC 7292 has it, with a password; next: export it again and choose a password, not a group or user name"},
		{"half a block", pfxOf(t, nil, encryptedSafe(t, pbe(t, n("1")), make([]byte, 13))),
			"found a PKCS#12 file (13 encrypted bytes, which are no whole blocks); expected encryption as RFC 8018 and RFC 7292 have it; next: copy the whole file again from where it was issued"},
		{"very many structures", bytes.Repeat([]byte("\x30\x04\x30\x00\x03\x00"), mostBytes/6),
			"found a public key, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"very many blocks", bytes.Repeat([]byte("-----BEGIN A-----\nMAA=\n-----END A-----\n"), mostBytes/39),
			"found PEM of another kind (A), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"an RSA key of half a million bits", must(t, x509Key(t, 500_000)),
			"found a private key of 281298 bytes; expected at most 16384 bytes, enough for RSA with 16384 bits; next: use a smaller key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inTime(t, func() {
				_, err := Parse("bomb", tt.data, Options{Password: "pw", HasPassword: true})
				if err == nil {
					t.Error("no error")
				} else if got := strings.TrimPrefix(err.Error(), "certificate (bomb): "); got != tt.want {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
			})
		})
	}
}

// nested is a structure in a structure, so often, with right lengths.
func nested(levels int) []byte {
	reversed := make([]byte, 0, 6*levels)
	for range levels {
		h := appendHeader(nil, []byte{0x30}, len(reversed))
		for i := len(h) - 1; i >= 0; i-- {
			reversed = append(reversed, h[i])
		}
	}
	for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	return reversed
}

// x509Key looks like a PKCS#1 key with a modulus of so many bits.
func x509Key(t *testing.T, size uint) any {
	t.Helper()
	big1 := big.NewInt(1)
	number := func(bits uint) *big.Int { return new(big.Int).Sub(new(big.Int).Lsh(big1, bits), big1) }
	return struct {
		Version                      int
		N, E, D, P, Q, DP, DQ, Small *big.Int
	}{0, number(size), big.NewInt(65537), number(size), number(size / 2), number(size / 2), number(size / 2), number(size / 2), number(size / 2)}
}

// TestTogether: each part of the file may be cheap, all of them are not.
func TestTogether(t *testing.T) {
	t.Parallel()
	plain := encryptedSafe(t, pbes(t, kdf2(t, big.NewInt(30), 0, "9")), sealed(t, "pw", 30, must(t, []asn1.RawValue{})))
	var safes []contentInfoDER
	for range 1000 {
		safes = append(safes, plain)
	}
	r := newReader("bomb", Options{Password: "pw"})
	r.work = 20_000
	_, err := r.parse(pfxOf(t, nil, safes...))
	if err == nil || !strings.Contains(err.Error(), "(its parts together ask for more than 10000000 rounds of key derivation)") {
		t.Error(err)
	}
	if r.work >= 30 || r.work < 0 {
		t.Errorf("%d rounds are left; want less than what the next part costs", r.work)
	}
}

// TestTwoPasswords: the checksum is made with one password and a part
// encrypted with another, as OpenSSL's -twopass does.
func TestTwoPasswords(t *testing.T) {
	t.Parallel()
	part := encryptedSafe(t, pbes(t, kdf2(t, big.NewInt(30), 0, "9")), sealed(t, "other", 30, must(t, []asn1.RawValue{})))
	m := mac(t, oidSHA2+"1", big.NewInt(10))
	content := must(t, []contentInfoDER{part})
	r := newReader("two", Options{Password: "pw"})
	m.MAC.Digest = make([]byte, 32)
	sum := derive(sha256.New, forMAC, r.passwords()[0].wide, m.Salt, 10, 32)
	m.MAC.Digest = hmacSHA256(sum, content)
	_, err := r.parse(pfxOf(t, m, part))
	want := "certificate (two): found a PKCS#12 file (its checksum is right for the password, a part of it is encrypted with another); expected one password for all of it; next: export it again, with a password"
	if err == nil || err.Error() != want || !errors.Is(err, ErrPassword) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestPasswordErrors: errors.Is finds ErrPassword, and a Problem is a
// Problem.
func TestPasswordErrors(t *testing.T) {
	t.Parallel()
	data := pfxOf(t, nil, encryptedSafe(t, pbes(t, kdf2(t, big.NewInt(30), 0, "9")), sealed(t, "pw", 30, must(t, []asn1.RawValue{}))))
	for _, o := range []Options{{}, {HasPassword: true}, {Password: "nope"}} {
		_, err := Parse("file", data, o)
		var p *problem.Problem
		if !errors.Is(err, ErrPassword) || !errors.As(err, &p) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Parse("file", data, Options{Password: "pw"}); err == nil || errors.Is(err, ErrPassword) {
		t.Errorf("with the right password: %v", err)
	}
	if _, err := Parse("file", []byte("text"), Options{}); errors.Is(err, ErrPassword) {
		t.Error(err)
	}
}

// TestHugeCertificateKey: verifying with such a key would take minutes.
func TestHugeCertificateKey(t *testing.T) {
	t.Parallel()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 100_000), big.NewInt(1))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge\n-----BEGIN CERTIFICATE-----"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &rsa.PublicKey{N: modulus, E: 65537}, signer)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("file", der, Options{})
	want := "certificate (file): found a certificate (number 1 of the file, CN=huge?-----BEGIN CERTIFICATE-----) with a key of 100001 bits; expected at most 16384 bits; next: have it issued for a key that clients accept"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestEverybodySignedEverybody: ten authorities with ten certificates each
// have more chains than can be tried.
func TestEverybodySignedEverybody(t *testing.T) {
	t.Parallel()
	var signers []*ecdsa.PrivateKey
	for range 10 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, k)
	}
	b := &Bundle{}
	sign := func(subject, issuer int, public crypto.PublicKey) {
		name := func(i int) pkix.Name { return pkix.Name{CommonName: fmt.Sprint("authority ", i)} }
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(100*subject + issuer + 1)), Subject: name(subject), IsCA: subject >= 0, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, &x509.Certificate{Subject: name(issuer)}, public, signers[issuer])
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		b.Certs = append(b.Certs, c)
	}
	for i := range signers {
		for j := range signers {
			if i != j {
				sign(i, j, signers[i].Public())
			}
		}
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.Certs = b.Certs[:mostCerts-10]
	signers[0], leaf = leaf, signers[0] // the leaf has authority 0's key
	inTime(t, func() {
		chain, unused, err := b.Chain(leaf.Public())
		if err != nil || len(chain) != mostLinks || len(chain)+len(unused) != len(b.Certs) {
			t.Errorf("a chain of %d, %d unused, %v; want a chain of %d", len(chain), len(unused), err, mostLinks)
		}
	})
}
