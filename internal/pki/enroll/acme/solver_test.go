package acme_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/keys"
)

func marshal(t *testing.T, from any) []byte {
	t.Helper()
	der, err := asn1.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Everything that is wrong with the settings is said at once, before anybody
// is asked.
func TestSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := acme.New(acme.Config{
		DirectoryURL: "http://ca.example/dir", Contact: []string{"nobody"},
		EAB: &acme.EAB{HMACKey: "!secret!"},
		Ways: []acme.Way{
			{Challenge: "mail-01", Solver: new(acme.Memory)}, {Challenge: acme.HTTP01}, {Challenge: acme.HTTP01, Solver: new(acme.Memory)},
			{Challenge: acme.DNS01, Solver: &acme.DNSCommand{Command: filepath.Join(dir, "absent")}},
		},
	})
	says(t, err,
		"ACME directory: found http://ca.example/dir; expected an https:// URL",
		"ACME contact: found nobody",
		"key identifier: found nothing",
		"HMAC key: found what is no base64url",
		"ACME account key file: found nothing",
		"ACME challenge: found mail-01; expected http-01, tls-alpn-01, dns-01",
		"ACME challenge http-01: found nothing that answers it",
		"found http-01 twice",
		"command for dns-01: found no program")
	if strings.Contains(err.Error(), "!secret!") {
		t.Errorf("the error tells the key: %v", err)
	}
	_, err = acme.New(acme.Config{})
	says(t, err, "ACME directory: found nothing", "ACME challenge: found none")
	_, err = acme.New(acme.Config{DirectoryURL: "https://user:word@ca.example/dir"})
	says(t, err, "a user or a password in the URL")
	if strings.Contains(err.Error(), "word@") {
		t.Errorf("the error tells the password: %v", err)
	}
	_, err = acme.New(acme.Config{DirectoryURL: "https://ca.example:x/"})
	says(t, err, "what is no URL")
}

func TestExternalAccountIsSilent(t *testing.T) {
	t.Parallel()
	eab := acme.EAB{KeyID: "kid", HMACKey: "secret"}
	asJSON, err := json.Marshal(eab)
	if err != nil {
		t.Fatal(err)
	}
	cfg := acme.Config{EAB: &eab}
	for _, text := range []string{fmt.Sprint(eab), fmt.Sprintf("%+v", eab), fmt.Sprintf("%#v", eab), fmt.Sprintf("%+v", cfg), eab.LogValue().String(), string(asJSON)} {
		if strings.Contains(text, "secret") {
			t.Errorf("%q tells the key", text)
		}
	}
}

// What no CA could sign is said before any is asked.
func TestNamesOfRequests(t *testing.T) {
	t.Parallel()
	signer := func(kinds ...string) *acme.Signer {
		var ways []acme.Way
		for _, k := range kinds {
			ways = append(ways, acme.Way{Challenge: k, Solver: new(acme.Memory)})
		}
		return newSigner(t, acme.Config{DirectoryURL: "https://ca.example/dir", Ways: ways})
	}
	key, err := keys.Generate(keys.EC, "")
	if err != nil {
		t.Fatal(err)
	}
	uri := &url.URL{Scheme: "https", Host: "cache.example"}
	other := marshal(t, []asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("cache.example")},
		{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 3, 4}},
		{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: []byte{0x30, 0}},
		{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{6, 1, 0x2a, 0xa0, 2, 5, 0}},
	})
	for name, c := range map[string]struct {
		ways  []string
		req   x509.CertificateRequest
		wants []string // empty: nothing is wrong
	}{
		"good":                      {[]string{acme.HTTP01}, x509.CertificateRequest{Subject: pkix.Name{CommonName: "Cache.example"}, DNSNames: []string{"cache.example"}}, nil},
		"an address as common name": {[]string{acme.HTTP01}, x509.CertificateRequest{Subject: pkix.Name{CommonName: "10.0.0.5"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.5")}}, nil},
		"wildcard by DNS":           {[]string{acme.HTTP01, acme.DNS01}, x509.CertificateRequest{DNSNames: []string{"*.cache.example"}, IPAddresses: []net.IP{net.ParseIP("fd00::1")}}, nil},
		"no names":                  {[]string{acme.HTTP01}, x509.CertificateRequest{}, []string{"subject alternative names: found none"}},
		"wildcard by HTTP":          {[]string{acme.HTTP01, acme.TLSALPN01}, x509.CertificateRequest{DNSNames: []string{"*.cache.example"}}, []string{"name *.cache.example: found a wildcard, and no dns-01"}},
		"address by DNS":            {[]string{acme.DNS01}, x509.CertificateRequest{IPAddresses: []net.IP{net.ParseIP("10.0.0.5"), net.ParseIP("fd00::1")}}, []string{"address 10.0.0.5: found only dns-01", "address fd00::1"}},
		"common name apart":         {[]string{acme.HTTP01}, x509.CertificateRequest{Subject: pkix.Name{CommonName: "The Cache"}, DNSNames: []string{"cache.example"}}, []string{`common name: found "The Cache"`, "with common name cache.example"}},
		"mail and URI": {[]string{acme.HTTP01}, x509.CertificateRequest{DNSNames: []string{"cache.example"}, EmailAddresses: []string{"a@cache.example"}, URIs: []*url.URL{uri}},
			[]string{"found email:a@cache.example; expected DNS names and addresses only", "found URI:https://cache.example"}},
		"others": {[]string{acme.HTTP01}, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: other}}},
			[]string{"found a registered ID", "found a directory name", "found an otherName"}},
	} {
		err := signer(c.ways...).Check(create(t, &c.req, key))
		if len(c.wants) == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		refused(t, err, c.wants...)
	}
	refused(t, signer(acme.HTTP01).Check([]byte("junk")), "no PKCS#10 request")
	_, err = signer(acme.HTTP01).Sign(t.Context(), []byte("junk"), key, nil)
	refused(t, err, "no PKCS#10 request")
}

func TestAccountKeyFile(t *testing.T) {
	t.Parallel()
	f, p := newFront(t), newPebble(t, pebbleOptions{})
	cfg := acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)}
	cfg.AccountKeyFile = filepath.Join(t.TempDir(), "acme.key")
	writeFile(t, cfg.AccountKeyFile, []byte("not a key"))
	refused(t, trySign(t, newSigner(t, cfg), "cache.example"), "found no private key", "remove it to open another account")

	key, err := keys.Generate(keys.Ed25519, "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys.MarshalPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, cfg.AccountKeyFile, text)
	refused(t, trySign(t, newSigner(t, cfg), "cache.example"), "found a key of kind Ed25519; expected ECDSA or RSA")

	cfg.AccountKeyFile = t.TempDir()
	passes(t, trySign(t, newSigner(t, cfg), "cache.example"), "no way to read it")

	cfg.AccountKeyFile = filepath.Join(t.TempDir(), "acme.key")
	full := errors.New("the disk is full")
	cfg.SaveKey = func(string, []byte) error { return full }
	err = trySign(t, newSigner(t, cfg), "cache.example")
	if passes(t, err, "no way to write it"); !errors.Is(err, full) {
		t.Errorf("error is %v", err)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	var m acme.Memory
	ctx := t.Context()
	web := acme.Challenge{Type: acme.HTTP01, Identifier: "cache.example", Token: "one", KeyAuthorization: "one.thumb"}
	shake := acme.Challenge{Type: acme.TLSALPN01, Identifier: "Cache.example", Token: "two", Cert: new(tls.Certificate)}
	changed := m.Changed()
	if m.Pending() {
		t.Error("something is pending")
	}
	for _, c := range []acme.Challenge{web, shake} {
		if err := m.Present(ctx, c); err != nil {
			t.Fatal(err)
		}
		<-changed
		changed = m.Changed()
	}
	if got, ok := m.HTTP("one"); !ok || got != "one.thumb" || !m.Pending() || !m.PendingALPN() {
		t.Errorf("HTTP is %q, %v", got, ok)
	}
	if cert, ok := m.ALPN("cache.EXAMPLE."); !ok || cert != shake.Cert {
		t.Errorf("ALPN is %v, %v", cert, ok)
	}
	if config, err := m.ConfigForClient(&tls.ClientHelloInfo{ServerName: "cache.example", SupportedProtos: []string{"http/1.1"}}); config != nil || err != nil {
		t.Errorf("an ordinary client gets %v, %v", config, err)
	}
	if _, err := m.ConfigForClient(&tls.ClientHelloInfo{ServerName: "other.example", SupportedProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("a handshake for a name that is not pending passes")
	}
	// The end of an older challenge does not take the newer one away.
	old := shake
	old.Token = "older"
	if err := m.CleanUp(ctx, old); err != nil || !m.PendingALPN() {
		t.Errorf("after the older one: %v, pending %v", err, m.PendingALPN())
	}
	for _, c := range []acme.Challenge{web, shake, web} {
		if err := m.CleanUp(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	<-changed
	if _, ok := m.HTTP("one"); ok || m.Pending() || m.PendingALPN() {
		t.Error("something is left")
	}
	says(t, m.Present(ctx, acme.Challenge{Type: acme.DNS01, Identifier: "cache.example"}), "dns-01 for cache.example cannot be answered")
	if text := fmt.Sprint(web); strings.Contains(text, "thumb") {
		t.Errorf("%q tells the key authorization", text)
	}
}

// RFC 8738, section 6.
func TestServerNames(t *testing.T) {
	t.Parallel()
	for identifier, want := range map[string]string{
		"Cache.example": "cache.example",
		"10.0.0.5":      "5.0.0.10.in-addr.arpa",
		"2001:db8::1":   "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := (acme.Challenge{Identifier: identifier}).ServerName(); got != want {
			t.Errorf("ServerName of %s is %s; want %s", identifier, got, want)
		}
	}
}

func TestListenerThatCannotOpen(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	defer func() { _ = taken.Close() }()
	addr := taken.Addr().String()
	for _, c := range []struct {
		solver    acme.Solver
		challenge acme.Challenge
	}{
		{&acme.HTTPListener{Addr: addr}, acme.Challenge{Type: acme.HTTP01, Token: "one"}},
		{&acme.ALPNListener{Addr: addr}, acme.Challenge{Type: acme.TLSALPN01, Identifier: "cache.example", Cert: new(tls.Certificate)}},
	} {
		err := c.solver.Present(t.Context(), c.challenge)
		says(t, err, "address "+addr+" for "+c.challenge.Type, "no way to listen there", "see what holds it")
		if err := c.solver.CleanUp(t.Context(), c.challenge); err != nil {
			t.Errorf("CleanUp: %v", err)
		}
		says(t, c.solver.Present(t.Context(), acme.Challenge{Type: acme.DNS01, Identifier: "cache.example"}), "cannot be answered by a listener for "+c.challenge.Type)
	}
}

// Who knocks without a challenge pending for him learns nothing, and does not
// keep others from being answered.
func TestListenersAnswerNothingElse(t *testing.T) {
	t.Parallel()
	l := &acme.ALPNListener{Addr: freeAddress(t)}
	pair := lardertest.NewCA(t).Leaf(t, "cache.example")
	c := acme.Challenge{Type: acme.TLSALPN01, Identifier: "cache.example", Token: "one", Cert: &pair.TLS}
	if err := l.Present(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", l.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for _, config := range []*tls.Config{
		{ServerName: "cache.example"},
		{ServerName: "cache.example", NextProtos: []string{"h2"}},
		{ServerName: "other.example", NextProtos: []string{"acme-tls/1"}},
	} {
		config.InsecureSkipVerify = true
		if conn, err := tls.Dial("tcp", l.Addr, config); err == nil {
			_ = conn.Close()
			t.Errorf("a handshake for %s with %q passes", config.ServerName, config.NextProtos)
		}
	}
	conn, err := tls.Dial("tcp", l.Addr, &tls.Config{ServerName: "cache.example", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := l.CleanUp(t.Context(), c); err != nil { // ends the silent one, too
		t.Fatal(err)
	}
}

func TestDNSCommandSeesNoSecretsOfTheNode(t *testing.T) {
	t.Setenv("LARDER_TEST_SECRET", "hunter2") // hence not parallel
	out := filepath.Join(t.TempDir(), "env")
	d := acme.DNSCommand{Command: newHook(t, "env > \"$1\"\n") + " '" + out + "'"}
	if err := d.Present(t.Context(), acme.Challenge{Type: acme.DNS01, Identifier: "cache.example", DNSName: "_acme-challenge.cache.example", DNSValue: "value"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for want, is := range map[string]bool{"hunter2": false, "PATH=" + os.Getenv("PATH") + "\n": true, "CERTBOT_DOMAIN=cache.example\n": true} {
		if strings.Contains(string(text), want) != is {
			t.Errorf("%s in it: %v\n%s", want, !is, text)
		}
	}
}

func TestDNSCommand(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the commands are shell scripts")
	}
	z := newZone(t)
	c := acme.Challenge{Type: acme.DNS01, Identifier: "cache.example", DNSName: "_acme-challenge.cache.example", DNSValue: "value"}
	try := func(d acme.DNSCommand) error { return d.Present(t.Context(), c) }

	err := try(acme.DNSCommand{Command: `sh -c "echo no such zone; exit 3"`})
	says(t, err, "command for dns-01: sh present _acme-challenge.cache.example", `a failure that said "no such zone" (exit status 3)`, "run it by hand")
	says(t, try(acme.DNSCommand{Command: `sh -c "exit 1"`}), "that said nothing (exit status 1)")

	err = try(acme.DNSCommand{Command: `sh -c 'i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; exit 1'`})
	says(t, err, `said "…`, `line 999"`)
	if strings.Contains(err.Error(), "line 500") {
		t.Error("all of the output is in the error")
	}
	says(t, try(acme.DNSCommand{Command: `sh -c "echo waiting; exec sleep 60"`, Timeout: 200 * time.Millisecond}),
		`no end after 200ms; it said "waiting"`, "find out what it waits for")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&acme.DNSCommand{Command: "sh"}).Present(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	for command, want := range map[string]string{
		"":              "no command",
		"  ":            "no command",
		`sh -c "open`:   "a \" that nothing closes",
		"sh 'open":      "a ' that nothing closes",
		"no-such-hook":  "no program no-such-hook",
		"sh\x00 -c":     "a line break or a NUL",
		z.Dir + " word": "no program " + z.Dir,
	} {
		says(t, (&acme.DNSCommand{Command: command}).Check(), "command for dns-01", want)
		refused(t, try(acme.DNSCommand{Command: command}), want)
	}
	says(t, (&acme.DNSCommand{Command: "sh"}).Present(t.Context(), acme.Challenge{Type: acme.HTTP01, Identifier: "cache.example"}), "cannot be answered by a DNS record")

	waiting := &acme.DNSCommand{Command: "sh", Propagation: 50 * time.Millisecond, Resolver: z.Resolver()}
	says(t, waiting.Wait(t.Context(), c), "TXT record _acme-challenge.cache.example: found 0 other records, 50ms after")
	if err := os.MkdirAll(filepath.Join(z.Dir, c.DNSName), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(z.Dir, c.DNSName, "old"), nil)
	says(t, waiting.Wait(t.Context(), c), "found 1 other records")
	writeFile(t, filepath.Join(z.Dir, c.DNSName, c.DNSValue), nil)
	if err := waiting.Wait(t.Context(), c); err != nil {
		t.Error(err)
	}
	if err := (&acme.DNSCommand{Command: "sh"}).Wait(t.Context(), c); err != nil {
		t.Error(err)
	}
}
