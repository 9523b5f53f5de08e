package san_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/pki/problem"
	"larder/internal/pki/san"
)

// problems takes a joined error apart.
func problems(t testing.TB, err error) []*problem.Problem {
	t.Helper()
	if err == nil {
		return nil
	}
	var all []*problem.Problem
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var p *problem.Problem
		if !errors.As(e, &p) {
			t.Fatalf("%v is no problem.Problem", e)
		}
		all = append(all, p)
	}
	return all
}

// TestMistakes: each word that cannot be a name, with its message.
func TestMistakes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for _, tt := range []struct{ flag, word, want string }{
		{san.FlagDNS, "10.0.0.5", `found an IP address, "10.0.0.5"; expected a DNS name such as cache.example.com; next: use --san-ip for it`},
		{san.FlagDNS, "fd00::5", "next: use --san-ip"},
		{san.FlagDNS, "[fd00::5]", "next: use --san-ip"},
		{san.FlagDNS, "10.0.0.0/24", "next: use --san-ip"},
		{san.FlagDNS, "１０.0.0.5", "next: use --san-ip"},
		{san.FlagDNS, "10.0.0.256", "ends in a number, as addresses do"},
		{san.FlagDNS, "10.0.0", "ends in a number, as addresses do"},
		{san.FlagDNS, "cache.example:443", "leave out the port (:443): a certificate is for all ports of cache.example"},
		{san.FlagDNS, "https://cache.example/", "a URI goes to --san-uri"},
		{san.FlagDNS, "admin@cache.example", "an e-mail address goes to --san-email"},
		{san.FlagDNS, "cache_1.example", `which has "_" (only letters, digits, hyphens and dots are possible)`},
		{san.FlagDNS, "cache example", `which has " "`},
		{san.FlagDNS, "-cache.example", "begins or ends with a hyphen"},
		{san.FlagDNS, "cache-.example", "begins or ends with a hyphen"},
		{san.FlagDNS, "cache..example", "nothing before a dot, or between two"},
		{san.FlagDNS, ".example", "nothing before a dot, or between two"},
		{san.FlagDNS, ".", "nothing before a dot, or between two"},
		{san.FlagDNS, "*", `has a "*" that does not stand before a name`},
		{san.FlagDNS, "*.*.example", `has a "*" that does not stand before a name`},
		{san.FlagDNS, "cache.*.example", `has a "*" that does not stand before a name`},
		{san.FlagDNS, "c*.example", `has a "*" that is not the whole part before the first dot`},
		{san.FlagDNS, long + ".example", "has a part of 64 characters (at most 63 are possible)"},
		{san.FlagDNS, strings.Repeat("a.", 130) + "example", "has 267 characters (at most 253 are possible)"},
		{san.FlagDNS, "xn--zzzzzz99999.example", "that is no internationalised name"},
		{san.FlagDNS, "bü\u00a0cher.example", "has characters that a domain name cannot have"},
		{san.FlagDNS, "a,,b", "found an empty entry; expected a name before and after each comma; next: leave the comma out"},
		{san.FlagDNS, "", "found an empty entry"},
		{san.FlagDNS, "a,", "found an empty entry"},

		{san.FlagIP, "cache.example", `found "cache.example"; expected an IPv4 or IPv6 address such as 10.0.0.5 or fd00::5; next: a DNS name goes to --san-dns`},
		{san.FlagIP, "*.example", "a DNS name goes to --san-dns"},
		{san.FlagIP, "10.0.0.256", "expected an IPv4 or IPv6 address"},
		{san.FlagIP, "10.0.0", "expected an IPv4 or IPv6 address"},
		{san.FlagIP, "010.0.0.5", "expected an IPv4 or IPv6 address"},
		{san.FlagIP, "10.0.0.0/24", "name each address; 10.0.0.0/24 is a network"},
		{san.FlagIP, "10.0.0.5:443", "leave out the port"},
		{san.FlagIP, "[fd00::5]:443", "leave out the port"},
		{san.FlagIP, "[fd00::5]", "leave out the brackets"},
		{san.FlagIP, "fe80::1%eth0", "leave out the zone, %eth0"},
		{san.FlagIP, "http://10.0.0.5/", "a URI goes to --san-uri"},

		{san.FlagURI, "cache.example", "which has no scheme; expected an absolute URI such as https://cache.example.com/"},
		{san.FlagURI, "/path", "which has no scheme"},
		{san.FlagURI, "cache.example:443", "which is a host with a port"},
		{san.FlagURI, "https:", "which has nothing after its scheme"},
		{san.FlagURI, "https://", "which has no host"},
		{san.FlagURI, "https:///path", "which has no host"},
		{san.FlagURI, "https://a b/", `which has ' '; expected an absolute URI such as https://cache.example.com/; next: write it with percent signs`},
		{san.FlagURI, "https://bücher.example/", "which has 'ü'"},
		{san.FlagURI, "https://a/%zz", "invalid URL escape"},
		{san.FlagURI, "https://a_b.example/", `whose host has "_"`},
		{san.FlagURI, "https://a.example./", "whose host ends with a dot"},
		{san.FlagURI, "https://user:secret@a.example/", "found a URI with a user or password in it; expected an absolute URI such as https://cache.example.com/; next: leave out what is before the @"},
		{san.FlagURI, "https://user:secret word@a.example", "found a URI with a user or password in it"},

		{san.FlagEmail, "admin", "expected an e-mail address such as admin@example.com"},
		{san.FlagEmail, "Admin <admin@example.com>", "expected an e-mail address"},
		{san.FlagEmail, "<admin@example.com>", "expected an e-mail address"},
		{san.FlagEmail, "a@b@example.com", "expected an e-mail address"},
		{san.FlagEmail, "@example.com", "expected an e-mail address"},
		{san.FlagEmail, "admin@", "expected an e-mail address"},
		{san.FlagEmail, "jürgen@example.com", "which has characters beyond ASCII"},
		{san.FlagEmail, "admin@a_b.example", `whose domain has "_"`},
		{san.FlagEmail, "admin@[10.0.0.5]", "whose domain has"},
		{san.FlagEmail, long + "a@example.com", "which has 65 characters before the @ (at most 64 are possible)"},

		{san.FlagRID, "1", "expected a dotted object identifier such as 1.3.6.1.4.1.99999.1"},
		{san.FlagRID, "3.1", "expected a dotted object identifier"},
		{san.FlagRID, "1.40", "expected a dotted object identifier"},
		{san.FlagRID, "1..2", "expected a dotted object identifier"},
		{san.FlagRID, "1.2.", "expected a dotted object identifier"},
		{san.FlagRID, "1.-2", "expected a dotted object identifier"},
		{san.FlagRID, "serverAuth", "expected a dotted object identifier"},
		{san.FlagRID, "1.2." + strings.Repeat("9", 300), "expected a dotted object identifier"},

		{san.FlagDirName, "node", `no = in "node"; a comma, a plus or a semicolon within a value needs a backslash before it`},
		{san.FlagDirName, "/C=DE/node", `no = in "node"; a slash within a value needs a backslash before it`},
		{san.FlagDirName, "/O=Example, Inc./CN=x", `a backslash before commas`},
		{san.FlagDirName, "/", `no = in ""`},
		{san.FlagDirName, "/C=DEU", `C is "DEU", not two letters such as DE`},
		{san.FlagDirName, "/C=D1", `C is "D1", not two letters`},
		{san.FlagDirName, "/CN=", "CN is empty"},
		{san.FlagDirName, "CN=", "CN is empty"},
		{san.FlagDirName, "/XX=a", `"XX" is no attribute; there are C, ST, L, O, OU, CN, DC, UID, STREET, serialNumber, emailAddress and dotted object identifiers`},
		{san.FlagDirName, "XX=#0500", `"XX" is no attribute`},
		{san.FlagDirName, "/CN=" + long + "a", "CN has 65 characters; at most 64 fit"},
		{san.FlagDirName, "/DC=ü", "DC has a character beyond ASCII"},
		{san.FlagDirName, "/serialNumber=a_b", "serialNumber has a character beyond letters, digits and"},
		{san.FlagDirName, "CN=a\x07b", "CN has a character that does not print"},
		{san.FlagDirName, `CN=a\FFb`, "CN is no UTF-8"},
		{san.FlagDirName, `CN="a"`, "CN: a quote without a backslash before it"},
		{san.FlagDirName, `CN=a\xb`, `CN: a backslash before "x", which needs none`},
		{san.FlagDirName, `CN=a\`, "CN: a backslash at the end"},
		{san.FlagDirName, "CN=#05", "CN is no hexadecimal DER"},
		{san.FlagDirName, "CN=#zz", "CN is no hexadecimal DER"},
		{san.FlagDirName, "CN=a;;CN=b", "found an empty entry"},

		{san.FlagOtherName, "user", `found "user" (no semicolon after the type); expected OID;UTF8:text, OID;IA5:text, OID;PRINTABLE:text, OID;HEX:der or UPN:user@domain`},
		{san.FlagOtherName, "1.2.3;text", "no kind of value, such as UTF8:, after the semicolon"},
		{san.FlagOtherName, "1.2.3;LATIN1:text", `"LATIN1" is no kind of value`},
		{san.FlagOtherName, "x;UTF8:text", `"x" is no object identifier`},
		{san.FlagOtherName, "1.2.3;UTF8:", "no text after the colon"},
		{san.FlagOtherName, "1.2.3;IA5:ü", "the text has characters that IA5 has not"},
		{san.FlagOtherName, "1.2.3;PRINTABLE:a_b", "the text has characters that PRINTABLE has not"},
		{san.FlagOtherName, "1.2.3;UTF8:\xff", "the text has characters that UTF8 has not"},
		{san.FlagOtherName, "UPN:user", "a user principal name without @"},
		{san.FlagOtherName, "1.2.3;HEX:zz", "invalid byte"},
		{san.FlagOtherName, "1.2.3;HEX:0c0261", "no DER of one value"},
		{san.FlagOtherName, "1.2.3;HEX:05000500", "no DER of one value: 2 bytes after the end"},
		{san.FlagOtherName, "1.2.3;HEX:010101", "a content that the type 1 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:02020001", "a content that the type 2 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:030109", "a content that the type 3 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:0501ff", "a content that the type 5 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:060180", "a content that the type 6 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:0c01ff", "a content that the type 12 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:1e0100", "a content that the type 30 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:1c020000", "a content that the type 28 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:1000", "a content that the type 16 cannot have"},
		{san.FlagOtherName, "1.2.3;HEX:0000", "a content that the type 0 cannot have"},
	} {
		n, err := san.Parse(oneFlag(tt.flag, tt.word))
		if err == nil || n.Len() != 0 {
			t.Errorf("%s %q is taken: %q", tt.flag, tt.word, n.Texts())
			continue
		}
		p := problems(t, err)[0]
		if p.Field != tt.flag || !strings.Contains(p.Error(), tt.want) {
			t.Errorf("%s %q: %v; want %q", tt.flag, tt.word, err, tt.want)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the message shows the password: %v", tt.flag, err)
		}
	}
}

func oneFlag(flag, word string) (texts san.Texts) {
	*map[string]*[]string{
		san.FlagDNS: &texts.DNS, san.FlagIP: &texts.IP, san.FlagURI: &texts.URI, san.FlagEmail: &texts.Email,
		san.FlagRID: &texts.RID, san.FlagDirName: &texts.DirName, san.FlagOtherName: &texts.OtherName,
	}[flag] = []string{word}
	return texts
}

func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := san.Parse(san.Texts{DNS: []string{"a_b,good,c_d"}, IP: []string{"x"}, URI: []string{"x"}, Email: []string{"x"}, RID: []string{"x"},
		DirName: []string{"x"}, OtherName: []string{"x", "y"}})
	var fields []string
	for _, p := range problems(t, err) {
		fields = append(fields, p.Field)
	}
	want := []string{"--san-dns", "--san-dns", "--san-ip", "--san-uri", "--san-email", "--san-rid", "--san-dir-name", "--san-other-name", "--san-other-name"}
	if !slices.Equal(fields, want) {
		t.Errorf("fields %q; want %q", fields, want)
	}
}

func TestNoNamesAreNoMistake(t *testing.T) {
	t.Parallel()
	if n, err := san.Parse(san.Texts{}); err != nil || !reflect.DeepEqual(n, san.Names{}) {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestTwiceIsOnce: a name that is given again, however it is spelt.
func TestTwiceIsOnce(t *testing.T) {
	t.Parallel()
	n := parse(t, san.Texts{DNS: []string{"a.example,A.Example", "a.example."}, IP: []string{"fd00::5,fd00:0::5", "10.0.0.5,::ffff:10.0.0.5"},
		RID: []string{"1.2.3,1.2.03"}, DirName: []string{"/C=DE/CN=x", "cn=x,c=de"}, OtherName: []string{"UPN:a@b", upn + ";utf8string:a@b"}})
	want := []string{"DNS:a.example", "IP:fd00::5", "IP:10.0.0.5", "RID:1.2.3", "DirName:CN=x,C=DE", "otherName:" + upn + ";UTF8:a@b"}
	if got := n.Texts(); !slices.Equal(got, want) {
		t.Errorf("texts %q; want %q", got, want)
	}
}

const upn = "1.3.6.1.4.1.311.20.2.3"

// TestDirNamesAsOpenSSL: the slash form is written as OpenSSL writes -subj,
// byte for byte, and the text is what it shows as RFC 2253.
func TestDirNamesAsOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openssl(t, dir, "genpkey", "-algorithm", "ed25519", "-out", "key")
	for _, subject := range []string{
		"/C=DE/ST=Bavaria/L=Munich/O=Example/OU=Unit/CN=node",
		"/DC=example/DC=corp/UID=7/street=Way 1/serialNumber=5/emailAddress=a@b.example/CN=x",
		`/O=A\/B, "C" <d>; e\\f/CN=#x=y`,
		"/O=Bücher 日本/CN= a ",
	} {
		openssl(t, dir, "req", "-new", "-utf8", "-key", "key", "-subj", subject, "-outform", "DER", "-out", "req")
		d, err := san.ParseDirName(subject[:len(subject)-len(trailing(subject))] + strings.ReplaceAll(trailing(subject), " ", `\ `))
		if err != nil {
			t.Errorf("%s: %v", subject, err)
			continue
		}
		req := readDER(t, dir, "req")
		if !slices.Equal(d.DER(), req.RawSubject) {
			t.Errorf("%s: %x; OpenSSL writes %x", subject, d.DER(), req.RawSubject)
		}
		got := strings.TrimSuffix(openssl(t, dir, "req", "-inform", "DER", "-in", "req", "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8"), "\n")
		if want := "subject=" + strings.ReplaceAll(d.String(), "STREET=", "street="); got != want {
			t.Errorf("%s: OpenSSL shows %s; we %s", subject, got, want)
		}
	}
}

// trailing are the spaces at the end, which need a backslash for ParseDirName.
func trailing(s string) string { return s[len(strings.TrimRight(s, " ")):] }

// TestStringTypes: attributes that others wrote in older types are shown as
// text, and kept as they are.
func TestStringTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ value, text, exact string }{
		{"1303616263", "abc", "#1303616263"},         // PrintableString
		{"1603616263", "abc", "#1603616263"},         // IA5String
		{"1e0400e40062", "äb", "#1e0400e40062"},      // BMPString
		{"1402e462", "äb", "#1402e462"},              // T61String
		{"1a0161", "a", "#1a0161"},                   // VisibleString
		{"120131", "1", "#120131"},                   // NumericString
		{"0c03616263", "abc", "abc"},                 // UTF8String, as we write it
		{"0c01ff", "#0c01ff", "#0c01ff"},             // no UTF-8
		{"1e0161", "#1e0161", "#1e0161"},             // half a character
		{"02012a", "#02012a", "#02012a"},             // a number
		{"0c00", "", "#0c00"},                        // empty
		{"0c026109", `a\09`, "#0c026109"},            // a tab
		{"0c022361", `\#a`, `\#a`},                   //
		{"0c062c2b223b3c3e", `\,\+\"\;\<\>`, `same`}, //
		{"0c0320205c", `\  \\`, `same`},              //
	} {
		der := unhex(t, tt.value)
		raw, err := asn1.Marshal([][]pkixAttribute{{{asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.RawValue{FullBytes: der}}}})
		if err != nil {
			t.Fatal(err)
		}
		raw[2] = 0x31 // a set, not a sequence
		d, err := san.ReadDirName(raw)
		if err != nil {
			t.Errorf("%s: %v", tt.value, err)
			continue
		}
		if tt.exact == "same" {
			tt.exact = tt.text
		}
		exact, err := d.MarshalText()
		if d.String() != "CN="+tt.text || string(exact) != "CN="+tt.exact || err != nil {
			t.Errorf("%s: %s and %s, %v; want %s and %s", tt.value, d, exact, err, tt.text, tt.exact)
		}
		var again san.DirName
		if err := again.UnmarshalText(exact); tt.value != "0c01ff" && tt.value != "1e0161" && (err != nil || !again.Equal(d)) {
			t.Errorf("%s: read again: %x, %v", tt.value, again.DER(), err)
		}
	}
}

type pkixAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// TestNamesRoundTrip: whatever text is in a directory name or another name, it
// comes back from every form it is written in, and encoding/asn1 agrees.
func TestNamesRoundTrip(t *testing.T) {
	t.Parallel()
	text := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune(`,+"\<>;=#/ äß日%:`)), rapid.RuneFrom([]rune("abcXYZ019-."))), 1, 20, -1)
	rapid.Check(t, func(t *rapid.T) {
		var attributes []san.Attribute
		for range rapid.IntRange(1, 4).Draw(t, "attributes") {
			attributes = append(attributes, san.Attribute{Type: rapid.SampledFrom([]string{"O", "OU", "CN", "L", "UID", "1.2.3.4"}).Draw(t, "type"), Value: text.Draw(t, "value")})
		}
		d, err := san.MakeDirName(attributes...)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Attributes(); !slices.Equal(got, attributes) {
			t.Fatalf("attributes %q; want %q", got, attributes)
		}
		var std pkix.RDNSequence
		if rest, err := asn1.Unmarshal(d.DER(), &std); err != nil || len(rest) > 0 || len(std) != len(attributes) {
			t.Fatalf("encoding/asn1 reads %v, %v", std, err)
		}
		for i, rdn := range std {
			if rdn[0].Value != attributes[i].Value {
				t.Fatalf("encoding/asn1 reads %q; want %q", rdn[0].Value, attributes[i].Value)
			}
		}
		if again, err := san.ParseDirName(d.String()); err != nil || !again.Equal(d) {
			t.Fatalf("%s comes back as %s, %v", d, again, err)
		}
		slashes := ""
		for _, a := range attributes {
			slashes += "/" + a.Type + "=" + strings.NewReplacer(`\`, `\\`, `/`, `\/`, `,`, `\,`, ` `, `\ `).Replace(a.Value)
		}
		n, err := san.Parse(san.Texts{DirName: []string{slashes + "," + slashes, d.String() + ";" + d.String()}})
		if err != nil || len(n.DirName) != 1 || !n.DirName[0].Equal(d) {
			t.Fatalf("%s comes back as %v, %v", slashes, n.DirName, err)
		}

		value := text.Draw(t, "other")
		o, err := san.ParseOtherName("1.2.3;UTF8:" + value)
		if err != nil {
			t.Fatal(err)
		}
		var std2 string
		if _, err := asn1.UnmarshalWithParams(o.Value, &std2, "utf8"); err != nil || std2 != value {
			t.Fatalf("encoding/asn1 reads %q, %v; want %q", std2, err, value)
		}
		words := san.Names{OtherName: []san.OtherName{o}}.Words()
		if n, err := san.Parse(words); err != nil || !n.OtherName[0].Equal(o) {
			t.Fatalf("%q comes back as %v, %v", words.OtherName, n.OtherName, err)
		}
	})
}

// FuzzParse: no word is taken that cannot be encoded, read and given again.
func FuzzParse(f *testing.F) {
	for _, words := range [][]string{all.DNS, all.IP, all.URI, all.Email, all.RID, all.DirName, all.OtherName} {
		for _, word := range words {
			f.Add(word)
		}
	}
	f.Add(`CN=#` + hex.EncodeToString([]byte{0x13, 1, 'a'}))
	f.Fuzz(func(t *testing.T, word string) {
		for _, flag := range []string{san.FlagDNS, san.FlagIP, san.FlagURI, san.FlagEmail, san.FlagRID, san.FlagDirName, san.FlagOtherName} {
			n, err := san.Parse(oneFlag(flag, word))
			if err != nil {
				continue
			}
			der, err := n.Marshal()
			if err != nil {
				t.Fatalf("%s %q: %v", flag, word, err)
			}
			if again, err := san.Read(der); err != nil || !reflect.DeepEqual(again, n) {
				t.Fatalf("%s %q: read again: %v\n%+v\nwant\n%+v", flag, word, err, again, n)
			}
			if again, err := san.Parse(n.Words()); err != nil || !reflect.DeepEqual(again, n) {
				t.Fatalf("%s %q: from its own words: %v\n%+v\nwant\n%+v", flag, word, err, again, n)
			}
			throughText(t, n)
			// crypto/x509 reads everything that we would have signed.
			if _, err := parseRequest(request(t, der)); err != nil {
				t.Fatalf("%s %q: %v", flag, word, err)
			}
		}
	})
}
