package san_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"larder/internal/pki/san"
	"larder/internal/strictyaml"
)

func openssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
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

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, texts san.Texts) san.Names {
	t.Helper()
	n, err := san.Parse(texts)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// all has every kind, and every way to write it.
var all = san.Texts{
	DNS:     []string{"cache.example, *.CACHE.example", "bücher.example.", "node1"},
	IP:      []string{"10.0.0.5,fd00::5", "::ffff:10.0.0.6"},
	URI:     []string{`https://cache.example/a\,b?c=d%20e`, "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6,http://[fd00::5]:8080/", "file:///x"},
	Email:   []string{"Admin+tag@Example.com"},
	RID:     []string{"1.2.3.4,2.25.340282366920938463463374607431768211455"},
	DirName: []string{"/C=de/O=Example, /C=DE/O=A\\/B\\, Inc./CN=nöde", `CN=node\, one+UID=x , O=Ex\C3\A4mple ; 1.3.6.1.4.1.99.1=z,DC=corp,DC=example`},
	OtherName: []string{`1.3.6.1.4.1.311.20.2.3;UTF8:üser@example,1.2.3.4;IA5STRING:a\,b\\c`, "UPN:user@example",
		"1.2.3.5;PRINTABLE:abc,1.2.3.6;hex:30060201050c0178"},
}

// allTexts is all for people.
var allTexts = []string{
	"DNS:cache.example", "DNS:*.cache.example", "DNS:xn--bcher-kva.example", "DNS:node1",
	"IP:10.0.0.5", "IP:fd00::5", "IP:10.0.0.6",
	"URI:https://cache.example/a,b?c=d%20e", "URI:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "URI:http://[fd00::5]:8080/", "URI:file:///x",
	"email:Admin+tag@example.com",
	"RID:1.2.3.4", "RID:2.25.340282366920938463463374607431768211455",
	"DirName:O=Example,C=DE", `DirName:CN=nöde,O=A/B\, Inc.,C=DE`, `DirName:UID=x+CN=node\, one,O=Exämple`, "DirName:1.3.6.1.4.1.99.1=z,DC=corp,DC=example",
	"otherName:1.3.6.1.4.1.311.20.2.3;UTF8:üser@example", `otherName:1.2.3.4;IA5:a,b\c`, "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:user@example",
	"otherName:1.2.3.5;PRINTABLE:abc", "otherName:1.2.3.6;HEX:30060201050c0178",
}

// TestAllKinds: all are read from words, encoded so that OpenSSL shows the
// same, read again, and go through JSON and YAML.
func TestAllKinds(t *testing.T) {
	t.Parallel()
	n := parse(t, all)
	if got := n.Texts(); !slices.Equal(got, allTexts) {
		t.Errorf("texts:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(allTexts, "\n"))
	}
	if n.Len() != len(allTexts) {
		t.Errorf("Len is %d; want %d", n.Len(), len(allTexts))
	}
	if got, want := n.Hosts(), []string{"cache.example", "*.cache.example", "xn--bcher-kva.example", "node1", "10.0.0.5", "fd00::5", "10.0.0.6"}; !slices.Equal(got, want) {
		t.Errorf("hosts %q; want %q", got, want)
	}
	der, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := san.Read(der)
	if err != nil || !reflect.DeepEqual(again, n) {
		t.Errorf("read again: %v\n%+v\nwant\n%+v", err, again, n)
	}
	if twice := parse(t, n.Words()); !reflect.DeepEqual(twice, n) {
		t.Errorf("from its own words:\n%+v\nwant\n%+v", twice, n)
	}
	if err := n.Check(); err != nil {
		t.Error(err)
	}
	throughText(t, n)

	text := opensslText(t, request(t, der))
	for _, want := range []string{
		"X509v3 Subject Alternative Name: \n",
		"DNS:cache.example, DNS:*.cache.example, DNS:xn--bcher-kva.example, DNS:node1, IP Address:10.0.0.5, IP Address:FD00:0:0:0:0:0:0:5, IP Address:10.0.0.6, ",
		"URI:https://cache.example/a,b?c=d%20e, URI:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6, URI:http://[fd00::5]:8080/, URI:file:///x, ",
		"email:Admin+tag@example.com, Registered ID:1.2.3.4, Registered ID:2.25.340282366920938463463374607431768211455, ",
		`DirName:/C=DE/O=Example, DirName:/C=DE/O=A\/B, Inc./CN=n\xC3\xB6de, DirName:/O=Ex\xC3\xA4mple/UID=x+CN=node, one, DirName:/DC=example/DC=corp/1.3.6.1.4.1.99.1=z, `,
		"othername: UPN::üser@example, othername: 1.2.3.4::a,b\\c, othername: UPN::user@example, othername: 1.2.3.5::<unsupported>, othername: 1.2.3.6::<unsupported>\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("OpenSSL does not show %q:\n%s", want, text)
		}
	}
}

// request is a request with names, made by crypto/x509.
func request(t testing.TB, names []byte) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		ExtraExtensions: []pkix.Extension{{Id: san.OID, Value: names}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func opensslText(t testing.TB, req []byte) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "req", req)
	return openssl(t, dir, "req", "-inform", "DER", "-in", "req", "-noout", "-text", "-verify")
}

// throughText writes n as JSON and YAML and reads it again.
func throughText(t testing.TB, n san.Names) {
	t.Helper()
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var again san.Names
	if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(again, n) {
		t.Errorf("through JSON: %v\n%+v\nwant\n%+v\n%s", err, again, n, data)
	}
	if data, err = yaml.Marshal(n); err != nil {
		t.Fatal(err)
	}
	again = san.Names{}
	if err := yaml.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(again, n) {
		t.Errorf("through YAML: %v\n%+v\nwant\n%+v\n%s", err, again, n, data)
	}
	if n.Len() == 0 {
		return
	}
	again = san.Names{}
	if _, err := strictyaml.Decode("names.yaml", data, &again); err != nil || !reflect.DeepEqual(again, n) {
		t.Errorf("through strict YAML: %v\n%+v\nwant\n%+v\n%s", err, again, n, data)
	}
}

// config makes OpenSSL ask for every kind of name, in every form it has.
const config = `
[req]
distinguished_name=dn
req_extensions=ext
x509_extensions=ext
prompt=no
string_mask=pkix
[dn]
CN=x
[ext]
subjectAltName=@alt
[alt]
DNS.1=Cache.example
DNS.2=*.cache_1.example
IP.1=10.0.0.5
IP.2=fd00::5
URI.1=https://cache.example/a,b
URI.2=urn:x
email.1=admin@example.com
RID.1=1.2.3.4
RID.2=2.25.340282366920938463463374607431768211455
dirName.1=dir
otherName.1=1.3.6.1.4.1.311.20.2.3;UTF8:user@example
otherName.2=1.2.3.4;IA5STRING:abc
otherName.3=1.2.3.5;FORMAT:HEX,OCT:0102
otherName.4=1.2.3.6;SEQUENCE:seq
otherName.5=1.2.3.7;BMPSTRING:abc
otherName.6=1.2.3.8;INTEGER:123456789012345678901234567890
[seq]
a=INTEGER:5
b=UTF8:x
[dir]
C=DE
O=Example
OU=a/b
CN=node, one
+UID=x
x.1.3.6.1.4.1.99.1=z
serialNumber=5
emailAddress=a@b.example
`

// TestWeReadOpenSSL: a request and a certificate with all kinds.
func TestWeReadOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "config", []byte(config))
	openssl(t, dir, "genpkey", "-algorithm", "ed25519", "-out", "key")
	openssl(t, dir, "req", "-new", "-key", "key", "-config", "config", "-out", "req")
	openssl(t, dir, "req", "-x509", "-key", "key", "-config", "config", "-out", "crt")
	req, err := x509.ParseCertificateRequest(readPEM(t, dir, "req"))
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(readPEM(t, dir, "crt"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := san.OfRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"DNS:Cache.example", "DNS:*.cache_1.example", "IP:10.0.0.5", "IP:fd00::5", "URI:https://cache.example/a,b", "URI:urn:x",
		"email:admin@example.com", "RID:1.2.3.4", "RID:2.25.340282366920938463463374607431768211455",
		`DirName:emailAddress=a@b.example,serialNumber=5,1.3.6.1.4.1.99.1=z,UID=x+CN=node\, one,OU=a/b,O=Example,C=DE`,
		"otherName:1.3.6.1.4.1.311.20.2.3;UTF8:user@example", "otherName:1.2.3.4;IA5:abc", "otherName:1.2.3.5;HEX:04020102",
		"otherName:1.2.3.6;HEX:30060201050c0178", "otherName:1.2.3.7;HEX:1e06006100620063", "otherName:1.2.3.8;HEX:020d018ee90ff6c373e0ee4e3f0ad2"}
	if got := n.Texts(); !slices.Equal(got, want) {
		t.Errorf("texts:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if of, err := san.OfCertificate(crt); err != nil || !reflect.DeepEqual(of, n) {
		t.Errorf("the certificate has %+v, %v; want %+v", of, err, n)
	}
	throughText(t, n)
	der, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(crt.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(san.OID) }); !bytes.Equal(der, crt.Extensions[i].Value) {
		t.Errorf("written again: %x\nwant %x", der, crt.Extensions[i].Value)
	}
	if none, err := san.OfCertificate(&x509.Certificate{}); err != nil || none.Len() != 0 || none.Texts() != nil {
		t.Errorf("a certificate without names: %v, %v", none, err)
	}
}

// TestUnknownKinds: x400Address and ediPartyName, which nobody writes, are
// shown by number and survive.
func TestUnknownKinds(t *testing.T) {
	t.Parallel()
	der := unhex(t, "30 17  a3 02 3000  a5 0d a0 05 0c03 616263 a1 04 0c02 7879  82 02 6161")
	n, err := san.Read(der)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := n.Texts(), []string{"DNS:aa", "unknown[3]", "unknown[5]"}; !slices.Equal(got, want) {
		t.Errorf("texts %q; want %q", got, want)
	}
	throughText(t, n)
	if got := opensslText(t, request(t, der)); !strings.Contains(got, "X400Name:<unsupported>, EdiPartyName:<unsupported>, DNS:aa") {
		t.Errorf("OpenSSL has another opinion:\n%s", got)
	}
	again, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if twice, err := san.Read(again); err != nil || !reflect.DeepEqual(twice, n) {
		t.Errorf("written and read again: %+v, %v", twice, err)
	}
	if got := n.Unknown[0].DER(); hex.EncodeToString(got) != "a3023000" || n.Unknown[0].Equal(n.Unknown[1]) {
		t.Errorf("DER %x", got)
	}
	for _, text := range []string{"zz", "a3", "82026161", "30023000", ""} {
		if err := new(san.Unknown).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as an unknown name", text)
		}
	}
	if got := (san.Unknown{}).String(); got != "unknown" {
		t.Errorf("the zero value is %q", got)
	}
}

// TestNamesThatPretend: what a certificate says cannot pass for other names in
// a list, nor move the cursor of a terminal.
func TestNamesThatPretend(t *testing.T) {
	t.Parallel()
	bidi := "a\u202eb"
	name, err := san.ParseDirName(`CN=#0c04` + hex.EncodeToString([]byte("a\x1b[m")))
	if err != nil {
		t.Fatal(err)
	}
	oid, err := x509.ParseOID("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	n := san.Names{
		DNS:       []string{"a, DNS:b", "a\x1b[2J", bidi, "", `a"b`, "münchen"},
		URI:       []string{"http://a/, DNS:b", "http://a/\x00"},
		Email:     []string{"a@b\n"},
		DirName:   []san.DirName{name},
		OtherName: []san.OtherName{{Type: oid, Value: append([]byte{0x0c, byte(len(bidi))}, bidi...)}, {Type: oid, Value: []byte{0x0c, 1, ' '}}, {Type: oid, Value: []byte{0x0c, 0}}},
	}
	want := []string{`DNS:"a, DNS:b"`, `DNS:"a\x1b[2J"`, `DNS:"a\u202eb"`, `DNS:""`, `DNS:"a\"b"`, `DNS:"m\u00fcnchen"`,
		`URI:"http://a/, DNS:b"`, `URI:"http://a/\x00"`, `email:"a@b\n"`, `DirName:CN=a\1B[m`,
		"otherName:1.2.3;HEX:0c0561e280ae62", "otherName:1.2.3;HEX:0c0120", "otherName:1.2.3;HEX:0c00"}
	if got := n.Texts(); !slices.Equal(got, want) {
		t.Errorf("texts:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestBrokenNames: data that is no GeneralNames.
func TestBrokenNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, der, want string }{
		{"nothing", "", "syntax error"},
		{"a set", "3100", "an element of the kind"},
		{"cut off", "3004 8202 61", "syntax error"},
		{"cut off inside", "3003 8202 61", "syntax error"},
		{"something after it", "3004 8202 6161 00", "1 bytes after the end"},
		{"kind 9", "3004 8902 6161", "a tag (class 2, number 9)"},
		{"a universal tag", "3004 0c02 6161", "a tag (class 0, number 12)"},
		{"a DNS name of parts", "3006 a204 8202 6161", "name 1: kind 2 in the wrong form"},
		{"a primitive directory name", "3004 8402 3000", "kind 4 in the wrong form"},
		{"the second name", "3009 8202 6161 8703 010203", "name 2: an address of 3 bytes"},
		{"no RID", "3002 8800", "invalid oid"},
		{"a broken RID", "3003 8801 80", "invalid oid"},
		{"a RID too long", "30820105 88820101 " + strings.Repeat("01", 257), "an object identifier of 257 bytes"},
		{"a directory name that is none", "3004 a402 0c00", "a directory name"},
		{"a directory name of no sets", "3006 a404 3002 0c00", "no set of attributes"},
		{"an empty set", "3006 a404 3002 3100", "no set of attributes"},
		{"a set of no attribute", "3008 a406 3004 3102 0c00", "no attribute"},
		{"an attribute without value", "300d a40b 3009 3107 3005 0603 550403", "without type and value"},
		{"a set cut off", "3008 a406 3004 3102 3001", "syntax error"},
		{"an attribute cut off", "3009 a407 3005 3103 3001 06", "without type and value"},
		{"an attribute with a broken type", "300d a40b 3009 3107 3005 0601 80 0500", "invalid oid"},
		{"an other name without value", "3006 a004 0602 2a03", "without type and value"},
		{"an other name with a broken type", "3009 a007 0601 80 a002 0500", "invalid oid"},
		{"an other name with an empty value", "3008 a006 0602 2a03 a000", "the value of an other name"},
		{"an other name with two values", "300c a00a 0602 2a03 a004 0500 0500", "2 bytes after the end"},
		{"an other name cut off", "3005 a003 0602 2a", "syntax error"},
	} {
		n, err := san.Read(unhex(t, tt.der))
		if err == nil || n.Len() != 0 || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "reading subject alternative names: ") {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// TestWhatCannotBeWritten: names that did not come from Parse or Read.
func TestWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	oid, err := x509.ParseOID("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want string
		n    san.Names
	}{
		{"no subject alternative names", san.Names{}},
		{"beyond ASCII", san.Names{DNS: []string{"bücher.example"}}},
		{"beyond ASCII", san.Names{Email: []string{"ü@example"}}},
		{"none that a certificate can name", san.Names{IP: []netip.Addr{{}}}},
		{"none that a certificate can name", san.Names{IP: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}}},
		{"without numbers", san.Names{RID: []x509.OID{{}}}},
		{"without numbers", san.Names{OtherName: []san.OtherName{{Value: []byte{5, 0}}}}},
		{"the value of an other name (1.2.3)", san.Names{OtherName: []san.OtherName{{Type: oid}}}},
	} {
		if der, err := tt.n.Marshal(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %x, %v; want %q", tt.n, der, err, tt.want)
		}
	}
	// The empty directory name is odd, but a name.
	der, err := san.Names{DirName: []san.DirName{{}}}.Marshal()
	if err != nil || hex.EncodeToString(der) != "3004a4023000" {
		t.Errorf("an empty directory name: %x, %v", der, err)
	}
	n, err := san.Read(der)
	if err != nil || !n.DirName[0].Equal(san.DirName{}) {
		t.Errorf("read again: %v, %v", n, err)
	}
	if data, err := json.Marshal(n); err != nil || string(data) != `{"dirName":[""]}` {
		t.Errorf("%s, %v", data, err)
	} else if err := json.Unmarshal(data, &n); err != nil || !n.DirName[0].Equal(san.DirName{}) {
		t.Errorf("read from JSON: %v, %v", n, err)
	}
}

func FuzzRead(f *testing.F) {
	n := parse(f, all)
	der, err := n.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(unhex(f, "30 17  a3 02 3000  a5 0d a0 05 0c03 616263 a1 04 0c02 7879  82 02 6161"))
	f.Add(unhex(f, "3004a4023000"))
	f.Fuzz(func(t *testing.T, der []byte) {
		n, err := san.Read(der)
		if err != nil {
			return
		}
		if got := len(n.Texts()); got != n.Len() {
			t.Fatalf("%d texts of %d names", got, n.Len())
		}
		for _, text := range n.Texts() {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
				t.Fatalf("%q would not stay on its line", text)
			}
		}
		again, err := n.Marshal()
		if err != nil {
			if n.Len() > 0 && !slices.ContainsFunc(slices.Concat(n.DNS, n.URI, n.Email), func(s string) bool {
				return strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f })
			}) {
				t.Fatalf("not written: %v", err)
			}
			return
		}
		if twice, err := san.Read(again); err != nil || !reflect.DeepEqual(twice, n) {
			t.Fatalf("written and read again: %v\n%+v\nwant\n%+v", err, twice, n)
		}
		// What is good enough to be asked for comes back from its own words.
		if n.Check() != nil || len(n.Unknown) > 0 {
			return
		}
		parsed := parse(t, n.Words())
		if twice := parse(t, parsed.Words()); !reflect.DeepEqual(twice, parsed) {
			t.Fatalf("from its own words:\n%+v\nwant\n%+v", twice, parsed)
		}
	})
}

func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	return x509.ParseCertificateRequest(der)
}

func readDER(t testing.TB, dir, name string) *x509.CertificateRequest {
	t.Helper()
	der, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	req, err := parseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
