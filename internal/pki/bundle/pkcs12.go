package bundle

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"larder/internal/pki/keys"
)

// pfxDER is PFX (RFC 7292, section 4).
type pfxDER struct {
	Version  int
	AuthSafe contentInfoDER
	MAC      macData `asn1:"optional"`
}

type encryptedData struct { // RFC 5652, section 8
	Version int
	Content struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Data      asn1.RawValue `asn1:"optional,tag:0"`
	}
	Attributes asn1.RawValue `asn1:"optional,tag:1"`
}

type safeBag struct { // RFC 7292, section 4.2
	ID         asn1.ObjectIdentifier
	Value      asn1.RawValue `asn1:"explicit,tag:0"`
	Attributes asn1.RawValue `asn1:"optional,set"`
}

type certBag struct { // RFC 7292, section 4.2.3
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"explicit,tag:0"`
}

type encryptedPrivateKeyInfo struct { // RFC 5958, section 3
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

var (
	oidKeyBag          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedKeyBag  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidCRLBag          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 4}
	oidSafeContentsBag = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 6}
	oidX509Certificate = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
)

const (
	inPFX       = "a PKCS#12 file"
	damagedPFX  = "a PKCS#12 file that cannot be read"
	wantedPFX   = "PKCS#12 as RFC 7292 has it"
	exportAgain = "export it again, with a password"
)

// mostSafes is how deep a PKCS#12 file may put bags into bags.
const mostSafes = 4

// pkcs12 reads a PFX: first its MAC, which tells a wrong password from a
// damaged file, then one safe after the other. All work of deriving keys is
// counted before it is done, wherever the counts stand.
func (r *reader) pkcs12(der []byte) error {
	r.b.Format = "PKCS#12"
	var p pfxDER
	if err := unmarshal(der, &p); err != nil {
		return r.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	if p.AuthSafe.Type.Equal(oidSignedData) {
		return r.problem("a PKCS#12 file signed with a certificate instead of a password", wantedPFX+", with a password", exportAgain)
	}
	if p.Version != 3 || !p.AuthSafe.Type.Equal(oidData) {
		return r.problem(fmt.Sprintf("a PKCS#12 file of version %d with contents of the kind %s", p.Version, line(p.AuthSafe.Type.String(), "?")), wantedPFX+", version 3", exportAgain)
	}
	var content []byte
	if err := unmarshal(p.AuthSafe.Content.Bytes, &content); err != nil {
		return r.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	s := safe{reader: r, passwords: r.passwords()}
	if len(p.MAC.MAC.Algorithm.Algorithm) > 0 {
		good, err := r.verifyMAC(p.MAC, content, s.passwords)
		if err != nil {
			return r.undecrypted(err, inPFX)
		}
		s.passwords, s.sure = []password{good}, true
	}
	var safes []contentInfoDER
	if err := unmarshalBER(content, &safes); err != nil {
		return r.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	for _, info := range safes {
		if err := s.open(info); err != nil {
			return err
		}
	}
	return nil
}

// unmarshalBER is unmarshal for what may be BER.
func unmarshalBER(ber []byte, v any) error {
	der, rest, err := toDER(ber)
	if err == nil && len(rest) > 0 {
		err = errMalformed
	}
	if err != nil {
		return err
	}
	return unmarshal(der, v)
}

// safe is a PKCS#12 file being read.
type safe struct {
	*reader
	passwords []password
	sure      bool // the MAC says that the password is right
}

// open reads one of the safes.
func (s *safe) open(info contentInfoDER) error {
	var contents []byte
	switch {
	case info.Type.Equal(oidData):
		if err := unmarshal(info.Content.Bytes, &contents); err != nil {
			return s.because(err, damagedPFX, wantedPFX, copyAgain)
		}
	case info.Type.Equal(oidEncryptedData):
		var e encryptedData
		if err := unmarshal(info.Content.Bytes, &e); err != nil {
			return s.because(err, damagedPFX, wantedPFX, copyAgain)
		}
		data := e.Content.Data.Bytes
		if e.Content.Data.IsCompound { // in pieces; the tag hides it from toDER
			var err error
			if data, err = join(data); err != nil {
				return s.because(err, damagedPFX, wantedPFX, copyAgain)
			}
		}
		var err error
		if contents, err = s.plain(e.Content.Algorithm, data); err != nil {
			return err
		}
	case info.Type.Equal(oidEnvelopedData):
		return s.problem("a PKCS#12 file protected for accounts or certificates instead of by a password", wantedPFX+", with a password",
			"export it again and choose a password, not a group or user name")
	default:
		return s.problem("a PKCS#12 file with contents of the kind "+line(info.Type.String(), "?"), wantedPFX, exportAgain)
	}
	return s.bags(contents, mostSafes)
}

// plain decrypts a part of the file.
func (s *safe) plain(algorithm pkix.AlgorithmIdentifier, data []byte) ([]byte, error) {
	plain, err := s.decrypt(algorithm, data, s.passwords)
	switch {
	case err == nil:
		return plain, nil
	case errors.Is(err, ErrPassword) && s.sure:
		return nil, s.because(passwordError("its checksum is right for the password, a part of it is encrypted with another"), inPFX, "one password for all of it", exportAgain)
	}
	return nil, s.undecrypted(err, inPFX)
}

// bags reads SafeContents.
func (s *safe) bags(contents []byte, deep int) error {
	if deep == 0 {
		return s.problem("a PKCS#12 file with bags in bags in bags", wantedPFX, exportAgain)
	}
	var bags []safeBag
	if err := unmarshalBER(contents, &bags); err != nil {
		return s.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	for _, b := range bags {
		var err error
		switch {
		case b.ID.Equal(oidKeyBag):
			err = s.key(b.Value.Bytes, keys.ParsePKCS8)
		case b.ID.Equal(oidShroudedKeyBag):
			err = s.shrouded(b.Value.Bytes)
		case b.ID.Equal(oidCertBag):
			err = s.certBag(b.Value.Bytes)
		case b.ID.Equal(oidCRLBag):
			s.other("a revocation list (CRL)")
		case b.ID.Equal(oidSafeContentsBag):
			err = s.bags(b.Value.Bytes, deep-1)
		default:
			s.other("a secret that is neither key nor certificate")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *safe) shrouded(der []byte) error {
	var info encryptedPrivateKeyInfo
	if err := unmarshal(der, &info); err != nil {
		return s.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	plain, err := s.plain(info.Algorithm, info.Data)
	if err != nil {
		return err
	}
	return s.key(plain, keys.ParsePKCS8)
}

func (s *safe) certBag(der []byte) error {
	var bag certBag
	var cert []byte
	if err := unmarshal(der, &bag); err != nil {
		return s.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	if !bag.ID.Equal(oidX509Certificate) {
		s.other("a certificate that is not X.509")
		return nil
	}
	if err := unmarshal(bag.Value.Bytes, &cert); err != nil {
		return s.because(err, damagedPFX, wantedPFX, copyAgain)
	}
	return s.reader.cert(cert)
}
