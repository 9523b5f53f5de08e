package enroll

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"larder/internal/pki/csr"
	"larder/internal/pki/keys"
	"larder/internal/strictyaml"
	"larder/internal/sys/private"
)

// Settings is how a node gets its certificate without hands. They lie in
// auto.yaml of the TLS directory, which only the node's account can read;
// passwords and keys lie in files of their own that it names. Paths may be
// relative to the TLS directory.
type Settings struct {
	// Exactly one of these.
	ACME    *ACME    `yaml:"acme,omitempty"`
	EST     *EST     `yaml:"est,omitempty"`
	SCEP    *SCEP    `yaml:"scep,omitempty"`
	Command *Command `yaml:"command,omitempty"`

	// Request is what is asked for.
	Request csr.Words `yaml:"request"`

	// Name is what certificates and keys are called. Default "auto".
	Name string `yaml:"name,omitempty"`

	// Key is "rotate" for a new key with each renewal, the default, or "keep".
	Key string `yaml:"key,omitempty"`

	// Roots is a PEM file with the roots that certificates must chain to,
	// besides the system's. Default: they are not checked where the method
	// itself trusts the authority.
	Roots string `yaml:"roots,omitempty"`
}

// ACME is an authority that speaks RFC 8555.
type ACME struct {
	Directory      string   `yaml:"directory"`                 // URL, https
	CA             string   `yaml:"ca,omitempty"`              // PEM file of the roots of the server; default: the system's
	Email          []string `yaml:"email,omitempty"`           // contacts
	AgreeTerms     bool     `yaml:"agree_terms,omitempty"`     // somebody agreed to the terms of service
	Challenge      []string `yaml:"challenge,omitempty"`       // http-01, tls-alpn-01, dns-01, in order of preference; default http-01
	DNSCommand     string   `yaml:"dns_command,omitempty"`     // sets and removes TXT records
	EABKeyID       string   `yaml:"eab_key_id,omitempty"`      // external account binding
	EABKeyFile     string   `yaml:"eab_key_file,omitempty"`    // its HMAC key, base64url
	PreferredChain string   `yaml:"preferred_chain,omitempty"` // common name of the root wanted
}

// EST is an authority that speaks RFC 7030.
type EST struct {
	URL          string `yaml:"url"`
	CA           string `yaml:"ca,omitempty"`             // PEM file of the roots of the server
	Fingerprint  string `yaml:"ca_fingerprint,omitempty"` // SHA-256 of the authority's certificate instead
	User         string `yaml:"user,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	ClientCert   string `yaml:"client_cert,omitempty"` // PEM, for the first enrolment
	ClientKey    string `yaml:"client_key,omitempty"`
}

// SCEP is an authority that speaks RFC 8894: AD CS by NDES, or a network
// device's.
type SCEP struct {
	URL           string `yaml:"url"`
	ChallengeFile string `yaml:"challenge_file,omitempty"` // the challenge password
	Fingerprint   string `yaml:"ca_fingerprint,omitempty"` // SHA-256 of the authority's certificate
	CA            string `yaml:"ca_identifier,omitempty"`  // which authority of several
}

// Command is a program of the organisation: a request on stdin, a certificate
// on stdout.
type Command struct {
	Run     string        `yaml:"run"`
	Timeout time.Duration `yaml:"timeout,omitempty"` // default 5m
}

// Methods are the words for the ways of Settings.
const (
	MethodACME    = "acme"
	MethodEST     = "est"
	MethodSCEP    = "scep"
	MethodCommand = "command"
)

// Method names the way that s goes.
func (s *Settings) Method() string {
	switch {
	case s.ACME != nil:
		return MethodACME
	case s.EST != nil:
		return MethodEST
	case s.SCEP != nil:
		return MethodSCEP
	case s.Command != nil:
		return MethodCommand
	}
	return ""
}

// Rotates reports whether each renewal gets a new key.
func (s *Settings) Rotates() bool { return s.Key != KeyKeep }

// The words for Settings.Key.
const (
	KeyRotate = "rotate"
	KeyKeep   = "keep"
)

func settingsFile(dir string) string { return filepath.Join(dir, "auto.yaml") }

// Load reads the settings of a TLS directory; fs.ErrNotExist where nothing is
// automatic. What is wrong with them is a strictyaml.Mistakes.
func Load(dir string) (*Settings, error) {
	file := settingsFile(dir)
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s Settings
	doc, _ := strictyaml.Decode(file, text, &s)
	s.complete()
	s.check(func(field, format string, args ...any) { doc.Add(field, format, args...) })
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return &s, nil
}

func (s *Settings) complete() {
	if s.Name == "" {
		s.Name = "auto"
	}
	if s.Key == "" {
		s.Key = KeyRotate
	}
}

// Check completes the settings and says what is wrong with them.
func (s *Settings) Check() error {
	s.complete()
	var found strictyaml.Mistakes
	s.check(func(field, format string, args ...any) {
		found = append(found, strictyaml.Mistake{Field: field, Problem: fmt.Sprintf(format, args...)})
	})
	return found.Err()
}

func (s *Settings) check(add func(field, format string, args ...any)) {
	n := 0
	for _, set := range []bool{s.ACME != nil, s.EST != nil, s.SCEP != nil, s.Command != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		add("", "found %d of acme, est, scep and command; expected exactly one", n)
	}
	if s.Key != KeyRotate && s.Key != KeyKeep {
		add("key", "found %q; expected rotate or keep", s.Key)
	}
	if r, err := s.Request.Request(); err != nil {
		add("request", "%v", err)
	} else if r.Algorithm == keys.Ed448 {
		add("request", "found the algorithm ED448, which neither this node's TLS nor Windows' clients can serve with; expected EC or RSA")
	}
	required := func(field, value, example string) {
		if value == "" {
			add(field, "must be set; expected %s", example)
		}
	}
	switch {
	case s.ACME != nil:
		required("acme.directory", s.ACME.Directory, "the https URL of the authority's directory")
		if (s.ACME.EABKeyID == "") != (s.ACME.EABKeyFile == "") {
			add("acme.eab_key_id", "eab_key_id and eab_key_file go together; set both or none")
		}
		for i, c := range s.ACME.Challenge {
			if c != "http-01" && c != "tls-alpn-01" && c != "dns-01" {
				add(fmt.Sprintf("acme.challenge[%d]", i), "found %q; expected http-01, tls-alpn-01 or dns-01", c)
			}
			if c == "dns-01" && s.ACME.DNSCommand == "" {
				add("acme.dns_command", "must be set for dns-01; expected a program that sets TXT records")
			}
		}
	case s.EST != nil:
		required("est.url", s.EST.URL, "the https URL of the EST server")
		if (s.EST.User == "") != (s.EST.PasswordFile == "") {
			add("est.user", "user and password_file go together; set both or none")
		}
		if (s.EST.ClientCert == "") != (s.EST.ClientKey == "") {
			add("est.client_cert", "client_cert and client_key go together; set both or none")
		}
	case s.SCEP != nil:
		required("scep.url", s.SCEP.URL, "the URL of the SCEP server, such as http://ca.example/certsrv/mscep/mscep.dll")
	case s.Command != nil:
		required("command.run", s.Command.Run, "a program that reads a request and writes a certificate")
		if s.Command.Timeout < 0 { // by a flag: in the file it is no span
			add("command.timeout", "found %s; expected a span such as 5m", s.Command.Timeout)
		}
	}
}

// fingerprint tells the settings of a TLS directory from others; "" if there
// are none.
func fingerprint(dir string) string {
	text, err := os.ReadFile(settingsFile(dir))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Save writes the settings, after checking them.
func (s *Settings) Save(dir string) error {
	if err := s.Check(); err != nil {
		return err
	}
	text, err := yaml.Marshal(s)
	if err != nil {
		return err
	}
	return private.WriteFile(settingsFile(dir), text)
}

// Remove takes the settings away, so that nothing is automatic any more, with
// the secrets that they name below credentials/. That there were none is no
// error.
func Remove(dir string) error {
	var secrets []string
	if s, err := Load(dir); err == nil {
		switch {
		case s.ACME != nil:
			secrets = append(secrets, s.ACME.EABKeyFile)
		case s.EST != nil:
			secrets = append(secrets, s.EST.PasswordFile)
		case s.SCEP != nil:
			secrets = append(secrets, s.SCEP.ChallengeFile)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range append(secrets, filepath.Base(settingsFile(dir)), filepath.Base(stateFile(dir))) {
		if name != filepath.Base(name) && !strings.HasPrefix(name, "credentials/") {
			continue // somebody else's file, or none
		}
		if err := root.Remove(filepath.FromSlash(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
