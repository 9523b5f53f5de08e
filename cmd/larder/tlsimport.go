package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"larder/internal/pki/bundle"
	"larder/internal/pki/revocation"
	"larder/internal/pki/tlsdir"
	"larder/internal/pki/vet"
)

func tlsImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Put a signed certificate in use",
		Long: `Reads a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx, .p12), finds the
private key that belongs to it, orders its chain, checks it, and switches HTTPS
to it. FILE is a path, or a name in certs/ of the TLS directory.

A node that runs switches without dropping a connection; a real handshake must
then show the new certificate, or everything is put back as it was. When a check
fails nothing is changed.

The chain must lead to a root of the system's store, to one of --root or
tls.roots, or to one that came in the file itself.`,
		Example: `  larder tls import node.crt
  larder tls import /root/node.pfx --password-file /root/pfx-password --root /etc/ssl/example-root.pem`,
		Args: atMostOneArg("one file"),
	}
	env, show := tlsFlags(cmd), outputFlag(cmd)
	f := cmd.Flags()
	certName := f.String("cert-name", "", "the FILE, as Connected Cache's scripts spell it")
	name := f.String("name", "", "what to call the certificate; default: after the file")
	password := f.String("password", "", "password of the file; others on this machine may see it: better use --password-file")
	passwordFile := f.String("password-file", "", "file that holds the password of the file")
	roots := f.StringArray("root", nil, "PEM file of a root certificate that the chain may lead to; may be repeated")
	inactive := f.Bool("inactive", false, "only store it, do not switch HTTPS to it")
	noCheck := f.Bool("no-revocation-check", false, "do not ask whether it was revoked")
	grant := vendorAccountFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		what := *certName
		if len(args) == 1 {
			if what != "" {
				return usagef("%s takes one file, found %q and --cert-name %q", cmd.CommandPath(), args[0], what)
			}
			what = args[0]
		}
		if what == "" {
			return usagef("%s needs a file: a path, or a name in certs/; see %s --help", cmd.CommandPath(), cmd.CommandPath())
		}
		if *name != "" {
			if err := tlsdir.CheckName("--name", *name); err != nil {
				return &exitError{exitUsage, err}
			}
		}
		o := tlsdir.ImportOptions{Name: *name, StoreOnly: *inactive, Password: *password, HasPassword: f.Changed("password")}
		if *passwordFile != "" {
			var err error
			if o.Password, err = readSecret("--password-file", *passwordFile); err != nil {
				return err
			}
			o.HasPassword = true
		}
		e, err := env()
		if err != nil {
			return err
		}
		if err := grant(e); err != nil {
			return err
		}
		if o.Standards, err = e.standards(*roots); err != nil {
			return err
		}
		if !*noCheck {
			o.Revocation = revocation.New(revocation.Options{}).Check
		}
		file, err := e.dir.Find(what)
		if err != nil {
			return err
		}
		done, err := importWithPrompt(cmd, e, file, o)
		warnings := importWarnings(cmd.Context(), e, done)
		facts := []string{"file: " + file}
		if done != nil && done.Entry.SHA256 != "" {
			facts = append(facts, "certificate: "+done.Entry.Name, "subject: "+done.Entry.Subject, "names: "+strings.Join(done.Entry.SANs, ", "),
				"valid: "+done.Entry.NotBefore.UTC().Format(time.RFC3339)+" to "+done.Entry.NotAfter.UTC().Format(time.RFC3339), "sha1: "+done.Entry.SHA1, "sha256: "+done.Entry.SHA256)
		}
		warnings = append(warnings, e.journal("ImportCert", facts, warnings, err)...)
		warn(cmd, warnings...)
		if errors.Is(err, tlsdir.ErrNotServable) {
			return fmt.Errorf("%s is stored as %s, but HTTPS was NOT switched to it: its key is of the kind %s, and neither Go's TLS, which this node serves with, nor Windows' clients can use that; "+
				"next: request another certificate with --algo EC or RSA for serving (with --inactive this one is stored without this error)", file, done.Entry.Name, done.Entry.KeyType)
		}
		if err != nil {
			return err
		}
		return show(struct {
			*tlsdir.Imported
			Warnings []string `json:"warnings,omitempty"`
		}{done, warnings}, func(w io.Writer) {
			installedTable(w, &done.Installed)
			fmt.Fprintf(w, "Read from\t%s (%s)\n", done.From, done.Format)
		})
	}
	return cmd
}

// importWithPrompt imports, and asks for a password if one is needed and
// somebody sits there.
func importWithPrompt(cmd *cobra.Command, e *tlsEnv, file string, o tlsdir.ImportOptions) (*tlsdir.Imported, error) {
	done, err := e.dir.Import(cmd.Context(), file, o)
	if !errors.Is(err, bundle.ErrPassword) || o.HasPassword || !term.IsTerminal(int(os.Stdin.Fd())) {
		return done, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Password of %s: ", file)
	typed, terr := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if terr != nil {
		return done, errors.Join(err, terr)
	}
	o.Password, o.HasPassword = string(typed), true
	return e.dir.Import(cmd.Context(), file, o)
}

// importWarnings are the findings that did not stop an import.
func importWarnings(ctx context.Context, e *tlsEnv, done *tlsdir.Imported) (warnings []string) {
	if done == nil {
		return nil
	}
	for _, f := range done.Findings {
		if f.Severity == vet.SeverityWarning || f.Severity == vet.SeverityUnservable {
			warnings = append(warnings, f.Problem.Error())
		}
	}
	if a := done.Revocation; a != nil && a.Status == revocation.Unknown {
		warnings = append(warnings, "whether it was revoked could not be learnt: "+strings.Join(a.Problems, "; "))
	}
	if len(done.Unused) > 0 {
		warnings = append(warnings, "certificates in the file that do not belong to the chain that is served: "+strings.Join(done.Unused, ", "))
	}
	if done.Entry.SHA256 != "" {
		warnings = append(warnings, e.unknownNames(ctx, hostsOf(done.Entry.SANs))...)
	}
	return warnings
}

// hostsOf are the DNS names and addresses among names as they are written for
// people.
func hostsOf(sans []string) (hosts []string) {
	for _, s := range sans {
		for _, kind := range []string{"DNS:", "IP:"} {
			if h, ok := strings.CutPrefix(s, kind); ok {
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

// installedTable says what came of a switch.
func installedTable(w io.Writer, done *tlsdir.Installed) {
	e := &done.Entry
	state := "stored, not in use"
	switch {
	case done.Proved:
		state = "in use; a handshake with the running node showed it"
	case done.Active:
		state = "in use; not proved"
	}
	fmt.Fprintf(w, "Certificate\t%s, %s\n", e.Name, state)
	fmt.Fprintf(w, "Subject\t%s\n", e.Subject)
	fmt.Fprintf(w, "Names\t%s\n", strings.Join(e.SANs, ", "))
	fmt.Fprintf(w, "Issuer\t%s\n", e.Issuer)
	fmt.Fprintf(w, "Valid\t%s to %s (%s left)\n", dayText(e.NotBefore), dayText(e.NotAfter), daysLeft(e.NotAfter))
	fmt.Fprintf(w, "Thumbprint\tSHA-1 %s\n\tSHA-256 %s\n", e.SHA1, e.SHA256)
	fmt.Fprintf(w, "Kind of key\t%s\n", e.KeyType)
	if done.Note != "" {
		fmt.Fprintf(w, "Note\t%s\n", done.Note)
	}
	if r := done.Replaced; r != nil {
		fmt.Fprintf(w, "Replaces\t%s (%s), which larder tls rollback goes back to\n", r.Name, r.Short())
	}
}

func dayText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// daysLeft is how long a certificate lives on, in whole days.
func daysLeft(notAfter time.Time) string {
	left := time.Until(notAfter)
	switch {
	case left <= 0:
		return "no days"
	case left < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(left.Minutes()))
	case left < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(left.Hours()))
	}
	return count(int(left.Hours()/24), "day")
}
