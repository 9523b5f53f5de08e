package bundle

import (
	"bytes"
	"regexp"
	"strings"
)

// strangers are kinds of files that are given in place of a certificate,
// each with how it begins and what to do.
var strangers = []struct {
	begins      string
	found, next string
}{
	{"PK\x03\x04", "a ZIP archive", "unpack it, and give the certificate that is in it"},
	{"\x1f\x8b", "a gzip archive", "unpack it, and give the certificate that is in it"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and give the certificate that is in it"},
	{"\xfe\xed\xfe\xed", "a Java key store (JKS)", "convert it: keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 -deststoretype PKCS12"},
	{"\xce\xce\xce\xce", "a Java key store (JCEKS)", "convert it: keytool -importkeystore -srckeystore FILE -srcstoretype JCEKS -destkeystore FILE.p12 -deststoretype PKCS12"},
	{"\x00\x00\x00\x00CERT", "a serialized certificate store of Windows (.sst)", "export the certificate as .p7b or .pfx"},
	{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an office program", "give the certificate itself, not a document about it"},
	{"%PDF-", "a PDF document", "give the certificate itself, not a document about it"},
	{"MZ", "a program for Windows", "give the file that came back from the CA"},
	{"\x7fELF", "a program for Linux", "give the file that came back from the CA"},
	{"openssh-key-v1\x00", "an OpenSSH private key", "give the file that came back from the CA"},
	{"PuTTY-User-Key-File-", "a private key of PuTTY", "give the file that came back from the CA"},
	{"ssh-", "a public key of OpenSSH", "give the file that came back from the CA"},
	{"ecdsa-sha2-", "a public key of OpenSSH", "give the file that came back from the CA"},
	{"---- BEGIN SSH2", "a public key of SSH", "give the file that came back from the CA"},
	{"Certificate:", "the printed text of a certificate, without the certificate", "give the file that the text was printed from"},
	{"Certificate Request:", "the printed text of a certificate request", "send the request to the CA, and give the file that comes back"},
	{"[NewRequest]", "a policy file for certreq", "make the request with it, send that to the CA, and give the file that comes back"},
	{"[Version]", "a policy file for certreq", "make the request with it, send that to the CA, and give the file that comes back"},
	{"{", "JSON", "give the certificate that is in it, as PEM with real line ends"},
}

var (
	htmlPage  = regexp.MustCompile(`(?i)<!doctype html|<html|<head|<body`)
	typedDash = regexp.MustCompile(`[—–‐‑]+ *BEGIN `)
	hexDigits = regexp.MustCompile(`^(0[xX])?30[ :]*8[0-4][0-9a-fA-F:\s]+$`)
)

// stranger says what a file is that holds nothing of ours.
func (r *reader) stranger(data, text []byte) error {
	begin := bytes.TrimSpace(text)
	for _, s := range strangers {
		if bytes.HasPrefix(data, []byte(s.begins)) || bytes.HasPrefix(begin, []byte(s.begins)) {
			return r.problem(s.found, r.wanted(), s.next)
		}
	}
	found, next := "binary data that is neither certificate nor key", copyAgain
	switch {
	case len(begin) == 0 || len(bytes.Trim(data, "\x00")) == 0:
		found = "a file with nothing but blanks or zeros"
	case !isText(text):
	case htmlPage.Match(text[:min(len(text), 4096)]):
		found, next = "a web page (HTML)", "download the certificate itself: use the page's own link (for AD CS \"Base 64 encoded\"), not the browser's save, and check that the page does not ask for a login"
	case bytes.Contains(text, []byte(`\n`)) && bytes.Contains(text, []byte(begins)):
		found, next = `PEM with \n in place of line ends`, "write it with real line ends"
	case typedDash.Match(text):
		found, next = "PEM whose dashes a word processor has changed", "copy it again with a plain editor; each line begins and ends with five hyphens"
	case hexDigits.Match(begin):
		found, next = "a certificate or key in hexadecimal digits", "make a binary file of it: xxd -r -p FILE FILE.cer"
	case bytes.HasPrefix(begin, []byte("MI")):
		found, next = "Base64 that cannot be read", copyAgain
	case strings.HasPrefix(string(begin), "<"):
		found, next = "XML", "give the certificate that is in it"
	default:
		found, next = "text without a certificate", "give the file that came back from the CA"
	}
	return r.problem(found, r.wanted(), next)
}
