package bundle

import (
	"bytes"
	"crypto/hmac"
	"crypto/x509/pkix"
	"fmt"
	"hash"
	"math/big"
)

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

type macData struct { // RFC 7292, section 4
	MAC    digestInfo
	Salt   []byte
	Rounds *big.Int `asn1:"optional"`
}

// verifyMAC returns the password with which the checksum of a PKCS#12 file is
// right: RFC 7292, section 4, or PBMAC1 (RFC 9579).
func (r *reader) verifyMAC(m macData, content []byte, all []password) (password, error) {
	oid := m.MAC.Algorithm.Algorithm
	if oid.String() == oidPKCS5+"14" {
		return r.verifyPBMAC1(m, content, all)
	}
	h := hashOf(oid)
	if h == nil {
		return password{}, unknownScheme("checksum", oid)
	}
	if m.Rounds == nil {
		m.Rounds = big.NewInt(1)
	}
	rounds, c, err := cost(m.Rounds, 1, h)
	if err != nil {
		return password{}, err
	}
	return r.attempt(c, all, func(p password) (bool, error) {
		return sums(h, derive(h, forMAC, p.wide, m.Salt, rounds, h().Size()), content, m.MAC.Digest), nil
	})
}

func (r *reader) verifyPBMAC1(m macData, content []byte, all []password) (password, error) {
	var p pbes2Params // PBMAC1-params has the same form (RFC 8018, A.5)
	if err := unmarshal(m.MAC.Algorithm.Parameters.FullBytes, &p); err != nil {
		return password{}, err
	}
	var k pbkdf2Params
	if err := unmarshal(p.KDF.Parameters.FullBytes, &k); err != nil {
		return password{}, err
	}
	if k.Length < 20 || k.Length > 64 { // RFC 9579, section 5: a short key could be guessed
		return password{}, fmt.Errorf("a checksum with a key of %d bytes", k.Length)
	}
	h := hashOf(p.Cipher.Algorithm)
	if h == nil {
		return password{}, unknownScheme("checksum", p.Cipher.Algorithm)
	}
	kdf, c, err := kdfOf(p.KDF, k.Length)
	if err != nil {
		return password{}, err
	}
	return r.attempt(c, all[:1], func(p password) (bool, error) {
		key, err := kdf([]byte(p.narrow))
		return err == nil && sums(h, key, content, m.MAC.Digest), err
	})
}

func sums(h func() hash.Hash, key, content, want []byte) bool {
	mac := hmac.New(h, key)
	mac.Write(content)
	return hmac.Equal(mac.Sum(nil), want)
}

// What derive derives.
const (
	forKey = 1
	forIV  = 2
	forMAC = 3
)

// derive is the key derivation of RFC 7292, appendix B.2.
func derive(h func() hash.Hash, what byte, secret, salt []byte, rounds, size int) []byte {
	sum := h()
	block := sum.BlockSize()
	diversifier := bytes.Repeat([]byte{what}, block)
	in := append(filled(salt, block), filled(secret, block)...)
	var out []byte
	for {
		sum.Reset()
		sum.Write(diversifier)
		sum.Write(in)
		a := sum.Sum(nil)
		for range rounds - 1 {
			sum.Reset()
			sum.Write(a)
			a = sum.Sum(a[:0])
		}
		if out = append(out, a...); len(out) >= size {
			return out[:size]
		}
		b := filled(a, block)[:block]
		for j := 0; j < len(in); j += block { // each block of in becomes itself + b + 1
			carry := 1
			for k := block - 1; k >= 0; k-- {
				carry += int(in[j+k]) + int(b[k])
				in[j+k] = byte(carry)
				carry >>= 8
			}
		}
	}
}

// filled repeats pattern up to a multiple of block.
func filled(pattern []byte, block int) []byte {
	if len(pattern) == 0 {
		return nil
	}
	size := (len(pattern) + block - 1) / block * block
	return bytes.Repeat(pattern, (size+len(pattern)-1)/len(pattern))[:size]
}
