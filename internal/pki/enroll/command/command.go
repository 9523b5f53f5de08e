// Package command gets certificates signed by a command of the administrator,
// for every PKI that has nothing else.
package command

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"larder/internal/pki/bundle"
	"larder/internal/pki/enroll/program"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
)

// What a command can say by its exit code, as sysexits.h has it. Every other
// code but 0 is trouble that may pass.
const (
	exitTryLater = 75 // EX_TEMPFAIL
	exitRefused  = 77 // EX_NOPERM
)

const (
	defaultTimeout = 5 * time.Minute
	maxOutput      = 1 << 20 // bytes of certificates
)

// Config says what to run.
type Config struct {
	// Command is the command line, as package program splits it.
	//
	// The command gets the request as PEM on its standard input and writes
	// the certificate, and the chain if it has it, to its standard output:
	// PEM, DER or PKCS#7. In its environment are LARDER_COMMON_NAME,
	// LARDER_SAN (as in "DNS:cache.example,IP:10.0.0.5"), at a renewal
	// LARDER_RENEWAL=1, and of the node's own what program.Inherited names.
	//
	// It exits with 0, with 75 (try again later), with 77 (the CA said no:
	// somebody has to act), or with any other code for trouble that may pass.
	Command string
	// Timeout is how long it may take; 0 is five minutes.
	Timeout time.Duration
}

// Signer gets requests signed by running the command.
type Signer struct {
	args    []string // one at least
	timeout time.Duration
}

// New checks the configuration; it runs nothing.
func New(c Config) (*Signer, error) {
	args, err := program.Split("--sign-command", c.Command)
	if err != nil {
		return nil, err
	}
	s := &Signer{args: args, timeout: c.Timeout}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	if s.timeout < 0 {
		return nil, &problem.Problem{Field: "--sign-command timeout", Found: c.Timeout.String(), Expected: "more than nothing"}
	}
	return s, nil
}

// String names the command without its arguments, in which a password may be.
func (s *Signer) String() string { return "command " + s.args[0] }

// Sign runs the command once.
func (s *Signer) Sign(ctx context.Context, csrDER []byte, _ crypto.Signer, current *signing.Current) ([]*x509.Certificate, error) {
	req, err := signing.ParseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	env, err := environment(req, current)
	if err != nil {
		return nil, err
	}
	out, err := s.run(ctx, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csrDER}), env)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return nil, s.problem("nothing on its standard output", "a certificate", "see that the command writes the certificate there", nil)
	}
	b, err := bundle.Parse(s.field()+" output", out, bundle.Options{})
	if err != nil {
		return nil, err
	}
	return signing.Chain(b.Certs, nil, req)
}

func (s *Signer) field() string { return "--sign-command " + s.args[0] }

func (s *Signer) problem(found, expected, next string, err error) *problem.Problem {
	return &problem.Problem{Field: s.field(), Found: found, Expected: expected, Next: next, Err: err}
}

func (s *Signer) run(ctx context.Context, input []byte, env []string) ([]byte, error) {
	c := program.Command{Args: s.args, Env: env, Input: input, Timeout: s.timeout, MaxOutput: maxOutput}
	outcome, err := c.Run(ctx)
	if err != nil {
		return nil, s.judge(ctx, outcome, err)
	}
	return outcome.Output, nil
}

// judge makes an error of how a command ended.
func (s *Signer) judge(ctx context.Context, o program.Outcome, err error) error {
	words := o.Words
	if words != "" {
		words = ", saying: " + words
	}
	var absent *exec.Error
	switch {
	case errors.As(err, &absent):
		return s.problem("no program that can be run", "one", "give its whole path, and see that the node's account may run it", err)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", s.field(), context.Cause(ctx))
	case errors.Is(err, program.ErrTooMuch):
		return s.problem(fmt.Sprintf("more than %d bytes on its standard output", maxOutput), "a certificate and its chain", "see what the command writes", nil)
	case errors.Is(err, program.ErrTimeout):
		return s.problem(fmt.Sprintf("that it still ran after %v", s.timeout)+words, "an end", "see what it waits for; it has been killed", nil)
	case o.State == nil:
		return s.problem("that it did not start", "", "see that the node's account may run it", err)
	}
	switch code := o.State.ExitCode(); code {
	case -1:
		return s.problem(o.State.String()+words, "exit code 0", "", nil)
	case 0:
		return s.problem("that it ended well but could not be read from"+words, "", "", err)
	case exitTryLater:
		return s.problem("exit code 75 (try again later)"+words, "exit code 0", "", nil)
	case exitRefused:
		return signing.Refuse(s.problem("exit code 77 (refused)"+words, "exit code 0", "see why the CA said no", nil))
	default:
		return s.problem(fmt.Sprintf("exit code %d", code)+words, "exit code 0", "run the command by hand with a request on its standard input", nil)
	}
}

func environment(req *x509.CertificateRequest, current *signing.Current) ([]string, error) {
	names, err := san.OfRequest(req)
	if err != nil {
		return nil, err
	}
	env := append(program.Environment(),
		"LARDER_COMMON_NAME="+printable(req.Subject.CommonName),
		"LARDER_SAN="+printable(strings.Join(names.Texts(), ",")))
	if current.Leaf() != nil {
		env = append(env, "LARDER_RENEWAL=1")
	}
	return env, nil
}

// printable keeps what a request says from ending a variable early.
func printable(s string) string { return strings.ReplaceAll(s, "\x00", "") }
