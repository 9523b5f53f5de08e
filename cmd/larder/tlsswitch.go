package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/pki/caretaker"
	"larder/internal/pki/enroll"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/revocation"
	"larder/internal/pki/tlsdir"
	"larder/internal/sys/durable"
	"larder/internal/sys/runas"
)

func tlsDisableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Switch HTTPS off and delete nothing",
		Long: `Closes the node's ports for HTTPS; HTTP goes on. Requests, keys, certificates and
logs stay. "larder tls enable" switches it on again. Clients of content that is
HTTPS only go to the CDN meanwhile.`,
		Args: noArgs,
	}
	env, show := tlsLookFlags(cmd), outputFlag(cmd)
	grant := vendorAccountFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		if err := grant(e); err != nil {
			return err
		}
		done, wasOn, err := e.dir.Disable(cmd.Context())
		if err != nil {
			return err
		}
		return show(struct {
			*tlsdir.Installed
			WasOn bool `json:"wasOn"`
		}{done, wasOn}, func(w io.Writer) {
			switch {
			case !wasOn:
				fmt.Fprintln(w, "HTTPS was off already")
			case done.Proved:
				fmt.Fprintln(w, "HTTPS is off: the node has closed its ports for it")
			default:
				fmt.Fprintf(w, "HTTPS is off: %s\n", done.Note)
			}
		})
	}
	return cmd
}

func tlsEnableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable [NAME|THUMBPRINT]",
		Short: "Switch HTTPS on, with the last certificate or another one",
		Args:  atMostOneArg("one name or thumbprint"),
	}
	env, show := tlsLookFlags(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		which := ""
		if len(args) == 1 {
			which = args[0]
		}
		done, err := e.dir.Enable(cmd.Context(), which)
		if err != nil {
			return err
		}
		return show(done, func(w io.Writer) { installedTable(w, done) })
	}
	return cmd
}

func tlsRollbackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the certificate before the one in use",
		Args:  noArgs,
	}
	env, show := tlsLookFlags(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		done, err := e.dir.Rollback(cmd.Context())
		if err != nil {
			return err
		}
		return show(done, func(w io.Writer) { installedTable(w, done) })
	}
	return cmd
}

func tlsRenewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Get a new certificate for the same request",
		Long: `With an automatic way set up (larder tls auto) the certificate is renewed now, by
the node if one runs. Without, the request of the certificate in use is put out
again, to be signed again by your authority and then imported; the key stays the
same.`,
		Args: noArgs,
	}
	env, show := tlsLookFlags(cmd), outputFlag(cmd)
	export := cmd.Flags().String("export", "", "also write the request to this file; - for stdout and nothing else")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		if (&enroll.Renewer{Dir: e.dir}).Automatic() {
			done, err := e.renew(cmd.Context())
			if err != nil {
				return err
			}
			return show(done, func(w io.Writer) { installedTable(w, done) })
		}
		again, err := e.dir.RequestAgain(cmd.Context())
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: again.DER})
		switch *export {
		case "":
		case "-":
			_, err := cmd.OutOrStdout().Write(text)
			return err
		default:
			if err := durable.WriteFile(*export, text, 0o644); err != nil {
				return fmt.Errorf("--export: %w", err)
			}
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Have %s signed again by your authority, then: larder tls import %s.crt\n", again.CSRFile, again.Name)
		return show(again, func(w io.Writer) {
			fmt.Fprintf(w, "Request\t%s\n", again.CSRFile)
			fmt.Fprintf(w, "Key\t%s (the same as before)\n", again.KeyFile)
			fmt.Fprintf(w, "Subject\t%s\n", again.Subject)
			fmt.Fprintf(w, "Names\t%s\n", strings.Join(again.SANs, ", "))
		})
	}
	return cmd
}

// renew gets a certificate in the automatic way that is set up: the running
// node does it, or this process where there is none.
func (e *tlsEnv) renew(ctx context.Context) (*tlsdir.Installed, error) {
	where, running, err := e.dir.Running()
	if err != nil {
		return nil, err
	}
	if running {
		return renewByNode(ctx, where)
	}
	// What is set up there may be the word of the account that the directory
	// belongs to: a program to run, a file to send. It is not done as root.
	more, err := runas.Needed(e.dir.Path())
	if err != nil {
		return nil, err
	}
	if more {
		return e.renewAsOwner(ctx)
	}
	r, err := e.renewer()
	if err != nil {
		return nil, err
	}
	return r.Attempt(ctx)
}

// renewAsOwner renews in a process of the account that the directory belongs to.
func (e *tlsEnv) renewAsOwner(ctx context.Context) (*tlsdir.Installed, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"tls", "renew", "--output", "json"}
	if e.file != "" {
		args = append(args, "--config", e.file)
	} else {
		args = append(args, "--dir", e.dir.Path())
	}
	if len(e.names) > 0 {
		args = append(args, "--client-names", strings.Join(e.names, ","))
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Dir = e.dir.Path()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := runas.Owner(cmd, e.dir.Path()); err != nil {
		return nil, fmt.Errorf("no node runs, and this account has more rights than the node's, which it does not lend to what is set up in %s: start the node, and it renews", e.dir.Path())
	}
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		said := strings.TrimPrefix(strings.TrimSpace(stderr.String()), "larder: ")
		return nil, &exitError{max(ended.ExitCode(), exitFailed), errors.New(said)}
	}
	if err != nil {
		return nil, fmt.Errorf("as the owner of %s: %w; put larder where every account may run it, as in /usr/bin, or start the node, and it renews", e.dir.Path(), err)
	}
	var done tlsdir.Installed
	if err := json.Unmarshal(stdout.Bytes(), &done); err != nil {
		return nil, fmt.Errorf("what the owner's process said: %w", err)
	}
	return &done, nil
}

// renewer renews in this process: there is no node whose ports it could use, so
// it answers challenges on the configured ones itself.
func (e *tlsEnv) renewer() (*enroll.Renewer, error) {
	standards, err := e.standards(nil)
	if err != nil {
		return nil, err
	}
	standards.Revocation = revocation.New(revocation.Options{}).Check
	plain, secure := ":80", ":443"
	if e.cfg != nil {
		if len(e.cfg.Listen.HTTP) > 0 {
			plain = e.cfg.Listen.HTTP[0]
		}
		if len(e.cfg.Listen.HTTPS) > 0 {
			secure = e.cfg.Listen.HTTPS[0]
		}
	}
	return &enroll.Renewer{Dir: e.dir, Standards: standards, Seed: e.dir.Path(), Solvers: map[string]acme.Solver{
		acme.HTTP01: &acme.HTTPListener{Addr: plain}, acme.TLSALPN01: &acme.ALPNListener{Addr: secure},
	}}, nil
}

// renewByNode has the running node renew, and waits for what comes of it.
func renewByNode(ctx context.Context, where tlsdir.Where) (*tlsdir.Installed, error) {
	if where.Admin == "" {
		return nil, errors.New("the node is just starting; try again in a moment")
	}
	began := time.Now()
	a := newAdmin(where.Admin)
	var done tlsdir.Installed
	err := a.call(ctx, http.MethodPost, node.PathRenew, struct{}{}, &done)
	var known *exitError
	if !errors.As(err, &known) || known.code != exitConflict {
		return &done, err
	}
	// The node had begun by itself: its outcome is the answer.
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.New("interrupted; the node goes on renewing")
		}
		var s caretaker.Status
		if err := a.call(ctx, http.MethodGet, node.PathTLS, nil, &s); err != nil {
			return nil, err
		}
		switch {
		case s.Auto == nil:
			return nil, errors.New("nothing is automatic any more")
		case s.Auto.Renewing:
		case s.Auto.LastError != "":
			return nil, errors.New(s.Auto.LastError)
		case s.Certificate != nil && !s.Auto.LastSuccess.Before(began.Add(-time.Minute)):
			return installedFrom(&s), nil
		default:
			return nil, errors.New("the node's renewal ended without an outcome; see larder tls show")
		}
	}
}

// installedFrom describes what the node serves now.
func installedFrom(s *caretaker.Status) *tlsdir.Installed {
	done := &tlsdir.Installed{Active: true, Proved: true}
	c := s.Certificate
	e := &done.Entry
	e.Name, e.Subject, e.Issuer, e.NotBefore, e.NotAfter, e.SHA1, e.SHA256, e.KeyType = s.Auto.Method, c.Subject, c.Issuer, c.NotBefore, c.NotAfter, c.SHA1, c.SHA256, c.KeyType
	e.SANs = c.SANs
	return done
}
