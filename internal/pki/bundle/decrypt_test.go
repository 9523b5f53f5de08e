package bundle

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

func hmacSHA256(key, message []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(message)
	return m.Sum(nil)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRC2 has those vectors of RFC 2268, section 5, whose effective bits are
// all of the key's.
func TestRC2(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ key, plain, cipher string }{
		{"ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"},
		{"3000000000000000", "1000000000000001", "30649edf9be7d2c2"},
		{"88bca90e90875a7f0f79c384627bafb2", "0000000000000000", "2269552ab0f85ca6"},
	} {
		got, err := decryptRC2(unhex(t, v.key), make([]byte, 8), unhex(t, v.cipher))
		if err != nil || hex.EncodeToString(got) != v.plain {
			t.Errorf("key %s: %x, %v; want %s", v.key, got, err, v.plain)
		}
	}
}

// TestDerive has vectors that circulate among implementations of RFC 7292,
// B.2; the tests with OpenSSL's files are the larger proof.
func TestDerive(t *testing.T) {
	t.Parallel()
	r := newReader("", Options{Password: "sesame"})
	got := derive(sha1.New, forKey, r.passwords()[0].wide, []byte("\xff\xff\xff\xff\xff\xff\xff\xff"), 2048, 24)
	if want := unhex(t, "7cd9fd3e2b3be7691a44e3bef0f9ea0fb9b897d4e325d9d1"); !bytes.Equal(got, want) {
		t.Errorf("%x; want %x", got, want)
	}
}
