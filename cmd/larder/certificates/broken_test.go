//go:build unix

package certificates_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"larder/internal/lardertest/golden"

	"github.com/google/go-cmp/cmp"
)

// A bench is a TLS directory with a request and a certificate in use, and all
// that broken inputs are made of.
type bench struct {
	*pki
	t    *testing.T
	tls  string
	csr  string // of the request "node"
	key  string // its key
	good string // its certificate, PEM
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{pki: newPKI(t), t: t, tls: filepath.Join(t.TempDir(), "tls")}
	must(t, "tls", "csr", "--dir", b.tls, "--algo", "EC", "--csr-name", "node", "--subject-common-name", "cache.example", "--san-dns", "cache.example")
	b.csr, b.key = filepath.Join(b.tls, "certs", "node.csr"), filepath.Join(b.tls, "keys", "node.key")
	b.good = b.sign(t, b.csr)
	must(t, "tls", "import", b.file("good.pem", b.chain(t, b.good)), "--dir", b.tls, "--root", b.path("root.pem"))
	return b
}

func (b *bench) file(name, text string) string { return b.write(b.t, name, text) }

// leaf signs the request with further arguments and puts the chain in a file.
func (b *bench) leaf(name string, extra ...string) string {
	return b.file(name, b.chain(b.t, b.sign(b.t, b.csr, extra...)))
}

// ext signs the request with these extensions instead of its own.
func (b *bench) ext(name, extensions string, extra ...string) string {
	args := append([]string{"x509", "-req", "-in", b.csr, "-CA", b.path("ca.pem"), "-CAkey", b.path("ca.key"), "-days", "30", "-extfile", b.file(name+".ext", extensions)}, extra...)
	return b.file(name, b.chain(b.t, openssl(b.t, "", args...)))
}

const serverSAN = "subjectAltName=DNS:cache.example\nextendedKeyUsage=serverAuth\n"

// under signs the request with an intermediate of its own, which has these
// extensions.
func (b *bench) under(name, extensions string, days string, extra ...string) string {
	key, csr, cert := b.path(name+".ca.key"), b.path(name+".ca.csr"), b.path(name+".ca.pem")
	openssl(b.t, "", "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key, "-out", csr, "-subj", "/CN=CA of "+name)
	args := append([]string{"x509", "-req", "-in", csr, "-CA", b.path("root.pem"), "-CAkey", b.path("root.key"), "-extfile", b.file(name+".ca.ext", extensions), "-out", cert, "-days", days}, extra...)
	openssl(b.t, "", args...)
	leaf := openssl(b.t, "", "x509", "-req", "-in", b.csr, "-CA", cert, "-CAkey", key, "-copy_extensions", "copyall", "-days", "30")
	return b.file(name, leaf+read(b.t, cert))
}

func (b *bench) der(name, pemFile string) string {
	openssl(b.t, "", "x509", "-in", pemFile, "-outform", "DER", "-out", b.path(name))
	return b.path(name)
}

// pfx exports the good pair.
func (b *bench) pfx(name string, extra ...string) string {
	leaf := b.file("pfx-leaf.pem", b.good)
	openssl(b.t, "", append([]string{"pkcs12", "-export", "-in", leaf, "-inkey", b.key, "-certfile", b.path("ca.pem"), "-out", b.path(name), "-passout", "pass:hunter2"}, extra...)...)
	return b.path(name)
}

const caExt = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"

// brokenInputs are files that cannot be imported, each with arguments besides
// --dir.
var brokenInputs = []struct {
	name string
	make func(b *bench) (file string, args []string)
}{
	{"not there", func(b *bench) (string, []string) { return b.path("nowhere.crt"), nil }},
	{"a name that is not there", func(b *bench) (string, []string) { return "nowhere", nil }},
	{"a directory", func(b *bench) (string, []string) { return b.dir, nil }},
	{"empty", func(b *bench) (string, []string) { return b.file("empty.crt", ""), nil }},
	{"blanks", func(b *bench) (string, []string) { return b.file("blanks.crt", " \n\n\t\n"), nil }},
	{"ten megabytes", func(b *bench) (string, []string) {
		return b.file("large.pem", strings.Repeat(b.good, 10<<20/len(b.good)+1)), nil
	}},
	{"a link to nowhere", func(b *bench) (string, []string) { return b.link("gone.crt", "nowhere"), nil }},
	{"a link to itself", func(b *bench) (string, []string) { return b.link("loop.crt", "loop.crt"), nil }},
	{"a link to a directory", func(b *bench) (string, []string) { return b.link("dir.crt", "."), nil }},
	{"a pipe", func(b *bench) (string, []string) {
		if err := syscall.Mkfifo(b.path("pipe.crt"), 0o600); err != nil {
			b.t.Fatal(err)
		}
		return b.path("pipe.crt"), nil
	}},
	{"a device", func(b *bench) (string, []string) { return "/dev/zero", nil }},
	{"text", func(b *bench) (string, []string) { return b.file("text.crt", "The certificate is attached.\n"), nil }},
	{"a web page", func(b *bench) (string, []string) {
		return b.file("page.cer", "<!DOCTYPE html><html><body>Sign in</body></html>"), nil
	}},
	{"the request", func(b *bench) (string, []string) { return b.csr, nil }},
	{"the key", func(b *bench) (string, []string) { return b.key, nil }},
	{"a public key", func(b *bench) (string, []string) {
		return b.file("public.pem", openssl(b.t, "", "pkey", "-in", b.key, "-pubout")), nil
	}},
	{"an encrypted key without its password", func(b *bench) (string, []string) {
		return b.file("enc.pem", b.good+openssl(b.t, "", "pkey", "-in", b.key, "-aes256", "-passout", "pass:hunter2")), nil
	}},
	{"an encrypted key with a wrong password", func(b *bench) (string, []string) {
		return b.file("enc2.pem", b.good+openssl(b.t, "", "pkey", "-in", b.key, "-aes256", "-passout", "pass:hunter2")), []string{"--password", "hunter3"}
	}},
	{"a revocation list", func(b *bench) (string, []string) { return b.crl("crl.pem"), nil }},
	{"a key of OpenSSH", func(b *bench) (string, []string) {
		return b.file("id.crt", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"), nil
	}},
	{"a message of PGP", func(b *bench) (string, []string) {
		return b.file("pgp.asc", "-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----\n"), nil
	}},
	{"an archive", func(b *bench) (string, []string) {
		return b.file("certs.zip", "PK\x03\x04\x14\x00\x00\x00\x08\x00zipped"), nil
	}},
	{"a keystore of Java", func(b *bench) (string, []string) {
		return b.file("store.jks", "\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01"), nil
	}},
	{"a PEM without its end", func(b *bench) (string, []string) { return b.file("cut.pem", b.good[:len(b.good)-30]), nil }},
	{"a PEM cut in its middle", func(b *bench) (string, []string) { return b.file("cut2.pem", b.good[:len(b.good)/2]), nil }},
	{"a PEM with a letter too many", func(b *bench) (string, []string) {
		return b.file("typo.pem", strings.Replace(b.good, "MII", "M!I", 1)), nil
	}},
	{"a PEM with another's label", func(b *bench) (string, []string) {
		return b.file("label.pem", strings.NewReplacer("CERTIFICATE REQUEST", "CERTIFICATE").Replace(read(b.t, b.csr))), nil
	}},
	{"a PEM whose bytes were changed", func(b *bench) (string, []string) {
		lines := strings.Split(b.good, "\n")
		lines[len(lines)/2] = strings.Repeat("A", len(lines[len(lines)/2]))
		return b.file("changed.pem", strings.Join(lines, "\n")), nil
	}},
	{"DER that is cut off", func(b *bench) (string, []string) {
		whole := read(b.t, b.der("whole.der", b.file("whole.pem", b.good)))
		return b.file("cut.der", whole[:len(whole)-20]), nil
	}},
	{"DER with something behind", func(b *bench) (string, []string) {
		return b.file("more.der", read(b.t, b.der("whole2.der", b.file("whole2.pem", b.good)))+"more"), nil
	}},
	{"DER of something else", func(b *bench) (string, []string) { return b.file("other.der", "\x30\x03\x02\x01\x05"), nil }},
	{"random bytes", func(b *bench) (string, []string) {
		return b.file("random.crt", "\x8f\x01\xff\x00\x7a\x13\x99\xe2\x80"), nil
	}},
	{"for another key", func(b *bench) (string, []string) { return b.foreign("foreign.pem"), nil }},
	{"expired", func(b *bench) (string, []string) { return b.leaf("expired.pem", "-days", "-1"), nil }},
	{"not yet valid", func(b *bench) (string, []string) { return b.future("future.pem"), nil }},
	{"the root", func(b *bench) (string, []string) { return b.path("root.pem"), nil }},
	{"the intermediate", func(b *bench) (string, []string) { return b.path("ca.pem"), nil }},
	{"an authority's certificate for the node's key", func(b *bench) (string, []string) { return b.ext("isca.pem", caExt+serverSAN), nil }},
	{"the intermediate is missing", func(b *bench) (string, []string) {
		other := newPKI(b.t) // that of the certificate in use is known
		return b.file("alone.pem", other.sign(b.t, b.csr)), []string{"--root", other.path("root.pem")}
	}},
	{"another intermediate", func(b *bench) (string, []string) {
		other, third := newPKI(b.t), newPKI(b.t)
		return b.file("mixed.pem", other.sign(b.t, b.csr)+read(b.t, third.path("ca.pem"))), []string{"--root", other.path("root.pem")}
	}},
	{"an unknown root", func(b *bench) (string, []string) {
		other := newPKI(b.t)
		return b.file("stranger.pem", other.chain(b.t, other.sign(b.t, b.csr))), nil
	}},
	{"self-signed", func(b *bench) (string, []string) {
		return b.file("self.pem", openssl(b.t, "", "req", "-x509", "-key", b.key, "-subj", "/CN=cache.example", "-addext", "subjectAltName=DNS:cache.example", "-addext", "basicConstraints=critical,CA:FALSE", "-days", "30")), nil
	}},
	{"none of the names that clients use", func(b *bench) (string, []string) {
		return b.leaf("names.pem"), []string{"--client-names", "updates.example,10.0.0.5"}
	}},
	{"an address that clients use as a DNS name", func(b *bench) (string, []string) {
		return b.ext("ipdns.pem", "subjectAltName=DNS:10.0.0.5\nextendedKeyUsage=serverAuth\n"), []string{"--client-names", "10.0.0.5"}
	}},
	{"a wildcard that reaches too far", func(b *bench) (string, []string) {
		return b.ext("wild.pem", "subjectAltName=DNS:*.example\nextendedKeyUsage=serverAuth\n"), []string{"--client-names", "a.b.example"}
	}},
	{"no alternative name", func(b *bench) (string, []string) {
		return b.ext("cn.pem", "extendedKeyUsage=serverAuth\n"), []string{"--client-names", "cache.example"}
	}},
	{"for clients only", func(b *bench) (string, []string) {
		return b.ext("eku.pem", "subjectAltName=DNS:cache.example\nextendedKeyUsage=clientAuth\n"), nil
	}},
	{"a key that may not sign", func(b *bench) (string, []string) {
		return b.ext("ku.pem", serverSAN+"keyUsage=critical,keyAgreement\n"), nil
	}},
	{"a critical extension that nobody knows", func(b *bench) (string, []string) {
		return b.ext("critical.pem", serverSAN+"1.2.3.4=critical,ASN1:NULL\n"), nil
	}},
	{"signed with SHA-1", func(b *bench) (string, []string) { return b.leaf("sha1.pem", "-sha1"), nil }},
	{"an authority whose own signature is SHA-1", func(b *bench) (string, []string) { return b.under("sha1ca", caExt, "60", "-sha1"), nil }},
	{"an RSA key of 1024 bits", func(b *bench) (string, []string) { return b.withKey("small.pem", "-newkey", "rsa:1024"), nil }},
	{"a key on P-224", func(b *bench) (string, []string) {
		return b.withKey("p224.pem", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"), nil
	}},
	{"an Ed448 key for which the node has none", func(b *bench) (string, []string) { return b.withoutKey("ed448.pem", "-newkey", "ed448"), nil }},
	{"names that its authority may not give", func(b *bench) (string, []string) {
		return b.under("constrained", caExt+"nameConstraints=critical,permitted;DNS:other.example\n", "60"), nil
	}},
	{"an authority below one that allows none", func(b *bench) (string, []string) { return b.deep("deep.pem"), nil }},
	{"an intermediate that has expired", func(b *bench) (string, []string) { return b.under("oldca", caExt, "-1"), nil }},
	{"an intermediate that is no authority", func(b *bench) (string, []string) {
		return b.under("noca", "basicConstraints=critical,CA:FALSE\n", "60"), nil
	}},
	{"an intermediate that may not sign certificates", func(b *bench) (string, []string) {
		return b.under("nosign", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n", "60"), nil
	}},
	{"PKCS#12 without its password", func(b *bench) (string, []string) { return b.pfx("a.pfx"), nil }},
	{"PKCS#12 with a wrong password", func(b *bench) (string, []string) { return b.pfx("b.pfx"), []string{"--password", "hunter3"} }},
	{"old PKCS#12 with a wrong password", func(b *bench) (string, []string) {
		return b.pfx("old.pfx", "-legacy"), []string{"--password", "hunter3"}
	}},
	{"PKCS#12 that is cut off", func(b *bench) (string, []string) {
		whole := read(b.t, b.pfx("whole.pfx"))
		return b.file("cut.pfx", whole[:len(whole)/2]), []string{"--password", "hunter2"}
	}},
	{"PKCS#12 with a bomb for its checksum", func(b *bench) (string, []string) {
		return b.bomb("mac.pfx", b.pfx("macplain.pfx")), []string{"--password", "hunter2"}
	}},
	{"PKCS#12 without a key", func(b *bench) (string, []string) {
		openssl(b.t, "", "pkcs12", "-export", "-nokeys", "-in", b.foreign("nokey.pem"), "-out", b.path("nokey.pfx"), "-passout", "pass:hunter2")
		return b.path("nokey.pfx"), []string{"--password", "hunter2"}
	}},
	{"PKCS#7 that is cut off", func(b *bench) (string, []string) {
		whole := read(b.t, b.p7("whole.p7b", b.leaf("p7leaf.pem")))
		return b.file("cut.p7b", whole[:len(whole)-40]), nil
	}},
	{"PKCS#7 with authorities only", func(b *bench) (string, []string) { return b.p7("cas.p7b", b.path("ca.pem")), nil }},
	{"PKCS#7 with nothing in it", func(b *bench) (string, []string) {
		openssl(b.t, "", "crl2pkcs7", "-in", b.crl("only.crl"), "-outform", "DER", "-out", b.path("crl.p7b"))
		return b.path("crl.p7b"), nil
	}},
	{"a root that is none", func(b *bench) (string, []string) {
		return b.path("good.pem"), []string{"--root", b.file("noroot.pem", "x")}
	}},
	{"a name with a slash", func(b *bench) (string, []string) { return b.path("good.pem"), []string{"--name", "../x"} }},
	{"a file of the password that is empty", func(b *bench) (string, []string) {
		return b.path("a.pfx"), []string{"--password-file", b.file("nopass", "")}
	}},
}

func (b *bench) link(name, to string) string {
	if err := os.Symlink(to, b.path(name)); err != nil {
		b.t.Fatal(err)
	}
	return b.path(name)
}

func (b *bench) crl(name string) string {
	b.file(name+".index", "")
	b.file(name+".number", "01\n")
	conf := b.file(name+".conf", fmt.Sprintf("[ca]\ndefault_ca=d\n[d]\ndatabase=%[1]s.index\ncrlnumber=%[1]s.number\ndefault_md=sha256\ndefault_crl_days=7\n", b.path(name)))
	openssl(b.t, "", "ca", "-gencrl", "-config", conf, "-cert", b.path("ca.pem"), "-keyfile", b.path("ca.key"), "-out", b.path(name))
	return b.path(name)
}

func (b *bench) p7(name, pemFile string) string {
	openssl(b.t, "", "crl2pkcs7", "-nocrl", "-certfile", pemFile, "-outform", "DER", "-out", b.path(name))
	return b.path(name)
}

// foreign is a certificate for a key that the node does not have.
func (b *bench) foreign(name string) string {
	return b.withoutKey(name, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
}

func (b *bench) withoutKey(name string, newkey ...string) string {
	args := append([]string{"req", "-new", "-nodes", "-keyout", b.path(name + ".key"), "-out", b.path(name + ".csr"), "-subj", "/CN=cache.example", "-addext", "subjectAltName=DNS:cache.example"}, newkey...)
	openssl(b.t, "", args...)
	return b.file(name, b.chain(b.t, b.sign(b.t, b.path(name+".csr"))))
}

func (b *bench) withKey(name string, newkey ...string) string {
	b.withoutKey(name, newkey...)
	return b.file("with-"+name, read(b.t, b.path(name))+read(b.t, b.path(name+".key")))
}

// future is valid from next year on; OpenSSL's ca command can say so.
func (b *bench) future(name string) string {
	b.file("future.index", "")
	b.file("future.serial", "01\n")
	conf := b.file("future.conf", fmt.Sprintf("[ca]\ndefault_ca=d\n[d]\ndatabase=%[1]s/future.index\nserial=%[1]s/future.serial\nnew_certs_dir=%[1]s\ndefault_md=sha256\npolicy=p\ncopy_extensions=copyall\n[p]\ncommonName=supplied\n", b.dir))
	from := time.Now().AddDate(1, 0, 0).UTC().Format("20060102150405Z")
	to := time.Now().AddDate(2, 0, 0).UTC().Format("20060102150405Z")
	openssl(b.t, "", "ca", "-batch", "-notext", "-config", conf, "-cert", b.path("ca.pem"), "-keyfile", b.path("ca.key"), "-startdate", from, "-enddate", to, "-in", b.csr, "-out", b.path("future.crt"))
	return b.file(name, b.chain(b.t, read(b.t, b.path("future.crt"))))
}

// deep is signed by an authority below the intermediate, which allows none.
func (b *bench) deep(name string) string {
	key, csr, cert := b.path("deep.ca.key"), b.path("deep.ca.csr"), b.path("deep.ca.pem")
	openssl(b.t, "", "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key, "-out", csr, "-subj", "/CN=Too deep")
	openssl(b.t, "", "x509", "-req", "-in", csr, "-CA", b.path("ca.pem"), "-CAkey", b.path("ca.key"), "-extfile", b.file("deep.ext", caExt), "-out", cert, "-days", "60")
	leaf := openssl(b.t, "", "x509", "-req", "-in", b.csr, "-CA", cert, "-CAkey", key, "-copy_extensions", "copyall", "-days", "30")
	return b.file(name, leaf+read(b.t, cert)+read(b.t, b.path("ca.pem")))
}

// bomb changes the number of rounds of a PKCS#12 file's checksum, which is the
// last number in it, to one that would take hours. OpenSSL writes 2048 as two
// bytes; the lengths around it grow with it.
func (b *bench) bomb(name, from string) string {
	whole := []byte(read(b.t, from))
	at := bytes.LastIndex(whole, []byte{0x02, 0x02, 0x08, 0x00})
	if at < 0 {
		b.t.Fatal("no number of rounds in the file")
	}
	// Two bytes more: PFX (30 82 hh ll) and MacData (30 ll) say so.
	mac := bytes.LastIndex(whole[:at], []byte{0x30, 0x31, 0x30, 0x0d}) - 2
	if mac < 0 || whole[mac] != 0x30 {
		b.t.Fatal("no MacData in the file")
	}
	bombed := append(append([]byte{}, whole[:at]...), 0x02, 0x04, 0x7f, 0xff, 0xff, 0xff)
	bombed = append(bombed, whole[at+4:]...)
	bombed[mac+1] += 2
	length := int(bombed[2])<<8 | int(bombed[3])
	length += 2
	bombed[2], bombed[3] = byte(length>>8), byte(length)
	return b.file(name, string(bombed))
}

var (
	dates   = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC`)
	numbers = regexp.MustCompile(`\b[0-9A-F]{40}\b|\b[0-9a-f]{64}\b|-[0-9a-f]{8}\.pem`)
	sizes   = regexp.MustCompile(`(\d+ of \d+|file of \d+) bytes`) // signatures differ in length
	spans   = regexp.MustCompile(`\b(\d+) (day|hour|minute|second)s? (ago|from now)`)
)

func TestBrokenInputs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if len(brokenInputs) < 60 {
		t.Errorf("%d inputs, want 60 at least", len(brokenInputs))
	}
	before := tree(t, b.tls)
	var report strings.Builder
	for _, in := range brokenInputs {
		file, args := in.make(b)
		began := time.Now()
		r := larder(t, append([]string{"tls", "import", file, "--dir", b.tls}, args...)...)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: took %v", in.name, took)
		}
		text := strings.NewReplacer(b.tls, "TLS", b.dir, "DIR").Replace(r.stderr)
		text = spans.ReplaceAllString(sizes.ReplaceAllString(numbers.ReplaceAllString(dates.ReplaceAllString(text, "DATE"), "ID"), "N bytes"), "SPAN $3")
		fmt.Fprintf(&report, "== %s (exit code %d)\n%s", in.name, r.exit, text)
		if r.exit == 0 || r.stdout != "" {
			t.Errorf("%s: %s", in.name, r)
		}
		if strings.Contains(r.stderr, "hunter") || strings.Contains(r.stderr, "PRIVATE KEY-----\n") {
			t.Errorf("%s: a secret in %s", in.name, r.stderr)
		}
		if diff := cmp.Diff(before, tree(t, b.tls)); diff != "" {
			t.Fatalf("%s: changed (-before +after):\n%s", in.name, diff)
		}
	}
	golden.Check(t, "testdata/broken.golden", report.String())
}

// tree is what lies in a TLS directory, but for logs and locks.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(p, "logs/") || p == "serving.json" {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		all[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
