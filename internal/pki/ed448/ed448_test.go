package ed448_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/pki/ed448"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openssl(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readPEM(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(data)
	if b == nil {
		t.Fatalf("%s is not PEM", name)
	}
	return b.Bytes
}

// pkcs8 is the beginning of RFC 8410's PrivateKeyInfo for a seed of 57 bytes.
const pkcs8 = "3047020100300506032b6571043b0439"

// TestVectors: those of RFC 8032, section 7.4, without context.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ seed, public, message, sig string }{
		{"6c82a562cb808d10d632be89c8513ebf6c929f34ddfa8c9f63c9960ef6e348a3528c8a3fcc2f044e39a3fc5b94492f8f032e7549a20098f95b",
			"5fd7449b59b461fd2ce787ec616ad46a1da1342485a70e1f8a0ea75d80e96778edf124769b46c7061bd6783df1e50f6cd1fa1abeafe8256180", "",
			"533a37f6bbe457251f023c0d88f976ae2dfb504a843e34d2074fd823d41a591f2b233f034f628281f2fd7a22ddd47d7828c59bd0a21bfd3980ff0d2028d4b18a9df63e006c5d1c2d345b925d8dc00b4104852db99ac5c7cdda8530a113a0f4dbb61149f05a7363268c71d95808ff2e652600"},
		{"c4eab05d357007c632f3dbb48489924d552b08fe0c353a0d4a1f00acda2c463afbea67c5e8d2877c5e3bc397a659949ef8021e954e0a12274e",
			"43ba28f430cdff456ae531545f7ecd0ac834a55d9358c0372bfa0c6c6798c0866aea01eb00742802b8438ea4cb82169c235160627b4c3a9480", "03",
			"26b8f91727bd62897af15e41eb43c377efb9c610d48f2335cb0bd0087810f4352541b143c4b981b7e18f62de8ccdf633fc1bf037ab7cd779805e0dbcc0aae1cbcee1afb2e027df36bc04dcecbf154336c19f0af7e0a6472905e799f1953d2a0ff3348ab21aa4adafd1d234441cf807c03a00"},
		{"cd23d24f714274e744343237b93290f511f6425f98e64459ff203e8985083ffdf60500553abc0e05cd02184bdb89c4ccd67e187951267eb328",
			"dcea9e78f35a1bf3499a831b10b86c90aac01cd84b67a0109b55a36e9328b1e365fce161d71ce7131a543ea4cb5f7e9f1d8b00696447001400", "0c3e544074ec63b0265e0c",
			"1f0a8888ce25e8d458a21130879b840a9089d999aaba039eaf3e3afa090a09d389dba82c4ff2ae8ac5cdfb7c55e94d5d961a29fe0109941e00b8dbdeea6d3b051068df7254c0cdc129cbe62db2dc957dbb47b51fd3f213fb8698f064774250a5028961c9bf8ffd973fe5d5c206492b140e00"},
		{"d65df341ad13e008567688baedda8e9dcdc17dc024974ea5b4227b6530e339bff21f99e68ca6968f3cca6dfe0fb9f4fab4fa135d5542ea3f01",
			"df9705f58edbab802c7f8363cfe5560ab1c6132c20a9f1dd163483a26f8ac53a39d6808bf4a1dfbd261b099bb03b3fb50906cb28bd8a081f00",
			"bd0f6a3747cd561bdddf4640a332461a4a30a12a434cd0bf40d766d9c6d458e5512204a30c17d1f50b5079631f64eb3112182da3005835461113718d1a5ef944",
			"554bc2480860b49eab8532d2a533b7d578ef473eeb58c98bb2d0e1ce488a98b18dfde9b9b90775e67f47d4a1c3482058efc9f40d2ca033a0801b63d45b3b722ef552bad3b4ccb667da350192b61c508cf7b6b5adadc2c8d9a446ef003fb05cba5f30e88e36ec2703b349ca229c2670833900"},
	} {
		key, err := ed448.ParsePKCS8(unhex(t, pkcs8+v.seed))
		if err != nil {
			t.Fatal(err)
		}
		public := key.Public().(ed448.PublicKey)
		if got := hex.EncodeToString(public); got != v.public {
			t.Errorf("public key %s; want %s", got, v.public)
		}
		message := unhex(t, v.message)
		sig, err := key.Sign(rand.Reader, message, crypto.Hash(0))
		if err != nil || hex.EncodeToString(sig) != v.sig {
			t.Errorf("signature %x, %v; want %s", sig, err, v.sig)
		}
		if !ed448.Verify(public, message, sig) {
			t.Error("its own signature does not verify")
		}
		if ed448.Verify(public, append(message, 0), sig) {
			t.Error("the signature of another message verifies")
		}
		sig[3] ^= 1
		if ed448.Verify(public, message, sig) || ed448.Verify(public, message, sig[:10]) || ed448.Verify(public[:10], message, sig) {
			t.Error("a broken signature verifies")
		}
	}
}

// TestOpenSSLReadsOurs: key, public key and signature.
func TestOpenSSLReadsOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ed448.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ed448.MarshalPKCS8(key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := ed448.MarshalSPKI(key.Public().(ed448.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a message")
	sig, err := key.Sign(rand.Reader, message, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key.der", der)
	write(t, dir, "public.der", spki)
	write(t, dir, "message", message)
	write(t, dir, "sig", sig)
	openssl(t, dir, "pkey", "-inform", "DER", "-in", "key.der", "-check", "-noout")
	openssl(t, dir, "pkey", "-inform", "DER", "-in", "key.der", "-pubout", "-outform", "DER", "-out", "public2.der")
	if got, err := os.ReadFile(filepath.Join(dir, "public2.der")); err != nil || !bytes.Equal(got, spki) {
		t.Errorf("OpenSSL derives the public key %x, %v; want %x", got, err, spki)
	}
	openssl(t, dir, "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "public.der", "-rawin", "-in", "message", "-sigfile", "sig")
}

// TestWeReadOpenSSL: key, signature, request, certificate and a certificate
// that another kind of key signed.
func TestWeReadOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openssl(t, dir, "genpkey", "-algorithm", "ed448", "-out", "key.pem")
	openssl(t, dir, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ca.pem")
	openssl(t, dir, "req", "-x509", "-key", "key.pem", "-subj", "/CN=self", "-out", "self.pem")
	openssl(t, dir, "req", "-new", "-key", "key.pem", "-subj", "/CN=leaf", "-out", "req.pem")
	openssl(t, dir, "req", "-x509", "-key", "ca.pem", "-subj", "/CN=ca", "-out", "ca.crt")
	openssl(t, dir, "x509", "-req", "-in", "req.pem", "-CA", "ca.crt", "-CAkey", "ca.pem", "-out", "leaf.pem")
	write(t, dir, "message", []byte("a message"))
	openssl(t, dir, "pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "message", "-out", "sig")

	der := readPEM(t, dir, "key.pem")
	key, err := ed448.ParsePKCS8(der)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ed448.MarshalPKCS8(key); err != nil || !bytes.Equal(again, der) {
		t.Errorf("written again: %x, %v; want %x", again, err, der)
	}
	public := key.Public().(ed448.PublicKey)
	sig, err := os.ReadFile(filepath.Join(dir, "sig"))
	if err != nil {
		t.Fatal(err)
	}
	if !ed448.Verify(public, []byte("a message"), sig) {
		t.Error("OpenSSL's signature does not verify")
	}
	self, ca, leaf := certificate(t, dir, "self.pem"), certificate(t, dir, "ca.crt"), certificate(t, dir, "leaf.pem")
	for _, c := range []*x509.Certificate{self, leaf} {
		if got, ok := ed448.ParseSPKI(c.RawSubjectPublicKeyInfo); !ok || !got.Equal(public) {
			t.Errorf("the key of %s is %x; want %x", c.Subject, got, public)
		}
	}
	if _, ok := ed448.ParseSPKI(ca.RawSubjectPublicKeyInfo); ok {
		t.Error("an EC key passes for Ed448")
	}
	req := readPEM(t, dir, "req.pem")
	if !ed448.SignedWith(req) || !ed448.SignedWith(self.Raw) || ed448.SignedWith(leaf.Raw) {
		t.Error("SignedWith is wrong")
	}
	if err := ed448.CheckSignature(public, req); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		child, parent *x509.Certificate
		want          string
	}{
		{self, self, ""},
		{leaf, ca, ""},
		{ca, ca, ""},
		{leaf, self, "another kind (1.2.840.10045.4.3.2), not Ed448"},
		{self, ca, "algorithm unimplemented"},
	} {
		err := ed448.CheckSignatureFrom(tt.child, tt.parent)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s by %s: %v; want %q", tt.child.Subject, tt.parent.Subject, err, tt.want)
		}
	}
	for i := range req {
		spoilt := slices.Clone(req)
		spoilt[i] ^= 0x10
		if ed448.CheckSignature(public, spoilt) == nil {
			t.Errorf("a request with byte %d changed verifies", i)
		}
	}
	other, err := ed448.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := ed448.CheckSignature(other.Public().(ed448.PublicKey), req); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("with another key: %v", err)
	}
	if err := ed448.CheckSignature(public, req[:len(req)-1]); err == nil || !strings.Contains(err.Error(), "not a signed structure") {
		t.Errorf("cut off: %v", err)
	}
}

func certificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(readPEM(t, dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBrokenKeys: what is no Ed448 key, and what is a broken one.
func TestBrokenKeys(t *testing.T) {
	t.Parallel()
	seed := strings.Repeat("11", 57)
	key, err := ed448.ParsePKCS8(unhex(t, pkcs8+seed))
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	public := hex.EncodeToString(key.Public().(ed448.PublicKey))
	v2 := "308183020101300506032b6571043b0439" + seed + "813a00"
	for _, tt := range []struct{ name, der, want string }{
		{"good", pkcs8 + seed, ""},
		{"with its public key (RFC 5958)", v2 + public, ""},
		{"with another public key", v2 + strings.Repeat("22", 57), "the public key of another"},
		{"another kind", hex.EncodeToString(other), ed448.ErrOther.Error()},
		{"no DER", "ff", ed448.ErrOther.Error()},
		{"something after it", pkcs8 + seed + "00", "something after it"},
		{"version 2", "3047020102300506032b6571043b0439" + seed, "version 2"},
		{"parameters", "3049020100300706032b65710500043b0439" + seed, "with parameters"},
		{"no octet string inside", "3047020100300506032b6571043b0239" + seed, "no octet string"},
		{"too short", "3046020100300506032b6571043a0438" + seed[2:], "56 bytes; expected 57"},
	} {
		key, err := ed448.ParsePKCS8(unhex(t, tt.der))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || key != nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		case tt.want != "" && errors.Is(err, ed448.ErrOther) != (tt.want == ed448.ErrOther.Error()):
			t.Errorf("%s: %v and ErrOther do not go together", tt.name, err)
		case err != nil && strings.Contains(err.Error(), seed[:10]):
			t.Errorf("%s: the error shows the key: %v", tt.name, err)
		}
	}
	for _, spki := range []string{
		"3043300506032b6571033a00" + public + "00",
		"3045300706032b65710500033a00" + public,
		"3043300506032b6571033a01" + public,
		"3042300506032b6571033900" + public[2:],
		"3043300506032b6570033a00" + public,
	} {
		if _, ok := ed448.ParseSPKI(unhex(t, spki)); ok {
			t.Errorf("%s is read as a public key", spki)
		}
	}
}

func FuzzParsePKCS8(f *testing.F) {
	f.Add(unhex(f, pkcs8+strings.Repeat("11", 57)))
	f.Add(unhex(f, "3049020100300706032b65710500043b0439"+strings.Repeat("11", 57)))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := ed448.ParsePKCS8(der)
		if (key == nil) != (err != nil) {
			t.Fatalf("%v with %v", key == nil, err)
		}
		if err != nil {
			return
		}
		again, err := ed448.MarshalPKCS8(key)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := ed448.ParsePKCS8(again); err != nil || !same.Equal(key) {
			t.Fatalf("written and read again: %v", err)
		}
		spki, err := ed448.MarshalSPKI(key.Public().(ed448.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		if public, ok := ed448.ParseSPKI(spki); !ok || !public.Equal(key.Public()) {
			t.Fatal("the public key does not come back")
		}
	})
}
