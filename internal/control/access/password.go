package access

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// The cost of a password: argon2id with the second of the two parameter sets
// that OWASP's cheat sheet recommends, which takes some 30 ms and 19 MiB. More
// memory would let a handful of log-ins at once push a small machine into swap.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32

	// hashers bounds the memory that log-ins take together.
	hashers = 4
	// maxHashing bounds how many wait: whoever floods the form must not make
	// everybody else wait for minutes.
	maxHashing = 100
)

var errBusy = &Refusal{Status: http.StatusServiceUnavailable, Code: "ServerBusy", Message: "Too many people sign in at this moment; try again in a few seconds.", RetryAfter: 3 * time.Second}

// MinPassword is the shortest password, in characters. There are no other rules:
// they make passwords worse (NIST SP 800-63B, section 3.1.1.2).
const MinPassword = 12

func checkPassword(p string) error {
	switch n := utf8.RuneCountInString(p); {
	case n < MinPassword:
		return invalid("password", "found %d characters, expected at least %d", n, MinPassword)
	case len(p) > 1024:
		return invalid("password", "found %d bytes, expected 1024 at most", len(p))
	}
	return nil
}

// hashPassword writes a password as a PHC string.
func (s *Service) hashPassword(ctx context.Context, password string) (string, error) {
	var salt [16]byte
	rand.Read(salt[:])
	key, err := s.argon(ctx, password, phc{argonMemory, argonTime, argonThreads, salt[:], make([]byte, argonKey)})
	if err != nil {
		return "", err
	}
	return phc{argonMemory, argonTime, argonThreads, salt[:], key}.String(), nil
}

// argon hashes when it is its turn.
func (s *Service) argon(ctx context.Context, password string, p phc) ([]byte, error) {
	defer s.hashing.Add(-1)
	if s.hashing.Add(1) > maxHashing {
		return nil, errBusy
	}
	select {
	case s.hash <- struct{}{}:
		defer func() { <-s.hash }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, uint32(len(p.key))), nil
}

// phc is a password's hash: $argon2id$v=19$m=…,t=…,p=…$salt$key.
type phc struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

func (p phc) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.threads,
		base64.RawStdEncoding.EncodeToString(p.salt), base64.RawStdEncoding.EncodeToString(p.key))
}

// parsePHC reads a hash. What would cost too much to check is an error.
func parsePHC(text string) (phc, error) {
	var p phc
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, fmt.Errorf("not a hash of argon2id")
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil || n != 3 ||
		p.memory < 8 || p.memory > 256<<10 || p.time < 1 || p.time > 16 || p.threads < 1 || p.threads > 16 {
		return p, fmt.Errorf("parameters of argon2id that are not ours")
	}
	var err error
	if p.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(p.salt) < 8 || len(p.salt) > 64 {
		return p, fmt.Errorf("no salt")
	}
	if p.key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(p.key) < 16 || len(p.key) > 64 {
		return p, fmt.Errorf("no key")
	}
	return p, nil
}

// unknownUser is checked against when there is no such user, so that the answer
// takes as long.
var unknownUser = phc{argonMemory, argonTime, argonThreads, make([]byte, 16), make([]byte, argonKey)}

// isPassword reports whether a password is the one of a hash. It takes the same
// time for an empty hash.
func (s *Service) isPassword(ctx context.Context, hash, password string) (bool, error) {
	p, err := parsePHC(hash)
	known := err == nil
	if !known {
		p = unknownUser
	}
	key, err := s.argon(ctx, password, p)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, p.key) == 1 && known, nil
}
