package bundle_test

import (
	"encoding/asn1"
	"testing"
)

// toBER writes DER as BER writers do that do not know lengths beforehand:
// all that is constructed becomes indefinite, and octet strings pieces. What
// lies below a certificate's level stays, since signatures depend on it.
func toBER(t testing.TB, der []byte) []byte {
	t.Helper()
	return indefinite(t, der, 5)
}

func indefinite(t testing.TB, der []byte, deep int) (ber []byte) {
	t.Helper()
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			t.Fatal(err)
		}
		der = rest
		switch {
		case deep == 0, !v.IsCompound && (v.Tag != asn1.TagOctetString || v.Class != asn1.ClassUniversal):
			ber = append(ber, v.FullBytes...)
		case !v.IsCompound:
			ber = append(ber, 0x24, 0x80)
			for bytes := v.Bytes; len(bytes) > 0; {
				n := min(len(bytes), 100)
				ber = append(append(ber, 0x04, byte(n)), bytes[:n]...)
				bytes = bytes[n:]
			}
			ber = append(ber, 0, 0)
		default:
			ber = append(ber, v.FullBytes[0], 0x80)
			ber = append(append(ber, indefinite(t, v.Bytes, deep-1)...), 0, 0)
		}
	}
	return ber
}
