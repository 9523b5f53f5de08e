package bundle

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// seeds are one file of each form, see testdata/seeds.
func seeds(f *testing.F) {
	names, err := filepath.Glob("testdata/seeds/*")
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
		var wide []byte
		for _, b := range data {
			wide = binary.LittleEndian.AppendUint16(wide, uint16(b))
		}
		f.Add(wide)
	}
	f.Add(pfxOf(f, mac(f, oidSHA2+"1", big.NewInt(100)), plainSafe(f)))
	f.Add(pfxOf(f, pbmac(f, big.NewInt(100), 32), plainSafe(f)))
	f.Add([]byte("-----BEGIN X-----\n-----END X-----"))
}

// FuzzParse: nothing that a file has makes Parse panic, hang or forget what
// is wrong, and what it read can be written and read again.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, o := range []Options{{}, {Password: "right", HasPassword: true}, {Key: true}} {
			r := newReader("file", o)
			r.work = 10_000
			b, err := r.parse(data)
			if r.work < 0 {
				t.Fatalf("more work than there was: %d", r.work)
			}
			if err != nil {
				var p *problem.Problem
				if !errors.As(err, &p) || p.Field == "" || p.Found == "" || p.Expected == "" || p.Next == "" || b != nil {
					t.Fatalf("not a whole Problem: %#v", err)
				}
				if bytes.ContainsFunc([]byte(err.Error()), func(r rune) bool { return r < ' ' }) {
					t.Fatalf("a message with control characters: %q", err)
				}
				continue
			}
			if b.Format == "" || b.Encoding == "" || len(b.Certs)+len(b.Keys) == 0 {
				t.Fatalf("nothing, and no error: %+v", b)
			}
			for _, c := range b.Certs {
				chain, unused, err := b.Chain(keys.PublicOf(c))
				if err != nil {
					continue // a key of a kind unknown here
				}
				if len(chain) == 0 || len(chain)+len(unused) != len(b.Certs) {
					t.Fatalf("%d in the chain, %d unused, of %d", len(chain), len(unused), len(b.Certs))
				}
			}
			b.Leafs()
			if len(b.Certs) == 0 {
				continue
			}
			again, err := Parse("again", Encode(b.Certs), Options{})
			if err != nil || !slices.EqualFunc(again.Certs, b.Certs, (*x509.Certificate).Equal) {
				t.Fatalf("written and read again: %v", err)
			}
		}
	})
}

// FuzzToDER: what is DER stays as it is, and what comes out is DER.
func FuzzToDER(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		der, rest, err := toDER(data)
		if err != nil {
			return
		}
		if len(rest) > len(data) || !bytes.HasSuffix(data, rest) {
			t.Fatal("what follows is not what followed")
		}
		again, rest, err := toDER(der)
		if err != nil || len(rest) > 0 || !bytes.Equal(again, der) {
			t.Fatalf("%x becomes %x: %v", der, again, err)
		}
	})
}

// FuzzPEM: DER is read alike whether it is wrapped in PEM or not.
func FuzzPEM(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) == 0 || len(der) > 100_000 || der[0] != 0x30 {
			return
		}
		plain, errPlain := Parse("file", der, Options{Password: "right"})
		wrapped, errWrapped := Parse("file", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Options{Password: "right"})
		if (errPlain == nil) != (errWrapped == nil) {
			if _, text := decodeText(der); !text && startsDER(der) {
				t.Fatalf("as DER %v, in PEM %v", errPlain, errWrapped)
			}
			return
		}
		if errPlain == nil && startsDER(der) && (len(plain.Certs) != len(wrapped.Certs) || len(plain.Keys) != len(wrapped.Keys)) {
			t.Fatalf("as DER %+v, in PEM %+v", plain, wrapped)
		}
	})
}
