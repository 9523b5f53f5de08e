package caretaker

import (
	"errors"
	"io/fs"
	"time"

	"larder/internal/pki/enroll"
	"larder/internal/pki/inventory"
	"larder/internal/pki/livecert"
	"larder/internal/pki/revocation"
	"larder/internal/pki/vet"
)

// Status is all there is to know about the node's HTTPS: what "larder tls
// show" prints, what reports to a control plane carry.
type Status struct {
	On          bool             `json:"on"` // HTTPS is served
	Certificate *livecert.Status `json:"certificate,omitempty"`
	Left        string           `json:"left,omitempty"`    // of its life, in words
	Level       vet.Level        `json:"level"`             // of warning
	Warning     string           `json:"warning,omitempty"` // in a sentence
	WhyOff      string           `json:"whyOff,omitempty"`

	Revocation revocation.Answer `json:"revocation"`
	AskedAt    time.Time         `json:"revocationAskedAt,omitzero"`

	Auto *Auto `json:"auto,omitempty"` // nil: nothing is automatic
}

// Auto says how renewal without hands stands.
type Auto struct {
	enroll.State
	Renewing bool   `json:"renewing"`
	Off      string `json:"off,omitempty"`   // why there will be no attempt
	Error    string `json:"error,omitempty"` // why there is no plan
}

// Status is the state of things now.
func (c *Caretaker) Status() Status {
	now := time.Now()
	s := Status{On: c.o.Cert.Has(), Auto: c.auto(now)}
	c.mu.Lock()
	s.Revocation, s.AskedAt = c.revocation, c.askedAt
	c.mu.Unlock()
	cert := c.o.Cert.Status()
	if !s.On {
		s.WhyOff = c.whyOff(cert)
		return s
	}
	s.Certificate = &cert
	s.Left = left(cert.NotAfter.Sub(now))
	s.Level = vet.Left(cert.NotBefore, cert.NotAfter, now)
	s.Warning = warning(s, now)
	if words := c.served(); words != "" {
		s.Level, s.Warning = max(s.Level, vet.Critical), words
	}
	return s
}

// served says what a revocation has done to what is served now; "" if nothing.
func (c *Caretaker) served() string {
	if _, e, _, err := c.o.Dir.Standing(); err == nil && e != nil && e.Revoked != "" {
		return "the certificate in use was " + e.Revoked + "; clients that ask refuse it: have a new one signed"
	}
	if words, err := c.o.Dir.FellBack(); err == nil && words != "" {
		return "an earlier certificate is served, because the newest was " + words + ": have a new one signed"
	}
	return ""
}

// whyOff says why no HTTPS is served.
func (c *Caretaker) whyOff(cert livecert.Status) string {
	if cert.Err != "" {
		return cert.Err
	}
	a, err := livecert.ReadActive(c.o.Dir.Path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no certificate"
	case err != nil:
		return err.Error()
	case !a.Disabled:
		return "the certificate is being read"
	}
	_, entry, _, err := c.o.Dir.Standing()
	if err == nil && entry != nil && entry.Reason == inventory.Revoked {
		return "the certificate was " + entry.Detail
	}
	return "it was switched off; larder tls enable switches it on"
}

func (c *Caretaker) auto(now time.Time) *Auto {
	plan, state, err := c.o.Renewer.Plan(now)
	if err == nil && state.Method == "" && plan.Off != "" && !c.o.Renewer.Automatic() {
		return nil
	}
	a := &Auto{State: state, Off: plan.Off}
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.NextAttempt, a.Why = plan.At, plan.Why
	c.mu.Lock()
	a.Renewing = c.renewing
	c.mu.Unlock()
	if a.Renewing && a.LastError == enroll.Unfinished {
		a.LastError, a.Failures = "", a.Failures-1 // it is not over
	}
	return a
}

// warning puts a level into a sentence that says what will be done about it.
func warning(s Status, now time.Time) string {
	if s.Level == vet.None {
		return ""
	}
	text := "the certificate ends in " + s.Left
	if s.Level == vet.Expired {
		text = "the certificate has expired on " + s.Certificate.NotAfter.UTC().Format("2006-01-02 15:04 MST")
	}
	switch {
	case s.Auto == nil:
		return text + "; nothing renews it by itself: larder tls renew, or set up larder tls auto"
	case s.Auto.LastError != "":
		return text + "; the last attempt to renew it failed: " + s.Auto.LastError
	case s.Auto.Off != "":
		return text + "; it is not renewed: " + s.Auto.Off
	}
	return text + "; the next attempt to renew it is on " + s.Auto.NextAttempt.UTC().Format("2006-01-02 15:04 MST")
}

// Problems are what needs somebody's attention.
func (c *Caretaker) Problems() (problems []string) {
	s := c.Status()
	// While renewal is on its way by itself, the first level is no problem yet.
	warned := s.Warning != "" && (s.Level > vet.Notice || s.Auto == nil || s.Auto.LastError != "")
	if warned {
		problems = append(problems, s.Warning)
	}
	if s.Auto != nil {
		switch {
		case s.Auto.Error != "":
			problems = append(problems, "automatic renewal: "+s.Auto.Error)
		case s.Auto.LastError != "" && !warned:
			problems = append(problems, "the last attempt to renew the certificate failed: "+s.Auto.LastError)
		}
	}
	if !s.On && c.wasRevoked() {
		problems = append(problems, "HTTPS is off: "+s.WhyOff)
	}
	return problems
}

func (c *Caretaker) wasRevoked() bool {
	_, entry, off, err := c.o.Dir.Standing()
	return err == nil && off && entry != nil && entry.Reason == inventory.Revoked
}
