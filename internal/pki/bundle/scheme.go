package bundle

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"

	"golang.org/x/crypto/scrypt"
)

// scheme is an algorithm with its parameters.
type scheme struct {
	cost  work
	wide  bool
	block int
	open  func(secret, data []byte) ([]byte, error) // padding included
}

type pbeParams struct { // RFC 7292, appendix C; RFC 8018, A.3
	Salt   []byte
	Rounds *big.Int
}

type pbes2Params struct { // RFC 8018, A.4
	KDF, Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct { // RFC 8018, A.2
	Salt   asn1.RawValue
	Rounds *big.Int
	Length int                      `asn1:"optional"`
	PRF    pkix.AlgorithmIdentifier `asn1:"optional"`
}

type scryptParams struct { // RFC 7914, section 7
	Salt   []byte
	N      *big.Int
	R      *big.Int
	P      *big.Int
	Length int `asn1:"optional"`
}

// Where the identifiers of algorithms begin.
const (
	oidHMAC   = "1.2.840.113549.2."
	oidSHA2   = "2.16.840.1.101.3.4.2."
	oidAES    = "2.16.840.1.101.3.4.1."
	oidPKCS5  = "1.2.840.113549.1.5."
	oidPKCS12 = "1.2.840.113549.1.12.1."
)

func hashOf(oid asn1.ObjectIdentifier) func() hash.Hash {
	switch oid.String() {
	case "1.3.14.3.2.26", oidHMAC + "7":
		return sha1.New
	case oidSHA2 + "4", oidHMAC + "8":
		return sha256.New224
	case oidSHA2 + "1", oidHMAC + "9":
		return sha256.New
	case oidSHA2 + "2", oidHMAC + "10":
		return sha512.New384
	case oidSHA2 + "3", oidHMAC + "11":
		return sha512.New
	}
	return nil
}

// decrypter is a cipher in CBC mode.
type decrypter func(key, iv, data []byte) ([]byte, error)

func cbc(create func(key []byte) (cipher.Block, error)) decrypter {
	return func(key, iv, data []byte) ([]byte, error) {
		b, err := create(key)
		if err != nil {
			return nil, err
		}
		plain := make([]byte, len(data))
		cipher.NewCBCDecrypter(b, iv).CryptBlocks(plain, data)
		return plain, nil
	}
}

func schemeOf(algorithm pkix.AlgorithmIdentifier) (scheme, error) {
	oid := algorithm.Algorithm.String()
	switch oid {
	case oidPKCS5 + "13":
		return pbes2(algorithm.Parameters.FullBytes)
	case oidPKCS5 + "3":
		return pbes1(algorithm.Parameters.FullBytes, md5.New)
	case oidPKCS5 + "10":
		return pbes1(algorithm.Parameters.FullBytes, sha1.New)
	case oidPKCS12 + "3":
		return pbe12(algorithm.Parameters.FullBytes, 24, cbc(des.NewTripleDESCipher))
	case oidPKCS12 + "4":
		return pbe12(algorithm.Parameters.FullBytes, 16, func(key, iv, data []byte) ([]byte, error) {
			return cbc(des.NewTripleDESCipher)(append(key[:16:16], key[:8]...), iv, data)
		})
	case oidPKCS12 + "5":
		return pbe12(algorithm.Parameters.FullBytes, 16, decryptRC2)
	case oidPKCS12 + "6":
		return pbe12(algorithm.Parameters.FullBytes, 5, decryptRC2)
	}
	return scheme{}, unknownScheme("encryption", algorithm.Algorithm)
}

// pbe12 is PKCS#12's own way (RFC 7292, appendix C), always with SHA-1.
func pbe12(parameters []byte, size int, open decrypter) (scheme, error) {
	var p pbeParams
	if err := unmarshal(parameters, &p); err != nil {
		return scheme{}, err
	}
	rounds, c, err := cost(p.Rounds, (size+sha1.Size-1)/sha1.Size+1, sha1.New)
	return scheme{c, true, 8, func(secret, data []byte) ([]byte, error) {
		return open(derive(sha1.New, forKey, secret, p.Salt, rounds, size), derive(sha1.New, forIV, secret, p.Salt, rounds, 8), data)
	}}, err
}

// pbes1 is PKCS#5's old way with DES (RFC 8018, sections 5.1 and 6.1).
func pbes1(parameters []byte, h func() hash.Hash) (scheme, error) {
	var p pbeParams
	if err := unmarshal(parameters, &p); err != nil {
		return scheme{}, err
	}
	rounds, c, err := cost(p.Rounds, 1, h)
	return scheme{c, false, des.BlockSize, func(secret, data []byte) ([]byte, error) {
		t := append(bytes.Clone(secret), p.Salt...)
		for range rounds {
			sum := h()
			sum.Write(t)
			t = sum.Sum(t[:0])
		}
		return cbc(des.NewCipher)(t[:8], t[8:16], data)
	}}, err
}

// pbes2 is RFC 8018, section 6.2.
func pbes2(parameters []byte) (s scheme, err error) {
	var p pbes2Params
	if err := unmarshal(parameters, &p); err != nil {
		return scheme{}, err
	}
	var size int
	var open decrypter
	switch p.Cipher.Algorithm.String() {
	case oidAES + "2":
		size, s.block, open = 16, aes.BlockSize, cbc(aes.NewCipher)
	case oidAES + "22":
		size, s.block, open = 24, aes.BlockSize, cbc(aes.NewCipher)
	case oidAES + "42":
		size, s.block, open = 32, aes.BlockSize, cbc(aes.NewCipher)
	case "1.2.840.113549.3.7":
		size, s.block, open = 24, des.BlockSize, cbc(des.NewTripleDESCipher)
	default:
		return scheme{}, unknownScheme("cipher", p.Cipher.Algorithm)
	}
	var iv []byte
	if err := unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != s.block {
		return scheme{}, errors.New("a cipher without its initialisation vector")
	}
	kdf, c, err := kdfOf(p.KDF, size)
	if err != nil {
		return scheme{}, err
	}
	s.cost = c
	s.open = func(secret, data []byte) ([]byte, error) {
		key, err := kdf(secret)
		if err != nil {
			return nil, err
		}
		return open(key, iv, data)
	}
	return s, nil
}

// kdfOf is PBKDF2 (RFC 8018, section 5.2) or scrypt (RFC 7914).
func kdfOf(algorithm pkix.AlgorithmIdentifier, size int) (func(secret []byte) ([]byte, error), work, error) {
	switch algorithm.Algorithm.String() {
	case oidPKCS5 + "12":
		var p pbkdf2Params
		if err := unmarshal(algorithm.Parameters.FullBytes, &p); err != nil {
			return nil, 0, err
		}
		if p.Salt.Class != asn1.ClassUniversal || p.Salt.Tag != asn1.TagOctetString {
			return nil, 0, schemeError("a salt that comes from elsewhere")
		}
		h := sha1.New // the default
		if len(p.PRF.Algorithm) > 0 {
			if h = hashOf(p.PRF.Algorithm); h == nil {
				return nil, 0, unknownScheme("hash", p.PRF.Algorithm)
			}
		}
		blocks := (size + h().Size() - 1) / h().Size()
		rounds, c, err := cost(p.Rounds, blocks, h)
		return func(secret []byte) ([]byte, error) {
			return pbkdf2.Key(h, string(secret), p.Salt.Bytes, rounds, size)
		}, c, err
	case "1.3.6.1.4.1.11591.4.11":
		var p scryptParams
		if err := unmarshal(algorithm.Parameters.FullBytes, &p); err != nil {
			return nil, 0, err
		}
		return scryptOf(p, size)
	}
	return nil, 0, unknownScheme("key derivation", algorithm.Algorithm)
}

func scryptOf(p scryptParams, size int) (func(secret []byte) ([]byte, error), work, error) {
	for _, n := range []*big.Int{p.N, p.R, p.P} {
		if n.Sign() <= 0 {
			return nil, 0, errors.New("a parameter of scrypt below 1")
		}
	}
	memory := new(big.Int).Mul(p.N, p.R)
	rounds := new(big.Int).Mul(memory, p.P)
	blocks := new(big.Int).Mul(p.R, p.P)
	for _, m := range []*big.Int{memory, blocks} {
		if m.Cmp(big.NewInt(mostMemory/128)) > 0 {
			return nil, 0, workError(fmt.Sprintf("it asks for scrypt with N=%s, r=%s, p=%s, more than %d MiB of memory", digits(p.N), digits(p.R), digits(p.P), mostMemory>>20))
		}
	}
	if rounds.Cmp(big.NewInt(int64(mostWork)/2)) > 0 {
		return nil, 0, workError(fmt.Sprintf("it asks for scrypt with N=%s, r=%s, p=%s", digits(p.N), digits(p.R), digits(p.P)))
	}
	return func(secret []byte) ([]byte, error) {
		return scrypt.Key(secret, p.Salt, int(p.N.Int64()), int(p.R.Int64()), int(p.P.Int64()), size)
	}, work(2 * rounds.Int64()), nil
}
