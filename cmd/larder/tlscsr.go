package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"larder/internal/pki/csr"
	"larder/internal/pki/tlsdir"
	"larder/internal/sys/private"
)

// requestFlags adds the flags that say what a certificate is asked for.
func requestFlags(cmd *cobra.Command) *csr.Words {
	w := new(csr.Words)
	f := cmd.Flags()
	f.StringVar(&w.Algorithm, "algo", "", "kind of key: RSA, EC, ED25519 or ED448")
	f.StringVar(&w.KeySizeOrCurve, "key-size-or-curve", "", "2048, 3072 or 4096 for RSA; prime256v1 or secp384r1 for EC")
	f.StringVar(&w.CommonName, "subject-common-name", "", "common name of the subject, such as cache.example.com")
	f.StringVar(&w.Country, "subject-country", "", "country, two letters")
	f.StringVar(&w.State, "subject-state", "", "state or province")
	f.StringVar(&w.Org, "subject-org", "", "organisation")
	list := func(p *[]string, name, usage string) { f.StringArrayVar(p, name, nil, usage) }
	list(&w.SANDNS, "san-dns", "host names that clients use, separated by commas")
	list(&w.SANIP, "san-ip", "IP addresses that clients use, separated by commas")
	list(&w.SANURI, "san-uri", "URIs")
	list(&w.SANEmail, "san-email", "mail addresses")
	list(&w.SANRID, "san-rid", "registered ids, such as 1.2.3.4")
	list(&w.SANDirName, "san-dir-name", "directory names, such as /C=DE/O=Example/CN=node")
	list(&w.SANOtherName, "san-other-name", "other names, such as 1.3.6.1.4.1.311.20.2.3;UTF8:node@example.com")
	return w
}

// vendorAccountFlags adds what runbooks for Windows say about the account that
// the node runs under.
func vendorAccountFlags(cmd *cobra.Command) (grant func(env *tlsEnv) error) {
	account := cmd.Flags().String("run-time-account", "", "account that the node runs under: local, domain, or gMSA (DOMAIN\\name$); it gets access to the TLS directory")
	cmd.Flags().String("local-account-credential", "", "taken and not used: no password of the account is needed")
	if err := cmd.Flags().MarkHidden("local-account-credential"); err != nil {
		panic(err) // it was added the line before
	}
	return func(env *tlsEnv) error {
		if *account == "" {
			return nil
		}
		if err := private.GrantAccount(env.dir.Path(), *account); err != nil {
			return fmt.Errorf("--run-time-account %s: %w", *account, err)
		}
		return nil
	}
}

func tlsCSRCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "csr",
		Short: "Make a key and a certificate request",
		Long: `Makes a private key and a request for a certificate. The key stays in keys/ of
the TLS directory and never leaves it; have certs/NAME.csr signed by your
authority, then import what it gives back.

The certificate must name the host or address that clients are told to use (as
in DOCacheHost), as --san-dns or --san-ip. At least one name of any kind is
needed. Several are separated by commas; \, is a comma in a name.`,
		Example: `  larder tls csr --algo EC --csr-name node-2026 --subject-common-name cache.example.com --san-dns cache.example.com --san-ip 10.0.0.5
  larder tls csr -algo RSA -keySizeOrCurve 2048 -csrName node -subjectCommonName cache -sanDns cache.example.com`,
		Args: noArgs,
	}
	env, show := tlsFlags(cmd), outputFlag(cmd)
	words := requestFlags(cmd)
	name := cmd.Flags().String("csr-name", "", "what to call the request: certs/NAME.csr and keys/NAME.key")
	grant := vendorAccountFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request, err := words.Request()
		if err := errors.Join(tlsdir.CheckName("--csr-name", *name), err); err != nil {
			return &exitError{exitUsage, err}
		}
		e, err := env()
		if err != nil {
			return err
		}
		if err := grant(e); err != nil {
			return err
		}
		warnings := append(request.Warnings(e.names), e.unknownNames(cmd.Context(), request.Names.Hosts())...)
		warn(cmd, warnings...)
		done, err := e.dir.Request(cmd.Context(), *name, request)
		journal := e.journal("GenerateCsr", []string{
			"request: " + *name, "algorithm: " + strings.TrimSpace(request.Algorithm+" "+request.Size), "subject common name: " + request.CommonName,
			"names: " + strings.Join(request.Names.Texts(), ", "),
		}, warnings, err)
		if err != nil {
			return err
		}
		warn(cmd, journal...)
		fmt.Fprintf(cmd.ErrOrStderr(), "Have %s signed by your authority, then: larder tls import %s.crt\n", done.CSRFile, done.Name)
		return show(struct {
			*tlsdir.Requested
			Subject  string   `json:"subjectCommonName"`
			SANs     []string `json:"sans"`
			Warnings []string `json:"warnings,omitempty"`
		}{done, request.CommonName, request.Names.Texts(), warnings}, func(w io.Writer) {
			fmt.Fprintf(w, "Request\t%s\n", done.CSRFile)
			fmt.Fprintf(w, "Key\t%s (stays here)\n", done.KeyFile)
			fmt.Fprintf(w, "Kind of key\t%s\n", done.KeyType)
			fmt.Fprintf(w, "Subject\tCN=%s\n", request.CommonName)
			fmt.Fprintf(w, "Names\t%s\n", strings.Join(request.Names.Texts(), ", "))
		})
	}
	return cmd
}

// journal writes a log beside the certificates, as runbooks for Connected Cache
// expect, and returns warnings if it cannot be written.
func (e *tlsEnv) journal(kind string, facts, warnings []string, err error) []string {
	lines := append([]string{"larder " + versionText()}, facts...)
	for _, w := range warnings {
		lines = append(lines, "warning: "+w)
	}
	if err != nil {
		lines = append(lines, "failed: "+err.Error())
	} else {
		lines = append(lines, "done")
	}
	if jerr := e.dir.Journal(kind, lines); jerr != nil {
		return []string{"the log was not written: " + jerr.Error()}
	}
	return nil
}
