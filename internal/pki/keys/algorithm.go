package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"

	"larder/internal/pki/ed448"
)

// AlgorithmOf is the algorithm and size that Generate makes such a key with. A
// size that is none of Sizes is the key's own; "" is a kind unknown here.
func AlgorithmOf(public crypto.PublicKey) (algorithm, size string) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return RSA, fmt.Sprint(k.N.BitLen())
	case *ecdsa.PublicKey:
		switch k.Params().Name {
		case "P-256":
			return EC, "prime256v1"
		case "P-384":
			return EC, "secp384r1"
		}
		return EC, k.Params().Name
	case ed25519.PublicKey:
		return Ed25519, ""
	case ed448.PublicKey:
		return Ed448, ""
	}
	return "", ""
}
