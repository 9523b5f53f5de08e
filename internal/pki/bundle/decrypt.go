package bundle

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"hash"
	"math/big"
	"unicode/utf16"
)

// work is what deriving keys costs, in rounds of PBKDF2 with SHA-256: about
// 0.25 µs each on a server of 2024.
type work int64

// mostWork is what one file may cost in all, wrong passwords included: 2.5 s
// there, and 5 s on a machine of half that speed. Usual files cost less than a
// hundredth of it.
const mostWork work = 10_000_000

// mostMemory is what scrypt may take, four times what OpenSSL asks for.
const mostMemory = 64 << 20

// workError is about more than that.
type workError string

func (e workError) Error() string { return string(e) }

// schemeError is about an algorithm that nobody here knows.
type schemeError string

func (e schemeError) Error() string { return string(e) }

func unknownScheme(what string, oid asn1.ObjectIdentifier) error {
	return schemeError("the " + what + " " + line(oid.String(), "?") + " is not known here")
}

// password is one way of writing a password down as bytes.
type password struct {
	wide   []byte // what PKCS#12's own derivation takes (RFC 7292, B.1)
	narrow string // what PKCS#5 takes
}

// passwords are the ways in which others write the given password, the
// standard's first.
func (r *reader) passwords() []password {
	given := r.o.Password
	var wide []byte
	ascii := true
	for _, unit := range utf16.Encode([]rune(given)) {
		wide = append(wide, byte(unit>>8), byte(unit))
		ascii = ascii && unit < 0x80
	}
	all := []password{{append(wide, 0, 0), given}}
	if given == "" {
		all = append(all, password{nil, given}) // no password, as opposed to an empty one
	}
	if !ascii { // OpenSSL before 1.1, and later ones in an unfit locale: one unit for each byte
		var wide []byte
		for i := range len(given) {
			wide = append(wide, 0, given[i])
		}
		all = append(all, password{append(wide, 0, 0), given})
	}
	return all
}

// cost is the work of one attempt: blocks of h, each with so many rounds. It
// is an error if the file could not pay for a single one.
func cost(rounds *big.Int, blocks int, h func() hash.Hash) (int, work, error) {
	if rounds.Sign() <= 0 {
		return 0, 0, fmt.Errorf("%s rounds of key derivation", digits(rounds))
	}
	factor := int64(blocks)
	if h().BlockSize() > 64 {
		factor *= 3 // SHA-384 and SHA-512
	}
	if !rounds.IsInt64() || rounds.Int64() > int64(mostWork)/factor {
		return 0, 0, workError("it asks for " + digits(rounds) + " rounds of key derivation")
	}
	return int(rounds.Int64()), work(rounds.Int64() * factor), nil
}

func digits(n *big.Int) string {
	if n.BitLen() > 100 {
		return fmt.Sprintf("2^%d", n.BitLen()-1)
	}
	return n.String()
}

// attempt calls try with one password after the other, as far as the work
// that each costs is left. It returns ErrPassword if none is right.
func (r *reader) attempt(each work, all []password, try func(password) (bool, error)) (password, error) {
	for i, p := range all {
		if each > r.work {
			if i > 0 {
				break
			}
			return password{}, workError(fmt.Sprintf("its parts together ask for more than %d rounds of key derivation", mostWork))
		}
		r.work -= each
		if ok, err := try(p); ok || err != nil {
			return p, err
		}
	}
	return password{}, ErrPassword
}

// decrypt decrypts data, which then is a sequence in DER or BER.
func (r *reader) decrypt(algorithm pkix.AlgorithmIdentifier, data []byte, all []password) (plain []byte, err error) {
	s, err := schemeOf(algorithm)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || len(data)%s.block != 0 {
		return nil, fmt.Errorf("%d encrypted bytes, which are no whole blocks", len(data))
	}
	if !s.wide {
		all = all[:1] // they differ in the wide form only
	}
	_, err = r.attempt(s.cost, all, func(p password) (bool, error) {
		secret := []byte(p.narrow)
		if s.wide {
			secret = p.wide
		}
		padded, err := s.open(secret, data)
		if err != nil {
			return false, err
		}
		plain = unpad(padded, s.block)
		return isSequence(plain), nil
	})
	return plain, err
}

// unpad takes the padding off (RFC 5652, section 6.3); nil if it is wrong.
func unpad(data []byte, block int) []byte {
	n := int(data[len(data)-1])
	if n == 0 || n > block || !bytes.Equal(data[len(data)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil
	}
	return data[:len(data)-n]
}

// isSequence says whether data is all of one sequence. With the padding it
// tells a wrong password where there is no checksum.
func isSequence(data []byte) bool {
	if len(data) == 0 || data[0] != 0x30 {
		return false
	}
	h, err := readHeader(data)
	return err == nil && (h.indefinite || h.size+h.length == len(data))
}
