package bundle

import (
	"errors"
	"fmt"
)

// mostNested is how deep structures may lie in one another. A certificate in
// a PKCS#12 file has about twenty levels.
const mostNested = 64

var (
	errMalformed = errors.New("this is not ASN.1")
	errNested    = fmt.Errorf("structures nested more than %d deep", mostNested)
)

// truncatedError is about a structure that says it is longer than what is
// there.
type truncatedError struct{ length, there int } // length is 0 where it has no stated one

func (e truncatedError) Error() string {
	if e.length == 0 {
		return fmt.Sprintf("%d bytes are there and the end is missing", e.there)
	}
	return fmt.Sprintf("%d of %d bytes are there", e.there, e.length)
}

// header is the beginning of one ASN.1 value (X.690, 8.1).
type header struct {
	id          int // how many bytes the identifier has
	size        int // how many bytes identifier and length have
	length      int // of the contents; 0 if indefinite
	indefinite  bool
	constructed bool
}

func readHeader(data []byte) (header, error) {
	h := header{id: 1}
	if len(data) < 2 {
		return h, truncatedError{0, len(data)}
	}
	h.constructed = data[0]&0x20 != 0
	if data[0]&0x1f == 0x1f { // a tag of more than 30; none of ours is longer than this
		for h.id < 5 && h.id < len(data) && data[h.id]&0x80 != 0 {
			h.id++
		}
		h.id++
	}
	if h.id >= len(data) {
		return h, truncatedError{0, len(data)}
	}
	h.size = h.id + 1
	switch first := data[h.id]; {
	case first < 0x80:
		h.length = int(first)
	case first == 0x80:
		if !h.constructed {
			return h, errMalformed
		}
		h.indefinite = true
	case first > 0x84:
		return h, errMalformed
	default:
		n := int(first & 0x7f)
		if len(data) < h.size+n {
			return h, truncatedError{0, len(data)}
		}
		length := int64(0)
		for _, b := range data[h.size : h.size+n] {
			length = length<<8 | int64(b)
		}
		if length > 1<<31-1 {
			return h, errMalformed
		}
		h.size, h.length = h.size+n, int(length)
	}
	return h, nil
}

// toDER reads one value in BER and returns it in DER, and what follows it.
// Lengths become definite, and octet strings in pieces one. What was DER stays
// as it is, byte for byte; signatures depend on it.
func toDER(ber []byte) (der, rest []byte, err error) {
	return transcode(nil, ber, mostNested)
}

// transcode appends the first value of ber to out.
func transcode(out, ber []byte, deep int) (der, rest []byte, err error) {
	if deep == 0 {
		return nil, nil, errNested
	}
	h, err := readHeader(ber)
	if err != nil {
		return nil, nil, err
	}
	if h.length > len(ber)-h.size {
		return nil, nil, truncatedError{h.size + h.length, len(ber)}
	}
	id, inside, rest := ber[:h.id], ber[h.size:h.size+h.length], ber[h.size+h.length:]
	if !h.constructed {
		return append(appendHeader(out, id, len(inside)), inside...), rest, nil
	}
	if h.indefinite {
		inside = ber[h.size:]
	}
	var contents []byte
	for {
		if h.indefinite && len(inside) >= 2 && inside[0] == 0 && inside[1] == 0 {
			rest = inside[2:]
			break
		}
		if !h.indefinite && len(inside) == 0 {
			break
		}
		if contents, inside, err = transcode(contents, inside, deep-1); err != nil {
			if cut := (truncatedError{}); !h.indefinite && errors.As(err, &cut) {
				return nil, nil, errMalformed // it is all there, and wrong
			}
			return nil, nil, err
		}
	}
	if len(id) == 1 && id[0] == 0x24 { // an octet string in pieces
		if contents, err = join(contents); err != nil {
			return nil, nil, err
		}
		id = []byte{0x04}
	}
	return append(appendHeader(out, id, len(contents)), contents...), rest, nil
}

// join puts the pieces of an octet string together (X.690, 8.7.3).
func join(pieces []byte) ([]byte, error) {
	var whole []byte
	for len(pieces) > 0 {
		h, err := readHeader(pieces)
		if err != nil || pieces[0] != 0x04 {
			return nil, errMalformed
		}
		whole = append(whole, pieces[h.size:h.size+h.length]...)
		pieces = pieces[h.size+h.length:]
	}
	return whole, nil
}

func appendHeader(out, id []byte, length int) []byte {
	out = append(out, id...)
	switch {
	case length < 0x80:
		return append(out, byte(length))
	case length <= 0xff:
		return append(out, 0x81, byte(length))
	case length <= 0xffff:
		return append(out, 0x82, byte(length>>8), byte(length))
	case length <= 0xffffff:
		return append(out, 0x83, byte(length>>16), byte(length>>8), byte(length))
	}
	return append(out, 0x84, byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
}
