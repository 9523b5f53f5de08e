// Package acme gets certificates signed by a CA that speaks ACME (RFC 8555),
// public or private, for names and for addresses (RFC 8738).
package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
	"larder/internal/sys/durable"
)

// The ways to prove that a name or an address is ours.
const (
	HTTP01    = "http-01"     // RFC 8555, section 8.3: a file on port 80
	TLSALPN01 = "tls-alpn-01" // RFC 8737: a handshake on port 443
	DNS01     = "dns-01"      // RFC 8555, section 8.4: a TXT record
)

// Way is one kind of challenge with what answers it.
type Way struct {
	Challenge string // HTTP01, TLSALPN01 or DNS01
	Solver    Solver
}

// EAB binds a new account to one that somebody has with the CA already
// (external account binding, RFC 8555, section 7.3.4).
type EAB struct {
	KeyID   string
	HMACKey string `json:"-"` // base64url, as CAs hand it out; secret
}

func (e EAB) String() string { return "external account " + e.KeyID }

// GoString hides the key from %#v.
func (e EAB) GoString() string { return e.String() }

// LogValue hides the key from logs.
func (e EAB) LogValue() slog.Value { return slog.StringValue(e.String()) }

// Config says which CA, with which account, and how names are proven.
type Config struct {
	// DirectoryURL is where the CA says what it can. Always https.
	DirectoryURL string

	// Roots are who may vouch for the CA's server, for private CAs. Nil: the
	// system's.
	Roots *x509.CertPool

	// Contact are mail addresses that the CA may write to.
	Contact []string

	// AgreeTerms says that somebody read the CA's terms of service and agreed
	// to them. Only CAs that have terms ask (RFC 8555, section 7.3.3).
	AgreeTerms bool

	EAB *EAB // nil: none

	// AccountKeyFile holds the account's private key, PEM. If it is not there,
	// a key is made and an account with it. What else is known of the account
	// lies beside it, in a file of the same name with ".json".
	AccountKeyFile string

	// SaveKey writes a file that nobody else may read. Nil: durably, with mode
	// 0600.
	SaveKey func(name string, data []byte) error

	// Ways are tried in this order for each name.
	Ways []Way

	// PreferredChain is the common name of the root or the intermediate at
	// which the chain should end, if the CA offers several. Without a match
	// the CA's first is taken.
	PreferredChain string

	Timeout  time.Duration // of one HTTP request; 0: 30 s
	Patience time.Duration // for validations, and again for the certificate; 0: 5 min

	// Proxy is http.Transport's. Nil: from the environment (HTTPS_PROXY,
	// NO_PROXY).
	Proxy func(*http.Request) (*url.URL, error)

	Log *slog.Logger // nil discards
}

// Signer gets certificates from one CA with one account. It is safe for
// concurrent use; one request is signed at a time.
type Signer struct {
	cfg       Config
	transport *http.Transport
	log       *slog.Logger

	turn chan struct{} // held by the one who signs: the account's files are his
}

// New checks cfg and returns a signer; all that is wrong with cfg at once. It
// neither reads the account nor speaks to the CA.
func New(cfg Config) (*Signer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.SaveKey == nil {
		cfg.SaveKey = saveKey
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 5 * time.Minute
	}
	if cfg.Proxy == nil {
		cfg.Proxy = http.ProxyFromEnvironment
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Contact = contacts(cfg.Contact)
	return &Signer{cfg: cfg, transport: newTransport(cfg), log: cfg.Log, turn: make(chan struct{}, 1)}, nil
}

// Close ends idle connections to the CA.
func (s *Signer) Close() { s.transport.CloseIdleConnections() }

func saveKey(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(name, data, 0o600)
}

func (c Config) check() error {
	var errs []error
	bad := func(p problem.Problem) { errs = append(errs, &p) }

	const https = "an https:// URL, such as https://acme-v02.api.letsencrypt.org/directory"
	switch u, err := url.Parse(c.DirectoryURL); {
	case c.DirectoryURL == "":
		bad(problem.Problem{Field: "ACME directory", Found: "nothing", Expected: https, Next: "ask the CA for its directory's URL"})
	case err != nil || u.Host == "":
		bad(problem.Problem{Field: "ACME directory", Found: "what is no URL", Expected: https})
	case u.User != nil:
		bad(problem.Problem{Field: "ACME directory", Found: "a user or a password in the URL", Expected: https, Next: "an account is bound by its external account key, not by the URL"})
	case u.Scheme != "https":
		bad(problem.Problem{Field: "ACME directory", Found: c.DirectoryURL, Expected: https, Next: "for a private CA, give its root certificate"})
	}
	for _, address := range c.Contact {
		if a, err := mail.ParseAddress(strings.TrimPrefix(address, "mailto:")); err != nil || a.Name != "" {
			bad(problem.Problem{Field: "ACME contact", Found: address, Expected: "a mail address, such as admin@example.com"})
		}
	}
	if c.EAB != nil {
		if c.EAB.KeyID == "" {
			bad(problem.Problem{Field: "ACME external account: key identifier", Found: "nothing", Expected: "the identifier that the CA gave out with the key"})
		}
		if _, ok := c.EAB.mac(); !ok {
			bad(problem.Problem{Field: "ACME external account: HMAC key", Found: "what is no base64url, or nothing", Expected: "the key as the CA gave it out", Next: "copy it again, whole"})
		}
	}
	if c.AccountKeyFile == "" {
		bad(problem.Problem{Field: "ACME account key file", Found: "nothing", Expected: "a file name"})
	}
	if len(c.Ways) == 0 {
		bad(problem.Problem{Field: "ACME challenge", Found: "none", Expected: strings.Join([]string{HTTP01, TLSALPN01, DNS01}, ", ") + ", or several in order"})
	}
	var seen []string
	for _, w := range c.Ways {
		switch {
		case w.Challenge != HTTP01 && w.Challenge != TLSALPN01 && w.Challenge != DNS01:
			bad(problem.Problem{Field: "ACME challenge", Found: w.Challenge, Expected: strings.Join([]string{HTTP01, TLSALPN01, DNS01}, ", ")})
		case slices.Contains(seen, w.Challenge):
			bad(problem.Problem{Field: "ACME challenge", Found: w.Challenge + " twice", Expected: "each kind once"})
		case w.Solver == nil:
			bad(problem.Problem{Field: "ACME challenge " + w.Challenge, Found: "nothing that answers it", Expected: "a solver"})
		}
		seen = append(seen, w.Challenge)
		if checker, ok := w.Solver.(interface{ Check() error }); ok {
			if err := checker.Check(); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// mac returns the HMAC key as RFC 8555 writes it: base64url without padding.
// People copy it with either.
func (e EAB) mac() (string, bool) {
	key := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimSpace(e.HMACKey)), "=")
	raw, err := base64.RawURLEncoding.DecodeString(key)
	return key, err == nil && len(raw) > 0
}

// contacts returns addresses as the URLs of RFC 8555, section 7.3.
func contacts(addresses []string) []string {
	var urls []string
	for _, a := range addresses {
		urls = append(urls, "mailto:"+strings.TrimPrefix(a, "mailto:"))
	}
	return urls
}

// Check says whether this CA, with the ways there are, could sign the request
// at all, without asking it. Its error is signing.Refused.
func (s *Signer) Check(csrDER []byte) error {
	_, err := s.names(csrDER)
	return err
}

// Sign gets a certificate for the request and returns it with its chain, the
// root left to the CA's taste. The request's names are what is proven; key is
// not needed, for ACME proves with the account's. With current, the CA is
// told that its certificate is being replaced, if it wants to know (RFC 9773,
// section 5).
//
// Errors are signing.Refused if somebody has to act, and carry
// signing.RetryAfterError if the CA said when to come again. An order that the
// CA has not finished within Patience is picked up again by the next Sign with
// the same request.
func (s *Signer) Sign(ctx context.Context, csrDER []byte, _ crypto.Signer, current *signing.Current) ([]*x509.Certificate, error) {
	names, err := s.names(csrDER)
	if err != nil {
		return nil, err
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	v, err := s.visit(ctx)
	if err != nil {
		return nil, err
	}
	chain, err := v.sign(ctx, names, csrDER, current.Leaf())
	if err != nil {
		return nil, err
	}
	if err := signing.CheckIssued(chain, csrDER); err != nil {
		return nil, err
	}
	return chain, nil
}
