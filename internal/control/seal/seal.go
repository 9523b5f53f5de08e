// Package seal encrypts the secrets that the control plane must be able to read
// again (keys of its authority, of customers, of channels) before they go into
// the database, with a key that is not in it.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"larder/internal/sys/private"
)

// keySize is that of AES-256.
const keySize = 32

// Key seals and opens. It may be used by several goroutines.
type Key struct {
	aead cipher.AEAD
}

// ErrWrongKey: what is to be opened was sealed with another key, for another
// purpose, or was changed.
var ErrWrongKey = errors.New("sealed with another key, or changed since: is the key file the one this database was made with?")

// Open reads the key of a file, 64 hexadecimal digits, and makes the file if it
// is not there and make is true. All replicas need the same.
func Open(file string, make bool) (*Key, error) {
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && make:
		raw := newKey()
		if err := private.WriteFile(file, []byte(hex.EncodeToString(raw)+"\n")); err != nil {
			return nil, fmt.Errorf("writing the key that seals secrets: %w", err)
		}
		return New(raw)
	case err != nil:
		return nil, fmt.Errorf("reading the key that seals secrets: %w", err)
	}
	if found, loose := private.Loose(file); loose {
		return nil, fmt.Errorf("key file %s: found %s, expected that only the control plane's account may read it", file, found)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != keySize {
		return nil, fmt.Errorf("key file %s: expected %d hexadecimal digits on one line", file, 2*keySize)
	}
	return New(raw)
}

func newKey() []byte {
	raw := make([]byte, keySize)
	rand.Read(raw)
	return raw
}

// New makes a Key of 32 bytes.
func New(raw []byte) (*Key, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Key{aead}, nil
}

// format is the first byte of what Seal returns.
const format = 1

// Seal encrypts plain (AES-256-GCM, random nonce). Only an Open with the same
// context, such as the name of the column and the row, gives it back.
func (k *Key) Seal(plain, context []byte) ([]byte, error) {
	return k.aead.Seal([]byte{format}, nil, plain, context), nil
}

// Open decrypts what Seal returned. Errors: ErrWrongKey.
func (k *Key) Open(sealed, context []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != format {
		return nil, ErrWrongKey
	}
	plain, err := k.aead.Open(nil, nil, sealed[1:], context)
	if err != nil {
		return nil, ErrWrongKey
	}
	return plain, nil
}
