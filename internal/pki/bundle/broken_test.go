package bundle_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/pki/bundle"
	"larder/internal/pki/problem"
)

// broken is one row: a file that is refused, and with which words.
type broken struct {
	name string
	make func(t *testing.T, path string) // makes the file
	o    bundle.Options
	want string // after the field; DIR stands for the file's directory
}

// TestBroken: each thing that can be wrong with a file has its own message,
// which says what was found and what to do.
func TestBroken(t *testing.T) {
	t.Parallel()
	p := newPKI(t, "Ed25519")
	leaf, key, csr, chain := p.read(t, "leaf.pem"), p.read(t, "leaf.key"), p.read(t, "leaf.csr"), p.read(t, "chain.pem")
	der := p.der(t, "leaf.pem")
	p.run(t, "pkcs12", "-export", "-inkey", "leaf.key", "-in", "leaf.pem", "-certfile", "cas.pem", "-passout", "pass:correct-horse", "-out", "leaf.pfx")
	p.run(t, "pkcs12", "-export", "-inkey", "leaf.key", "-in", "leaf.pem", "-passout", "pass:correct-horse", "-nomac", "-out", "nomac.pfx")
	p.run(t, "pkcs12", "-export", "-inkey", "leaf.key", "-nocerts", "-passout", "pass:correct-horse", "-out", "key.pfx")
	pfx := p.read(t, "leaf.pfx")
	p.write(t, "index.txt", nil)
	p.write(t, "ca.cnf", []byte("[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ndefault_md=default\n"))
	crl := p.run(t, "ca", "-config", "ca.cnf", "-gencrl", "-crldays", "3", "-keyfile", "ca.key", "-cert", "ca.pem")
	p.write(t, "ca.crl", crl)
	encrypted := p.run(t, "pkcs8", "-topk8", "-in", "leaf.key", "-passout", "pass:correct-horse")
	p.run(t, append([]string{"genpkey", "-out", "ec.key"}, algorithms["ECDSA P-256"]...)...)
	traditional := p.run(t, "pkey", "-in", "ec.key", "-traditional", "-aes128", "-passout", "pass:correct-horse")

	given := func(data ...[]byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, slices.Concat(data...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := func(s string) func(*testing.T, string) { return given([]byte(s)) }
	none, right, wrong := bundle.Options{}, bundle.Options{Password: "correct-horse", HasPassword: true}, bundle.Options{Password: "Tr0ub4dor", HasPassword: true}
	empty, wantKey := bundle.Options{HasPassword: true}, bundle.Options{Key: true}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }

	rows := []broken{
		// What is no file.
		{"not there", func(t *testing.T, path string) {
			given(leaf)(t, filepath.Join(filepath.Dir(path), "other.p7b"))
			given(leaf)(t, filepath.Join(filepath.Dir(path), "filed.crt"))
			given(leaf)(t, filepath.Join(filepath.Dir(path), "notes.txt"))
		}, none,
			"found nothing (file does not exist); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: check the path; there are filed.crt, other.p7b"},
		{"not there, nor anything like it", func(*testing.T, string) {}, none,
			"found nothing (file does not exist); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: check the path"},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			given(leaf)(t, filepath.Join(path, "node.pem"))
		}, none,
			"found a directory; expected a file; next: name a file in it, such as node.pem"},
		{"10 MB", given(bytes.Repeat([]byte("10 MB of text."), 10<<20/14)), none,
			"found a file of 10485748 bytes; expected at most 1048576 bytes; certificates and keys have a few thousand; next: give the certificate itself, not an archive or an image that has it"},
		{"empty", given(), none,
			"found an empty file; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: if it is not being written right now, copy the whole file again from where it was issued"},
		{"blanks", text(" \r\n\r\n"), none,
			"found a file with nothing but blanks or zeros; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"zeros", given(make([]byte, 4096)), none,
			"found a file with nothing but blanks or zeros; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},

		// PEM.
		{"PEM without its end", given(leaf[:len(leaf)/2]), none,
			"found a PEM block (CERTIFICATE) that begins in line 1 and does not end; expected its line -----END CERTIFICATE-----; next: if the file is not being written right now, copy the whole file again from where it was issued"},
		{"PEM without its beginning", given(leaf[40:]), none,
			"found the end of a PEM block without its beginning (line 9); expected whole blocks, from -----BEGIN … to -----END …; next: copy the whole file again from where it was issued"},
		{"PEM, the second block cut off", given(chain[:len(chain)/2]), none,
			"found a PEM block (CERTIFICATE) that begins in line 9 and does not end; expected its line -----END CERTIFICATE-----; next: if the file is not being written right now, copy the whole file again from where it was issued"},
		{"PEM, a block begins in another", given(leaf[:len(leaf)/2], []byte("\n"), leaf), none,
			"found a PEM block (CERTIFICATE) that begins in line 1 and does not end; expected its line -----END CERTIFICATE-----; next: if the file is not being written right now, copy the whole file again from where it was issued"},
		{"PEM, END of another kind", given(bytes.Replace(leaf, []byte("END CERTIFICATE"), []byte("END PRIVATE KEY"), 1)), none,
			"found an end of another kind (PRIVATE KEY) in PEM block 1 (CERTIFICATE, line 1); expected -----END CERTIFICATE-----; next: copy the whole file again from where it was issued"},
		{"PEM, a letter that is none of Base64", given(bytes.Replace(chain, []byte("MII"), []byte("M!I"), 1)), none,
			"found text that is not Base64 in PEM block 1 (CERTIFICATE, line 1) (illegal base64 data at input byte 1); expected what is between -----BEGIN … and -----END … as it was issued; next: copy the whole file again from where it was issued"},
		{"PEM, a line missing", given(dropLine(leaf, 2)), none,
			"found binary data (DER) that was cut off in PEM block 1 (CERTIFICATE, line 1) (311 of 359 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"PEM, the last line missing", given(dropLine(leaf, strings.Count(string(leaf), "\n")-2)), none,
			"found binary data (DER) that was cut off in PEM block 1 (CERTIFICATE, line 1) (336 of 359 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"PEM, nothing between the lines", text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), none,
			"found nothing in PEM block 1 (CERTIFICATE, line 1); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"PEM, BEGIN without dashes after it", given(bytes.Replace(leaf, []byte("CERTIFICATE-----"), []byte("CERTIFICATE"), 1)), none,
			"found a PEM line that cannot be read (line 1); expected -----BEGIN CERTIFICATE-----; next: copy the whole file again from where it was issued"},
		{"PEM, line ends as two letters", given(bytes.ReplaceAll(leaf, []byte("\n"), []byte(`\n`))), none,
			"found \\n in place of line ends in PEM block 1 (CERTIFICATE, line 1); expected real line ends; next: write it again, with real line ends"},
		{"PEM in JSON", given([]byte(`{"crt":"`), bytes.ReplaceAll(leaf, []byte("\n"), []byte(`\n`)), []byte(`"}`)), none,
			"found JSON; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the certificate that is in it, as PEM with real line ends"},
		{"PEM from an environment file", given([]byte(`TLS_CRT="`), bytes.ReplaceAll(leaf, []byte("\n"), []byte(`\n`)), []byte(`"`)), none,
			"found PEM with \\n in place of line ends; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: write it with real line ends"},
		{"PEM from a word processor", given(bytes.ReplaceAll(leaf, []byte("-----"), []byte("—–"))), none,
			"found PEM whose dashes a word processor has changed; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy it again with a plain editor; each line begins and ends with five hyphens"},
		{"PEM in UTF-16, cut off", given(wide(leaf, binary.LittleEndian, true)[:600]), none,
			"found a PEM block (CERTIFICATE) that begins in line 1 and does not end; expected its line -----END CERTIFICATE-----; next: if the file is not being written right now, copy the whole file again from where it was issued"},
		{"PEM, other bytes called a certificate", given(block("CERTIFICATE", []byte("hello, world"))), none,
			"found binary data (DER) that was cut off in PEM block 1 (CERTIFICATE, line 1) (12 of 103 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"PEM, another structure called a certificate", given(block("CERTIFICATE", []byte("\x30\x03\x02\x01\x07"))), none,
			"found a structure (DER) that is neither certificate nor key in PEM block 1 (CERTIFICATE, line 1); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"PEM of another kind", given(block("TICKET", []byte("\x30\x03\x02\x01\x07"))), none,
			"found PEM of another kind (TICKET), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},

		// What is something else.
		{"a key", given(key), none,
			"found a private key (Ed25519), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA; a key need not be given, it is found by the certificate"},
		{"a key in DER", given(p.der(t, "leaf.key")), none,
			"found a private key (Ed25519), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA; a key need not be given, it is found by the certificate"},
		{"a request", given(csr), none,
			"found a certificate request for CN=cache.example, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: send the request to the CA, and give the file that comes back"},
		{"a request in DER", given(p.der(t, "leaf.csr")), none,
			"found a certificate request for CN=cache.example, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: send the request to the CA, and give the file that comes back"},
		{"a key and its request", given(key, csr), none,
			"found a private key (Ed25519) and a certificate request for CN=cache.example, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: send the request to the CA, and give the file that comes back"},
		{"a CRL", given(crl), none,
			"found a revocation list (CRL), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"a CRL in DER", given(p.der(t, "ca.crl")), none,
			"found a revocation list (CRL), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"a public key", given(p.run(t, "pkey", "-in", "leaf.key", "-pubout")), none,
			"found a public key, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"parameters", given(p.run(t, "ecparam", "-name", "prime256v1")), none,
			"found parameters of keys (EC PARAMETERS), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"a certificate where a key is wanted", given(leaf), wantKey,
			"found 1 certificate for CN=cache.example, but no private key; expected a private key in PEM, DER or PKCS#12 (.pfx); next: give the file that has the key, or a PKCS#12 file with certificate and key"},
		{"a key that cannot sign", given(p.run(t, "genpkey", "-algorithm", "X25519")), wantKey,
			"found a private key that cannot be read in PEM block 1 (PRIVATE KEY, line 1) (a key that cannot sign (*ecdh.PrivateKey)); expected ECDSA, RSA, Ed25519 or Ed448; next: use the key that the request was made with, or take this one out of the file"},
		{"an OpenSSH key", text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----\n"), none,
			"found an OpenSSH private key, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"an OpenSSH public key", text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE admin@example\n"), none,
			"found a public key of OpenSSH; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"a key of PuTTY", text("PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\n"), none,
			"found a private key of PuTTY; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"a key of PGP", text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENBF\n=aaaa\n-----END PGP PUBLIC KEY BLOCK-----\n"), none,
			"found something of PGP (PGP PUBLIC KEY BLOCK), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"a web page", text("\r\n<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2//EN\">\r\n<HTML><Head><Title>Microsoft Active Directory Certificate Services</Title></Head>"), none,
			"found a web page (HTML); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: download the certificate itself: use the page's own link (for AD CS \"Base 64 encoded\"), not the browser's save, and check that the page does not ask for a login"},
		{"text", text("The certificate is on the share, see the mail of Tuesday.\n"), none,
			"found text without a certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"text in Latin-1", text("0 Gr\xfc\xdfe\n"), none,
			"found text without a certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"XML", text("<?xml version=\"1.0\"?><Certificate/>"), none,
			"found XML; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the certificate that is in it"},
		{"hexadecimal", text(hex.EncodeToString(der)), none,
			"found a certificate or key in hexadecimal digits; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: make a binary file of it: xxd -r -p FILE FILE.cer"},
		{"a certificate printed", given(p.run(t, "x509", "-noout", "-text", "-in", "leaf.pem")), none,
			"found the printed text of a certificate, without the certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that the text was printed from"},
		{"a request printed", given(p.run(t, "req", "-noout", "-text", "-in", "leaf.csr")), none,
			"found the printed text of a certificate request; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: send the request to the CA, and give the file that comes back"},
		{"a policy of certreq", text("[Version]\r\nSignature=\"$Windows NT$\"\r\n[NewRequest]\r\nSubject=\"CN=x\"\r\n"), none,
			"found a policy file for certreq; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: make the request with it, send that to the CA, and give the file that comes back"},
		{"ZIP", text("PK\x03\x04\x14\x00\x00\x00"), none,
			"found a ZIP archive; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: unpack it, and give the certificate that is in it"},
		{"gzip", text("\x1f\x8b\x08\x00\x00\x00"), none,
			"found a gzip archive; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: unpack it, and give the certificate that is in it"},
		{"PDF", text("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), none,
			"found a PDF document; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the certificate itself, not a document about it"},
		{"JKS", text("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01"), none,
			"found a Java key store (JKS); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: convert it: keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 -deststoretype PKCS12"},
		{"a store of Windows", text("\x00\x00\x00\x00CERT\x20\x00\x00\x00"), none,
			"found a serialized certificate store of Windows (.sst); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: export the certificate as .p7b or .pfx"},
		{"a program", text("MZ\x90\x00\x03\x00\x00\x00"), none,
			"found a program for Windows; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"other binary data", text("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), none,
			"found binary data that is neither certificate nor key; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},

		// DER and PKCS#7.
		{"DER cut off", given(der[:200]), none,
			"found binary data (DER) that was cut off (200 of 359 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"DER with something after it", given(der, []byte("garbage")), none,
			"found 7 bytes that are no DER after 1 structure; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"DER and half a DER", given(der, der[:100]), none,
			"found binary data (DER) that was cut off (100 of 359 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"DER, damaged inside", given(damage(der, 4)), none,
			"found a structure (DER) that is neither certificate nor key; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"DER of another kind", given([]byte("\x30\x03\x02\x01\x07")), none,
			"found a structure (DER) that is neither certificate nor key; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"DER with an impossible length", given([]byte("\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff\x00")), none,
			"found binary data that is no DER (this is not ASN.1); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"DER copied as text", text(strings.ToValidUTF8(string(der), "\ufffd")), none,
			"found binary data that is no DER (this is not ASN.1); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"Base64 cut off", text(base64.StdEncoding.EncodeToString(der)[:201]), none,
			"found Base64 that cannot be read; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"Base64 damaged", text("MII" + strings.Repeat("A*", 50)), none,
			"found Base64 that cannot be read; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: copy the whole file again from where it was issued"},
		{"a negative serial number", given(negativeSerial(t, der)), none,
			"found a certificate (number 1 of the file) that cannot be read (x509: negative serial number); expected an X.509 certificate as RFC 5280 has it; next: copy the whole file again from where it was issued; if it stays so, have it issued again without this mistake, or take it out of the file if the node's certificate does not need it"},
		{"PKCS#7 without certificates", given(p.run(t, "crl2pkcs7", "-nocrl")), none,
			"found PKCS#7 without certificates, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"PKCS#7 with a CRL", given(p.run(t, "crl2pkcs7", "-in", "ca.crl")), none,
			"found a revocation list (CRL) and PKCS#7 without certificates, but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA"},
		{"PKCS#7 cut off", given(p.run(t, "crl2pkcs7", "-nocrl", "-certfile", "chain.pem", "-outform", "DER")[:500]), none,
			"found binary data (DER) that was cut off (500 of 999 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"PKCS#7, encrypted", given(p.run(t, "cms", "-encrypt", "-binary", "-in", "leaf.csr", "-secretkey", "000102030405060708090a0b0c0d0e0f", "-secretkeyid", "01", "-aes128", "-outform", "PEM")), none,
			"found PKCS#7 with an encrypted message in PEM block 1 (CMS, line 1); expected PKCS#7 with certificates (.p7b); next: have the certificates exported as .p7b or .cer"},
		{"PKCS#7 of another kind", given(p.run(t, "cms", "-data_create", "-in", "leaf.csr", "-outform", "DER")), none,
			"found PKCS#7 of the kind 1.2.840.113549.1.7.1; expected PKCS#7 with certificates (.p7b); next: have the certificates exported as .p7b or .cer"},
		{"101 certificates", given(many(t, der, 101)), none,
			"found more than 100 certificates; expected the node's certificate and those that lead to its root; next: take the others out of the file, such as a whole store of roots"},

		// Passwords.
		{"PKCS#12, no password", given(pfx), none,
			"found a PKCS#12 file (no password was given); expected a password with it; next: give the password that it was made with"},
		{"PKCS#12, wrong password", given(pfx), wrong,
			"found a PKCS#12 file (the password given does not open it); expected the password that it was made with; next: check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged"},
		{"PKCS#12, empty password", given(pfx), empty,
			"found a PKCS#12 file (the password given does not open it); expected the password that it was made with; next: check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged"},
		{"PKCS#12 without checksum, no password", given(p.read(t, "nomac.pfx")), none,
			"found a PKCS#12 file (no password was given); expected a password with it; next: give the password that it was made with"},
		{"PKCS#12 without checksum, wrong password", given(p.read(t, "nomac.pfx")), wrong,
			"found a PKCS#12 file (the password given does not open it); expected the password that it was made with; next: check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged"},
		{"PKCS#12 with a key only", given(p.read(t, "key.pfx")), right,
			"found a private key (Ed25519), but no certificate; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: give the file that came back from the CA; a key need not be given, it is found by the certificate"},
		{"PKCS#12 cut off", given(pfx[:len(pfx)/2]), right,
			"found binary data (DER) that was cut off (805 of 1610 bytes are there); expected the whole structure; next: copy the whole file again from where it was issued; in a file transfer, use binary mode"},
		{"PKCS#12, damaged inside", given(damage(pfx, len(pfx)/2)), right,
			"found a PKCS#12 file (the password given does not open it); expected the password that it was made with; next: check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged"},
		{"PKCS#12 of version 4", given(bytes.Replace(pfx, []byte("\x02\x01\x03"), []byte("\x02\x01\x04"), 1)), right,
			"found a PKCS#12 file of version 4 with contents of the kind 1.2.840.113549.1.7.1; expected PKCS#12 as RFC 7292 has it, version 3; next: export it again, with a password"},
		{"an encrypted key, no password", given(chain, encrypted), none,
			"found an encrypted private key in PEM block 4 (ENCRYPTED PRIVATE KEY, line 28) (no password was given); expected a password with it; next: give the password that it was made with, or take the key out of the file"},
		{"an encrypted key, wrong password", given(chain, encrypted), wrong,
			"found an encrypted private key in PEM block 4 (ENCRYPTED PRIVATE KEY, line 28) (the password given does not open it); expected the password that it was made with; next: check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged"},
		{"an encrypted key in DER", given(p.run(t, "pkcs8", "-topk8", "-in", "leaf.key", "-passout", "pass:correct-horse", "-outform", "DER")), wantKey,
			"found an encrypted private key (no password was given); expected a password with it; next: give the password that it was made with"},
		{"a traditional encrypted key, no password", given(chain, traditional), none,
			"found an encrypted private key in PEM block 4 (EC PRIVATE KEY, line 28) (no password was given); expected a password with it; next: give the password that it was made with, or take the key out of the file"},
		{"a traditional encrypted key, wrong password", given(chain, traditional), wrong,
			"found an encrypted private key in PEM block 4 (EC PRIVATE KEY, line 28) (the password given does not open it); expected the password that it was made with; next: check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged"},
		{"a traditional encrypted key, unknown cipher", given(bytes.Replace(traditional, []byte("AES-128-CBC"), []byte("SEED-CBC"), 1)), right,
			"found an encrypted private key in PEM block 1 (EC PRIVATE KEY, line 1) (x509: unknown encryption mode); expected encryption as OpenSSL writes it; next: convert it: openssl pkey -in FILE -out FILE"},
		{"an encrypted key, unknown cipher", given(p.run(t, "pkcs8", "-topk8", "-in", "leaf.key", "-v2", "camellia-256-cbc", "-passout", "pass:correct-horse")), right,
			"found an encrypted private key in PEM block 1 (ENCRYPTED PRIVATE KEY, line 1) (the cipher 1.2.392.200011.61.1.1.1.4 is not known here); expected encryption as OpenSSL and Windows write it: AES or 3DES; next: export it again, with AES-256"},
	}
	rows = append(rows, brokenHere(t, given(leaf))...)
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			tt.make(t, path)
			if link := filepath.Join(dir, "path"); exists(link) { // the row names another path by it
				target, err := os.ReadFile(link)
				if err != nil {
					t.Fatal(err)
				}
				path = string(target)
			}
			b, err := readFile(t, path, tt.o)
			if err == nil {
				t.Fatalf("no error, but %+v", b)
			}
			p := wantProblem(t, err)
			field := "certificate (" + path + ")"
			if tt.o.Key {
				field = "key (" + path + ")"
			}
			if p.Field != field || p.Found == "" || p.Expected == "" || p.Next == "" {
				t.Errorf("a field is missing or wrong: %#v", p)
			}
			got, ok := strings.CutPrefix(strings.ReplaceAll(err.Error(), dir, "DIR"), strings.ReplaceAll(field, dir, "DIR")+": ")
			if !ok || got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if o := tt.o; o.Password != "" && strings.Contains(err.Error(), o.Password) {
				t.Error("the message has the password")
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func wantProblem(t *testing.T, err error) *problem.Problem {
	t.Helper()
	p, ok := err.(*problem.Problem)
	if !ok {
		t.Fatalf("not a Problem but %T: %v", err, err)
	}
	return p
}

func dropLine(text []byte, n int) []byte {
	return bytes.Join(slices.Delete(bytes.SplitAfter(text, []byte("\n")), n, n+1), nil)
}

func damage(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 0xff
	return data
}

// negativeSerial changes the serial number 0x4711 of a certificate.
func negativeSerial(t *testing.T, der []byte) []byte {
	t.Helper()
	bad := bytes.Replace(der, []byte("\x02\x02\x47\x11"), []byte("\x02\x02\xc7\x11"), 1)
	if bytes.Equal(bad, der) {
		t.Fatal("the serial number is not there")
	}
	return bad
}

// many is n certificates that differ.
func many(t *testing.T, der []byte, n int) []byte {
	t.Helper()
	var all []byte
	for i := range n {
		c := bytes.Replace(der, []byte("\x02\x02\x47\x11"), []byte{2, 2, 0x47, byte(i)}, 1)
		all = append(all, c...)
	}
	var first asn1.RawValue
	if rest, err := asn1.Unmarshal(all, &first); err != nil || len(rest) != (n-1)*len(der) {
		t.Fatalf("%d bytes after the first: %v", len(rest), err)
	}
	return all
}
