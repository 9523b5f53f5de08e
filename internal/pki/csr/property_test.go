package csr_test

import (
	"crypto"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/pki/csr"
	"larder/internal/pki/keys"
	"larder/internal/pki/san"
)

// words draws what a person may ask for, with names of every kind.
func words(algorithm string) *rapid.Generator[csr.Words] {
	label := rapid.StringMatching(`[a-z]([a-z0-9-]{0,20}[a-z0-9])?`).Filter(func(s string) bool { return !strings.HasPrefix(s, "xn--") })
	host := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".")
	})
	oid := rapid.Custom(func(t *rapid.T) string {
		s := fmt.Sprintf("2.999.%d", rapid.Uint32().Draw(t, "arc")) // the arc for examples: OpenSSL has no words below it
		for _, n := range rapid.SliceOfN(rapid.Uint64(), 0, 4).Draw(t, "arcs") {
			s += fmt.Sprintf(".%d", n)
		}
		return s
	})
	// Text that OpenSSL shows as it is: what it escapes is san's own test.
	text := rapid.StringMatching(`[A-Za-z0-9äöß日本][A-Za-z0-9 .:&äöß日本-]{0,28}[A-Za-z0-9äöß日本]`)
	ascii := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9 .&@-]{0,28}[A-Za-z0-9]`)
	return rapid.Custom(func(t *rapid.T) csr.Words {
		w := csr.Words{Algorithm: algorithm, CommonName: text.Draw(t, "cn")}
		if sizes := keys.Sizes(algorithm); len(sizes) > 0 {
			w.KeySizeOrCurve = sizes[0]
		}
		if rapid.Bool().Draw(t, "more subject") {
			w.Country = rapid.StringMatching(`[A-Z]{2}`).Draw(t, "c")
			w.State = text.Draw(t, "st")
			w.Org = text.Draw(t, "o")
		}
		list := func(name string, most int, one func() string) (all []string) {
			for range rapid.IntRange(0, most).Draw(t, name) {
				all = append(all, one())
			}
			return all
		}
		w.SANDNS = list("dns", 3, func() string {
			return rapid.SampledFrom([]string{"", "*."}).Draw(t, "star") + host.Draw(t, "host")
		})
		w.SANIP = list("ip", 3, func() string {
			b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip")
			if rapid.Bool().Draw(t, "v4") {
				b = b[:4]
			}
			ip, _ := netip.AddrFromSlice(b)
			return ip.Unmap().String()
		})
		w.SANURI = list("uri", 2, func() string {
			return rapid.SampledFrom([]string{"http", "https", "ldap"}).Draw(t, "scheme") + "://" + host.Draw(t, "host") + rapid.StringMatching(`(:[0-9]{1,4})?(/[a-z0-9%2~_-]{0,10}){0,3}(\?[a-z=&]{0,8})?`).
				Filter(func(s string) bool { return !strings.Contains(s, "%") }).Draw(t, "path")
		})
		w.SANEmail = list("email", 2, func() string {
			return rapid.StringMatching(`[A-Za-z0-9+_-]{1,20}(\.[a-z]{1,5})?`).Draw(t, "local") + "@" + host.Draw(t, "host")
		})
		w.SANRID = list("rid", 2, func() string { return oid.Draw(t, "oid") })
		w.SANDirName = list("dirname", 2, func() string {
			return fmt.Sprintf("/C=%s/O=%s/CN=%s", rapid.StringMatching(`[A-Z]{2}`).Draw(t, "c"), text.Draw(t, "o"), text.Draw(t, "cn"))
		})
		w.SANOtherName = list("othername", 3, func() string {
			switch typ := oid.Draw(t, "type"); rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				return typ + ";UTF8:" + text.Draw(t, "utf8")
			case 1:
				return typ + ";IA5:" + ascii.Draw(t, "ia5")
			default:
				return typ + ";HEX:04" + fmt.Sprintf("%02x", 3) + hex.EncodeToString(rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "octets"))
			}
		})
		if r, err := w.Request(); err != nil || r.Names.Len() == 0 {
			w.SANDNS = append(w.SANDNS, "cache.example")
		}
		return w
	})
}

// TestWhatIsWrittenIsReadBack: for whatever is asked for, Go and OpenSSL read
// the same that was written.
func TestWhatIsWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{keys.RSA, keys.EC, keys.Ed25519, keys.Ed448} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			key, err := keys.Generate(algorithm, "")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			rapid.Check(t, func(t *rapid.T) {
				// A process each time would take long: one in five.
				askOpenSSL := rapid.IntRange(0, 4).Draw(t, "one in five") == 4
				writeAndRead(t, words(algorithm).Draw(t, "words"), key, dir, askOpenSSL)
			})
		})
	}
}

func writeAndRead(t *rapid.T, w csr.Words, key crypto.Signer, dir string, askOpenSSL bool) {
	r, err := w.Request()
	if err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	if again, err := r.Words().Request(); err != nil || !reflect.DeepEqual(again, r) {
		t.Fatalf("from its own words: %v\n%+v\nwant\n%+v", err, again, r)
	}
	der, err := r.Create(key)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	req, err := csr.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := csr.RequestOf(req); err != nil || !reflect.DeepEqual(again, r) {
		t.Fatalf("read back: %v\n%+v\nwant\n%+v", err, again, r)
	}
	// crypto/x509 agrees about the kinds that it knows.
	var ips, uris []string
	for _, ip := range req.IPAddresses {
		ips = append(ips, ip.String())
	}
	for _, u := range req.URIs {
		uris = append(uris, u.String())
	}
	if theirs := (san.Texts{DNS: req.DNSNames, IP: ips, URI: uris, Email: req.EmailAddresses}); !reflect.DeepEqual(theirs,
		san.Texts{DNS: r.Names.DNS, IP: r.Names.Words().IP, URI: r.Names.URI, Email: r.Names.Email}) {
		t.Fatalf("crypto/x509 reads %+v; want %+v", theirs, r.Names)
	}
	if !askOpenSSL {
		return
	}
	f, err := os.CreateTemp(dir, "req")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(der); err != nil {
		t.Fatal(err)
	}
	text := openssl(t, dir, "req", "-inform", "DER", "-in", f.Name(), "-noout", "-text", "-verify", "-nameopt", "utf8,sep_comma_plus_space")
	var subject []string
	for _, a := range []struct{ typ, value string }{{"C", r.Country}, {"ST", r.State}, {"O", r.Organization}, {"CN", r.CommonName}} {
		if a.value != "" {
			subject = append(subject, a.typ+"="+a.value)
		}
	}
	if want := "Subject: " + strings.Join(subject, ", ") + "\n"; !strings.Contains(text, want) || !strings.Contains(text, "verify OK") {
		t.Fatalf("OpenSSL does not show %q:\n%s", want, text)
	}
	m := sanLine.FindStringSubmatch(text)
	if want := opensslNames(r.Names); m == nil || m[1] != want {
		t.Fatalf("OpenSSL shows\n%s\nwant\n%s", m, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, algorithm := range []string{keys.EC, keys.Ed25519, keys.Ed448} {
		w := all
		w.Algorithm = algorithm
		r, err := w.Request()
		if err != nil {
			f.Fatal(err)
		}
		key, err := r.Key()
		if err != nil {
			f.Fatal(err)
		}
		der, err := r.Create(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		f.Add(csr.MarshalPEM(der))
	}
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := csr.Parse(data)
		if (req == nil) != (err != nil) {
			t.Fatalf("%v with %v", req, err)
		}
		if err != nil {
			return
		}
		r, err := csr.RequestOf(req)
		if err != nil {
			return
		}
		r.Warnings([]string{"x"})
		if again, err := r.Words().Request(); err == nil && again.CommonName != strings.TrimSpace(r.CommonName) {
			t.Fatalf("from its own words: %+v; want %+v", again, r)
		}
	})
}
