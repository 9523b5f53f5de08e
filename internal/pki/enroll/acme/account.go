package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"

	"github.com/mholt/acmez/v3/acme"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// visit is one call on the CA, by one goroutine.
type visit struct {
	s       *Signer
	wire    *wire
	client  *acme.Client
	dir     acme.Directory
	account acme.Account
	notes   notes
}

// notes is what is remembered of an account beside its key. Losing it costs
// some requests, no more.
type notes struct {
	Directory  string   `json:"directory"`
	Location   string   `json:"location"`   // the account's URL, its name in requests
	Thumbprint string   `json:"thumbprint"` // of the account's key
	Contact    []string `json:"contact,omitempty"`
	Order      *waiting `json:"order,omitempty"`
}

// waiting is an order that the CA had not finished when patience ended.
type waiting struct {
	URL string `json:"url"`
	CSR string `json:"csr"` // SHA-256, hex
}

func (s *Signer) newClient(w *wire) *acme.Client {
	return &acme.Client{
		Directory:  s.cfg.DirectoryURL,
		HTTPClient: &http.Client{Transport: w, Timeout: s.cfg.Timeout},
		UserAgent:  "larder",
		// FinalizeOrder asks once and returns: asking again is done here, at
		// the CA's pace.
		PollTimeout: -1,
	}
}

// visit reads the CA's directory and has the account ready.
func (s *Signer) visit(ctx context.Context) (*visit, error) {
	w := &wire{next: s.transport}
	v := &visit{s: s, wire: w, client: s.newClient(w)}
	var err error
	if v.dir, err = v.client.GetDirectory(ctx); err != nil {
		if v.wire.status >= 200 && v.wire.status < 500 && v.wire.status != http.StatusTooManyRequests {
			return nil, signing.Refuse(&problem.Problem{
				Field:    "ACME directory",
				Found:    fmt.Sprintf("no directory at %s, which answers %d", s.cfg.DirectoryURL, v.wire.status),
				Expected: "a JSON object with newNonce, newAccount and newOrder (RFC 8555, section 7.1.1)",
				Next:     "ask the CA for its directory's URL",
			})
		}
		return nil, v.explain(ctx, "reading the directory", err)
	}
	if err := v.openAccount(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *visit) openAccount(ctx context.Context) error {
	key, err := v.s.accountKey()
	if err != nil {
		return err
	}
	v.account = acme.Account{PrivateKey: key, Status: acme.StatusValid}
	thumbprint, err := v.account.Thumbprint()
	if err != nil {
		return fmt.Errorf("naming the account's key: %w", err)
	}
	v.notes = readNotes(v.s.notesFile())
	if v.notes.Directory == v.s.cfg.DirectoryURL && v.notes.Thumbprint == thumbprint && v.notes.Location != "" {
		v.account.Location = v.notes.Location
		return v.updateContact(ctx)
	}
	v.notes = notes{Directory: v.s.cfg.DirectoryURL, Thumbprint: thumbprint}
	return v.register(ctx)
}

// register finds the account of the key, or makes one (RFC 8555, sections
// 7.3.1 and 7.3).
func (v *visit) register(ctx context.Context) error {
	v.account.Location, v.notes.Location, v.notes.Order = "", "", nil
	found, err := v.client.GetAccount(ctx, acme.Account{PrivateKey: v.account.PrivateKey})
	if err == nil {
		found.PrivateKey = v.account.PrivateKey
		v.account = found
		v.notes.Contact = found.Contact
		v.notes.Location = found.Location
		if found.Status != "" && found.Status != acme.StatusValid {
			return signing.Refuse(&problem.Problem{
				Field: "ACME account " + found.Location, Found: found.Status, Expected: acme.StatusValid,
				Next: "remove " + v.s.cfg.AccountKeyFile + " to open another, or ask the CA",
			})
		}
		v.s.log.InfoContext(ctx, "ACME account found", "account", found.Location)
		if err := v.saveNotes(); err != nil {
			return err
		}
		return v.updateContact(ctx)
	}
	if p, ok := errors.AsType[acme.Problem](err); !ok || p.Type != acme.ProblemTypeAccountDoesNotExist {
		return v.explain(ctx, "looking the account up", err)
	}
	return v.newAccount(ctx)
}

const openingAccount = "opening an account"

func (v *visit) newAccount(ctx context.Context) error {
	cfg := v.s.cfg
	var problems []*problem.Problem
	if meta := v.dir.Meta; meta != nil {
		if meta.TermsOfService != "" && !cfg.AgreeTerms {
			problems = append(problems, &problem.Problem{
				Field: "ACME terms of service", Found: "terms that nobody has agreed to: " + clean(meta.TermsOfService),
				Next: "read them, and say that you agree",
			})
		}
		if meta.ExternalAccountRequired && cfg.EAB == nil {
			problems = append(problems, &problem.Problem{
				Field: "ACME external account", Found: "none", Expected: "the CA wants accounts bound to one that exists",
				Next: "ask the CA for a key identifier and an HMAC key",
			})
		}
	}
	if err := signing.Refuse(problems...); err != nil {
		return err
	}
	account := acme.Account{PrivateKey: v.account.PrivateKey, Contact: cfg.Contact, TermsOfServiceAgreed: cfg.AgreeTerms}
	if cfg.EAB != nil {
		mac, _ := cfg.EAB.mac()
		if err := account.SetExternalAccountBinding(ctx, v.client, acme.EAB{KeyID: cfg.EAB.KeyID, MACKey: mac}); err != nil {
			return fmt.Errorf("binding the account to %s: %w", cfg.EAB, err)
		}
	}
	made, err := v.client.NewAccount(ctx, account)
	if err != nil {
		return v.explain(ctx, openingAccount, err)
	}
	made.PrivateKey, made.Status = account.PrivateKey, acme.StatusValid
	v.account = made
	v.notes.Location, v.notes.Contact = made.Location, cfg.Contact
	v.s.log.InfoContext(ctx, "ACME account opened", "account", made.Location)
	return v.saveNotes()
}

// updateContact tells the CA of other addresses (RFC 8555, section 7.3.2).
// Having none is not told: whoever was reachable remains so.
func (v *visit) updateContact(ctx context.Context) error {
	want := v.s.cfg.Contact
	if len(want) == 0 || slices.Equal(want, v.notes.Contact) {
		return nil
	}
	_, err := v.client.UpdateAccount(ctx, acme.Account{PrivateKey: v.account.PrivateKey, Location: v.account.Location, Contact: want})
	if accountGone(err) {
		return v.register(ctx)
	}
	if err != nil {
		return v.explain(ctx, "changing the account's contact", err)
	}
	v.notes.Contact = want
	return v.saveNotes()
}

// accountGone reports whether the CA does not know the account that we
// remember: it was restored from a backup, or another one lives there now.
func accountGone(err error) bool {
	p, ok := errors.AsType[acme.Problem](err)
	return ok && p.Type == acme.ProblemTypeAccountDoesNotExist
}

// accountKey reads the account's key, or makes one. ECDSA P-256: every CA has
// to take it (RFC 8555, section 6.2).
func (s *Signer) accountKey() (crypto.Signer, error) {
	name := s.cfg.AccountKeyFile
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := keys.Generate(keys.EC, "prime256v1")
		if err != nil {
			return nil, fmt.Errorf("making an account key: %w", err)
		}
		text, err := keys.MarshalPEM(key)
		if err != nil {
			return nil, fmt.Errorf("writing an account key: %w", err)
		}
		if err := s.cfg.SaveKey(name, text); err != nil {
			return nil, &problem.Problem{
				Field: "ACME account key " + name, Found: "no way to write it", Err: err,
				Next: "give the account that runs Larder its directory",
			}
		}
		return key, nil
	}
	if err != nil {
		return nil, &problem.Problem{
			Field: "ACME account key " + name, Found: "no way to read it", Err: err,
			Next: "give the file to the account that runs Larder, mode 0600",
		}
	}
	key, err := keys.ParsePEM(data)
	if err != nil {
		return nil, signing.Refuse(&problem.Problem{
			Field: "ACME account key " + name, Found: "no private key", Err: err, Expected: "an ECDSA or RSA key in PEM",
			Next: "restore it from a backup, or remove it to open another account",
		})
	}
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
		return key, nil
	}
	return nil, signing.Refuse(&problem.Problem{
		Field: "ACME account key " + name, Found: "a key of kind " + keys.Kind(key.Public()), Expected: "ECDSA or RSA",
		Next: "remove it to open another account",
	})
}

func (s *Signer) notesFile() string { return s.cfg.AccountKeyFile + ".json" }

// readNotes returns nothing for a file that it cannot read: the CA knows.
func readNotes(name string) (n notes) {
	data, err := os.ReadFile(name)
	if err != nil || json.Unmarshal(data, &n) != nil {
		return notes{}
	}
	return n
}

func (v *visit) saveNotes() error {
	data, err := json.MarshalIndent(v.notes, "", "  ")
	if err != nil {
		return fmt.Errorf("writing down the account: %w", err)
	}
	if err := v.s.cfg.SaveKey(v.s.notesFile(), append(data, '\n')); err != nil {
		return fmt.Errorf("writing down the account: %w", err)
	}
	return nil
}
