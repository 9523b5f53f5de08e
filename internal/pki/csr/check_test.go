package csr_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"larder/internal/pki/csr"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
	"larder/internal/strictyaml"
)

func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// TestMistakes: each wrong word with its message, by the words and by the
// request itself.
func TestMistakes(t *testing.T) {
	t.Parallel()
	good := csr.Words{Algorithm: "EC", CommonName: "x", SANDNS: []string{"x"}}
	if _, err := good.Request(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*csr.Words)
		want   string
	}{
		{"no algorithm", func(w *csr.Words) { w.Algorithm = "" }, "--algo: found nothing; expected one of RSA, EC, ED25519, ED448"},
		{"another algorithm", func(w *csr.Words) { w.Algorithm = "DSA" }, `--algo: found "DSA"; expected one of RSA, EC, ED25519, ED448`},
		{"another curve", func(w *csr.Words) { w.KeySizeOrCurve = "secp521r1" }, `--key-size-or-curve: found "secp521r1"; expected one of prime256v1, secp384r1 for EC`},
		{"a size for a curve", func(w *csr.Words) { w.KeySizeOrCurve = "2048" }, `--key-size-or-curve: found "2048"; expected one of prime256v1`},
		{"a short key", func(w *csr.Words) { w.Algorithm, w.KeySizeOrCurve = "RSA", "1024" }, `--key-size-or-curve: found "1024"; expected one of 2048, 3072, 4096 for RSA`},
		{"a size for Ed25519", func(w *csr.Words) { w.Algorithm, w.KeySizeOrCurve = "ED25519", "256" }, `--key-size-or-curve: found "256"; expected nothing: ED25519 has one size; next: leave the flag out`},
		{"no common name", func(w *csr.Words) { w.CommonName = " " }, "--subject-common-name: found nothing; expected a name for people, such as the first DNS name"},
		{"a long common name", func(w *csr.Words) { w.CommonName = strings.Repeat("ä", 65) }, "(CN has 65 characters; at most 64 fit); expected 1 to 64 characters that print; next: use a short name"},
		{"a common name that does not print", func(w *csr.Words) { w.CommonName = "a\x1bb" }, `--subject-common-name: found "a\x1bb" (CN has a character that does not print)`},
		{"three letters", func(w *csr.Words) { w.Country = "DEU" }, `--subject-country: found "DEU" (C is "DEU", not two letters such as DE); expected two letters such as DE (ISO 3166-1)`},
		{"other letters", func(w *csr.Words) { w.Country = "D€" }, "--subject-country: found"},
		{"a long state", func(w *csr.Words) { w.State = strings.Repeat("a", 129) }, "--subject-state: found"},
		{"a long organisation", func(w *csr.Words) { w.Org = strings.Repeat("a", 65) }, "(O has 65 characters; at most 64 fit)"},
		{"no names", func(w *csr.Words) { w.SANDNS = nil }, "--san-dns: found no subject alternative name; expected at least one; next: give the names and addresses by which clients reach the node with --san-dns and --san-ip"},
		{"a wrong name", func(w *csr.Words) { w.SANDNS = []string{"a_b"} }, `--san-dns: found "a_b", which has "_"`},
	} {
		w := good
		tt.change(&w)
		r, err := w.Request()
		if got := lines(err); len(got) != 1 || !strings.Contains(got[0], tt.want) || !reflect.DeepEqual(r, csr.Request{}) {
			t.Errorf("%s: %q; want %q", tt.name, got, tt.want)
		}
		var p *problem.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: %T is no problem", tt.name, err)
		}
		direct := csr.Request{Algorithm: w.Algorithm, Size: w.KeySizeOrCurve, CommonName: strings.TrimSpace(w.CommonName), Country: w.Country, State: w.State, Organization: w.Org, Names: san.Names{DNS: w.SANDNS}}
		if got := lines(direct.Check()); len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("%s: the request itself says %q; want %q", tt.name, got, tt.want)
		}
	}
	w := good
	w.State = strings.Repeat("ä", 128)
	if _, err := w.Request(); err != nil {
		t.Errorf("a state of 128 characters, RFC 5280's bound: %v", err)
	}
}

// TestAllMistakesAtOnce: of the request's own words and of the names.
func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := csr.Words{Algorithm: "x", Country: "x", SANIP: []string{"x,y"}}.Request()
	var fields []string
	for _, line := range lines(err) {
		field, _, _ := strings.Cut(line, ":")
		fields = append(fields, field)
	}
	if want := []string{"--algo", "--subject-common-name", "--subject-country", "--san-ip", "--san-ip"}; !slices.Equal(fields, want) {
		t.Errorf("fields %q; want %q", fields, want)
	}
}

// TestWordsAreForgiving: case and spaces, and defaults for sizes.
func TestWordsAreForgiving(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ algorithm, size, wantAlgorithm, wantSize string }{
		{"rsa", "", "RSA", "2048"}, {" Ec ", "", "EC", "prime256v1"}, {"ec", "SECP384R1", "EC", "secp384r1"}, {"Ed25519", "", "ED25519", ""}, {"ed448", " ", "ED448", ""},
	} {
		r, err := csr.Words{Algorithm: tt.algorithm, KeySizeOrCurve: tt.size, CommonName: " x ", Country: "de", SANDNS: []string{"x"}}.Request()
		want := csr.Request{Algorithm: tt.wantAlgorithm, Size: tt.wantSize, CommonName: "x", Country: "DE", Names: san.Names{DNS: []string{"x"}}}
		if err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%q %q: %+v, %v; want %+v", tt.algorithm, tt.size, r, err, want)
		}
	}
}

// TestThroughFiles: requests and words go through JSON and strict YAML.
func TestThroughFiles(t *testing.T) {
	t.Parallel()
	r, err := all.Request()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again csr.Request
	if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("through JSON: %v\n%+v\nwant\n%+v", err, again, r)
	}
	if data, err = yaml.Marshal(r); err != nil {
		t.Fatal(err)
	}
	again = csr.Request{}
	if _, err := strictyaml.Decode("request.yaml", data, &again); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("through YAML: %v\n%+v\nwant\n%+v\n%s", err, again, r, data)
	}
	if data, err = yaml.Marshal(all); err != nil {
		t.Fatal(err)
	}
	var words csr.Words
	if _, err := strictyaml.Decode("words.yaml", data, &words); err != nil || !reflect.DeepEqual(words, all) {
		t.Errorf("words through YAML: %v\n%+v\nwant\n%+v\n%s", err, words, all, data)
	}
	if got, err := r.Words().Request(); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("from its own words: %v\n%+v\nwant\n%+v", err, got, r)
	}
	if _, err := strictyaml.Decode("request.yaml", []byte("algorithm: EC\ncommonName: x\nnames: {ip: [a], dirName: [b], rid: [c]}\n"), &again); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three wrong names in YAML: %v", err)
	}
}

// TestWarnings: what may disappoint is said, and nothing else.
func TestWarnings(t *testing.T) {
	t.Parallel()
	uri := san.Names{URI: []string{"urn:x"}}
	for _, tt := range []struct {
		name    string
		request csr.Request
		clients []string
		want    []string // words of each warning, in order
	}{
		{"all well, clients not known", csr.Request{CommonName: "cache.example", Names: san.Names{DNS: []string{"cache.example"}}}, nil, nil},
		{"all well, clients known in many spellings", csr.Request{Algorithm: keys.RSA, CommonName: "Cache.example",
			Names: san.Names{DNS: []string{"cache.example", "xn--bcher-kva.example"}, IP: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}}},
			[]string{"CACHE.example.", "cache.example:8443", "bücher.example", "10.0.0.5", "10.0.0.5:80", "[fd00::5]:443", "[fd00::5]", "::ffff:10.0.0.5", " "}, nil},
		{"a name that no client uses", csr.Request{CommonName: "a.example", Names: san.Names{DNS: []string{"a.example", "b.example"}, IP: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}},
			[]string{"a.example"}, []string{"--san-dns b.example: no client is known to use this name; they use a.example", "--san-ip 10.0.0.5: no client is known"}},
		{"a client's name that is missing", csr.Request{CommonName: "a.example", Names: san.Names{DNS: []string{"a.example"}}},
			[]string{"a.example", "b.example", "10.0.0.5"}, []string{"--san-dns: clients use b.example, which the certificate would not name; they would go past the node", "--san-ip: clients use 10.0.0.5"}},
		{"a wildcard", csr.Request{CommonName: "a.example", Names: san.Names{DNS: []string{"*.example"}}},
			[]string{"a.example"}, []string{"--san-dns *.example: the vendor's (Microsoft Connected Cache) tools refuse wildcards"}},
		{"a wildcard stands for one label", csr.Request{CommonName: "*.example", Names: san.Names{DNS: []string{"*.example"}}},
			[]string{"a.b.example", "example"}, []string{"refuse wildcards", "no client is known", "clients use a.b.example", "clients use example"}},
		{"a common name apart", csr.Request{CommonName: "Cache 7", Names: san.Names{DNS: []string{"a.example"}}}, nil,
			[]string{"--subject-common-name Cache 7: it is not among the alternative names, and clients do not look at the common name; give it with --san-dns too"}},
		{"an address as common name", csr.Request{CommonName: "10.0.0.5", Names: san.Names{DNS: []string{"a.example"}}}, nil, []string{"give it with --san-ip too"}},
		{"no name for clients", csr.Request{CommonName: "x", Names: uri}, nil, []string{"there is no DNS name and no IP address", "--subject-common-name x"}},
		{"names that clients do not look at", csr.Request{CommonName: "x", Names: san.Names{DNS: []string{"x"}, URI: uri.URI, Email: []string{"a@b"}}}, nil,
			[]string{"URI:urn:x, email:a@b: download clients look at DNS names and IP addresses only"}},
		{"addresses of nobody", csr.Request{CommonName: "x", Names: san.Names{DNS: []string{"x"}, IP: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::"), netip.MustParseAddr("fe80::1")}}}, nil,
			[]string{"--san-ip 127.0.0.1: other machines cannot reach", "--san-ip :::", "--san-ip fe80::1"}},
		{"Ed25519", csr.Request{Algorithm: keys.Ed25519, CommonName: "x", Names: san.Names{DNS: []string{"x"}}}, nil, []string{"--algo ED25519: Windows clients cannot use such a key (Schannel has no Ed25519)"}},
		{"Ed448", csr.Request{Algorithm: keys.Ed448, CommonName: "x", Names: san.Names{DNS: []string{"x"}}}, nil,
			[]string{"--algo ED448: neither Go's TLS, which this node serves with, nor Windows' clients can use such a key; HTTPS cannot be switched on with it alone"}},
	} {
		got := tt.request.Warnings(tt.clients)
		ok := len(got) == len(tt.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i], tt.want[i])
		}
		if !ok {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}
