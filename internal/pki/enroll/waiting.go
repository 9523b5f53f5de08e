package enroll

import (
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"larder/internal/pki/csr"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
	"larder/internal/pki/tlsdir"
	"larder/internal/sys/private"
)

// asking is a request with its key.
type asking struct {
	key     crypto.Signer
	keyFile string // in the directory; "" if it is written with its certificate
	der     []byte
}

// ask makes the request: with the key in use if it is to be kept, else with a
// new one. A request that an authority has not answered yet is asked again as it
// was: the authority may wait for a person to approve it, and answers what it
// was asked.
func (r *Renewer) ask(settings *Settings, request csr.Request, current *signing.Current, currentFile string) (asking, error) {
	if !settings.Rotates() && current != nil && !r.revoked() && fits(current.Key, request.Algorithm, request.Size) {
		der, err := request.Create(current.Key)
		return asking{current.Key, currentFile, der}, err
	}
	if a, ok := r.waiting(settings, request); ok {
		return a, nil
	}
	key, err := keys.Generate(request.Algorithm, request.Size)
	if err != nil {
		return asking{}, fmt.Errorf("making a key: %w", err)
	}
	der, err := request.Create(key)
	if err != nil {
		return asking{}, fmt.Errorf("making the request: %w", err)
	}
	return asking{key: key, der: der}, nil
}

// revoked reports whether the certificate in use, or last in use, was: then its
// key may be in other hands.
func (r *Renewer) revoked() bool {
	_, e, _, err := r.Dir.Standing()
	return err == nil && e != nil && e.Revoked != ""
}

// pendingFile holds the key and the request that wait for an answer.
func (r *Renewer) pendingFile(settings *Settings) string {
	return r.path("keys/" + settings.Name + tlsdir.PendingSuffix)
}

// waiting is the request that waits for an answer, if it is for what is wanted
// now.
func (r *Renewer) waiting(settings *Settings, request csr.Request) (asking, bool) {
	text, err := os.ReadFile(r.pendingFile(settings))
	if err != nil {
		return asking{}, false
	}
	key, err := keys.ParsePEM(text)
	if err != nil || !fits(key, request.Algorithm, request.Size) {
		return asking{}, false
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE REQUEST" {
			continue
		}
		parsed, err := csr.Parse(block.Bytes)
		if err != nil || !keys.Same(keys.PublicOfRequest(parsed), key.Public()) {
			return asking{}, false
		}
		was, err := csr.RequestOf(parsed)
		if err != nil || !reflect.DeepEqual(was.Words(), request.Words()) {
			return asking{}, false
		}
		return asking{key: key, der: parsed.Raw}, true
	}
	return asking{}, false
}

// keep remembers a request that was not answered. One that was refused will
// not be: the next is another one.
func (r *Renewer) keep(settings *Settings, a asking, err error) error {
	switch {
	case signing.IsRefused(err):
		return r.forget(settings)
	case a.keyFile != "":
		return nil
	}
	text, err := keys.MarshalPEM(a.key)
	if err != nil {
		return err
	}
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: a.der})...)
	return private.WriteFile(r.pendingFile(settings), text)
}

func (r *Renewer) forget(settings *Settings) error {
	err := os.Remove(r.pendingFile(settings))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
