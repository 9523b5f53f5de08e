package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/pki/caretaker"
	"larder/internal/pki/csr"
	"larder/internal/pki/enroll"
	"larder/internal/pki/tlsdir"
	"larder/internal/strictyaml"
	"larder/internal/sys/private"
)

// autoFlags are the flags of "larder tls auto".
type autoFlags struct {
	acme, est, scep, command string
	off, noWait              bool

	request *csr.Words
	name    string
	key     string
	roots   string

	ca, fingerprint       string
	email                 []string
	agree                 bool
	challenge             []string
	dnsCommand            string
	eabKeyID, eabKeyFile  string
	preferredChain        string
	user, passwordFile    string
	clientCert, clientKey string
	challengeFile, caID   string
	timeout               time.Duration
}

func tlsAutoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "auto",
		Short: "Get and renew the certificate without hands",
		Long: `Sets down how the node gets its certificate and renews it by itself at two thirds
of its life, gets the first one at once, and shows how it stands. Without flags
it only shows that.

  --acme URL           an authority that speaks ACME (RFC 8555), public or private
  --est URL            Enrollment over Secure Transport (RFC 7030)
  --scep URL           SCEP (RFC 8894), such as NDES of AD CS
  --sign-command CMD   a program that gets a request on stdin and writes a
                       certificate to stdout, for everything else

Passwords and keys are read from files and kept in credentials/ of the TLS
directory, where only the node's account can read them.`,
		Example: `  larder tls auto --acme https://acme-v02.api.letsencrypt.org/directory --agree-terms --email it@example.com --san-dns cache.example.com
  larder tls auto --acme https://ca.example.com/acme/acme/directory --ca /etc/ssl/root.pem --challenge tls-alpn-01 --san-dns cache.example.com
  larder tls auto --scep http://ca.example.com/certsrv/mscep/mscep.dll --challenge-file /root/challenge --algo RSA --san-dns cache.example.com
  larder tls auto --sign-command '/usr/local/bin/sign --profile server' --san-dns cache.example.com
  larder tls auto --off`,
		Args: noArgs,
	}
	set := false // something is to be written
	env := tlsFlagsWith(cmd, func(path string) (*tlsdir.Dir, error) {
		if set {
			return tlsdir.Open(path, "")
		}
		return tlsdir.Look(path)
	})
	show := outputFlag(cmd)
	a := &autoFlags{request: requestFlags(cmd)}
	f := cmd.Flags()
	f.StringVar(&a.acme, "acme", "", "directory URL of an ACME authority")
	f.StringVar(&a.est, "est", "", "URL of an EST server")
	f.StringVar(&a.scep, "scep", "", "URL of a SCEP server")
	f.StringVar(&a.command, "sign-command", "", "program that signs: request on stdin, certificate on stdout")
	f.BoolVar(&a.off, "off", false, "renew by hand again; the certificate stays in use")
	f.BoolVar(&a.noWait, "no-wait", false, "do not get the first certificate now; the node does it when it runs")
	f.StringVar(&a.name, "name", "auto", "what certificates and keys are called")
	f.StringVar(&a.key, "key", enroll.KeyRotate, "rotate: a new key with each renewal; keep: the same key")
	f.StringVar(&a.roots, "root", "", "PEM file of roots that issued certificates must chain to")
	f.StringVar(&a.ca, "ca", "", "PEM file of roots of the authority's server (ACME, EST); default: the system's")
	f.StringVar(&a.fingerprint, "ca-fingerprint", "", "SHA-256 of the authority's certificate (EST without --ca, SCEP)")
	f.StringSliceVar(&a.email, "email", nil, "ACME: where the authority may write to")
	f.BoolVar(&a.agree, "agree-terms", false, "ACME: agree to the authority's terms of service")
	f.StringSliceVar(&a.challenge, "challenge", nil, "ACME: http-01 (the default), tls-alpn-01 or dns-01; several in order of preference")
	f.StringVar(&a.dnsCommand, "dns-command", "", "ACME, dns-01: program that is called with present|cleanup NAME VALUE")
	f.StringVar(&a.eabKeyID, "eab-key-id", "", "ACME: key id of the external account")
	f.StringVar(&a.eabKeyFile, "eab-key-file", "", "ACME: file with its HMAC key, base64url")
	f.StringVar(&a.preferredChain, "preferred-chain", "", "ACME: common name of the root wanted, where there are several")
	f.StringVar(&a.user, "user", "", "EST: user")
	f.StringVar(&a.passwordFile, "password-file", "", "EST: file with the user's password")
	f.StringVar(&a.clientCert, "client-cert", "", "EST: certificate for the first enrolment, PEM")
	f.StringVar(&a.clientKey, "client-key", "", "EST: its key, PEM")
	f.StringVar(&a.challengeFile, "challenge-file", "", "SCEP: file with the challenge password")
	f.StringVar(&a.caID, "ca-identifier", "", "SCEP: which authority of several")
	f.DurationVar(&a.timeout, "timeout", 0, "how long --sign-command may take; default 5m")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ways := 0
		for _, w := range []string{a.acme, a.est, a.scep, a.command} {
			if w != "" {
				ways++
			}
		}
		var extra []string
		for _, name := range slices.Concat(slices.Sorted(maps.Keys(ofWay)), ofRequest) {
			if cmd.Flags().Changed(name) {
				extra = append(extra, "--"+name)
			}
		}
		switch {
		case ways == 0 && len(extra) > 0:
			return usagef("%s: %s says nothing without a way: one of --acme, --est, --scep and --sign-command", cmd.CommandPath(), strings.Join(extra, ", "))
		case ways > 1 || ways == 1 && a.off:
			return usagef("%s takes one of --acme, --est, --scep, --sign-command and --off", cmd.CommandPath())
		}
		set = ways == 1
		e, err := env()
		if err != nil {
			return err
		}
		switch {
		case a.off: // with nothing else: it is not among the ways
			if err := enroll.Remove(e.dir.Path()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "The certificate is renewed by hand from now on; the one in use stays.")
		case ways == 1:
			if err := a.setUp(cmd, e); err != nil {
				return err
			}
		}
		s := nodeTLS(cmd.Context(), e.dir)
		auto := autoWithoutNode(e.dir)
		if s != nil && s.Auto != nil && auto != nil {
			auto = s.Auto
		}
		return show(struct {
			Automatic bool            `json:"automatic"`
			Auto      *caretaker.Auto `json:"auto,omitempty"`
		}{auto != nil, auto}, func(w io.Writer) { autoTable(w, auto) })
	}
	return cmd
}

// setUp writes the settings and gets the first certificate. If that fails the
// settings stay: the node goes on trying.
func (a *autoFlags) setUp(cmd *cobra.Command, e *tlsEnv) error {
	if err := a.checkFlags(cmd); err != nil {
		return err
	}
	settings, err := a.settings(e)
	if err != nil {
		return err
	}
	request, err := settings.Request.Request()
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if err := a.keepSecrets(e, settings); err != nil {
		return err
	}
	r, err := e.renewer()
	if err != nil {
		return err
	}
	warnings, err := r.Check(settings)
	if err != nil {
		return &exitError{exitUsage, inFlags(err)}
	}
	warn(cmd, append(warnings, request.Warnings(e.names)...)...)
	warn(cmd, e.unknownNames(cmd.Context(), request.Names.Hosts())...)
	if err := settings.Save(e.dir.Path()); err != nil {
		return err
	}
	if a.noWait {
		return nil
	}
	done, err := e.renew(cmd.Context())
	if err != nil {
		return tlsExitAfterSetUp(err)
	}
	if done.Active {
		fmt.Fprintf(cmd.ErrOrStderr(), "The certificate for %s is in use until %s.\n", strings.Join(done.Entry.SANs, ", "), dayText(done.Entry.NotAfter))
	} else {
		fmt.Fprintln(cmd.ErrOrStderr(), done.Note)
	}
	return nil
}

// flagOf are the flags behind the fields of the settings.
var flagOf = map[string]string{
	"acme.directory": "acme", "acme.challenge": "challenge", "acme.dns_command": "dns-command", "acme.eab_key_id": "eab-key-id", "est.url": "est", "est.user": "user",
	"est.client_cert": "client-cert", "scep.url": "scep", "command.run": "sign-command", "command.timeout": "timeout", "key": "key",
}

// inFlags names mistakes in the settings after the flags that they came by.
func inFlags(err error) error {
	var ms strictyaml.Mistakes
	if !errors.As(err, &ms) {
		return err
	}
	named := slices.Clone(ms)
	for i := range named {
		field, index, found := strings.Cut(named[i].Field, "[")
		if flag, ok := flagOf[field]; ok {
			named[i].Field = "--" + flag
			if found {
				named[i].Field += "[" + index
			}
		}
	}
	return named
}

// ofWay are the flags that go with one way or two only.
var ofWay = map[string]string{
	"ca": "acme est", "ca-fingerprint": "est scep", "email": "acme", "agree-terms": "acme", "challenge": "acme", "dns-command": "acme", "eab-key-id": "acme", "eab-key-file": "acme",
	"preferred-chain": "acme", "user": "est", "password-file": "est", "client-cert": "est", "client-key": "est", "challenge-file": "scep", "ca-identifier": "scep", "timeout": "sign-command",
}

// ofRequest are the flags that say what is asked for, and how.
var ofRequest = []string{"algo", "key-size-or-curve", "subject-common-name", "subject-country", "subject-state", "subject-org",
	"san-dns", "san-ip", "san-uri", "san-email", "san-rid", "san-dir-name", "san-other-name", "name", "key", "root", "no-wait"}

// checkFlags refuses flags that would do nothing.
func (a *autoFlags) checkFlags(cmd *cobra.Command) (err error) {
	way := "sign-command"
	for name, value := range map[string]string{"acme": a.acme, "est": a.est, "scep": a.scep} {
		if value != "" {
			way = name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ofWay)) {
		if cmd.Flags().Changed(name) && !slices.Contains(strings.Fields(ofWay[name]), way) {
			err = errors.Join(err, usagef("--%s does not go with --%s", name, way))
		}
	}
	return err
}

// tlsExitAfterSetUp says that the settings are kept although the first try
// failed.
func tlsExitAfterSetUp(err error) error {
	return fmt.Errorf("the settings are kept and a running node goes on trying, but no certificate was got: %w", err)
}

// settings are what the flags say.
func (a *autoFlags) settings(e *tlsEnv) (*enroll.Settings, error) {
	s := &enroll.Settings{Name: a.name, Key: a.key}
	if err := tlsdir.CheckName("--name", a.name); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	if err := a.completeRequest(e); err != nil {
		return nil, err
	}
	s.Request = *a.request
	var err error
	abs := func(flag, name string) string {
		if name == "" {
			return ""
		}
		full, aerr := filepath.Abs(name)
		if aerr == nil {
			_, aerr = os.Stat(full)
		}
		if aerr != nil {
			code := exitUsage
			if errors.Is(aerr, fs.ErrNotExist) {
				code = exitNotFound
			}
			err = errors.Join(err, &exitError{code, fmt.Errorf("%s: %w", flag, aerr)})
		}
		return full
	}
	s.Roots = abs("--root", a.roots)
	switch {
	case a.acme != "":
		s.ACME = &enroll.ACME{Directory: a.acme, CA: abs("--ca", a.ca), Email: a.email, AgreeTerms: a.agree, Challenge: a.challenge,
			DNSCommand: a.dnsCommand, EABKeyID: a.eabKeyID, EABKeyFile: a.eabKeyFile, PreferredChain: a.preferredChain}
	case a.est != "":
		s.EST = &enroll.EST{URL: a.est, CA: abs("--ca", a.ca), Fingerprint: a.fingerprint, User: a.user, PasswordFile: a.passwordFile,
			ClientCert: abs("--client-cert", a.clientCert), ClientKey: abs("--client-key", a.clientKey)}
	case a.scep != "":
		s.SCEP = &enroll.SCEP{URL: a.scep, ChallengeFile: a.challengeFile, Fingerprint: a.fingerprint, CA: a.caID}
	default:
		s.Command = &enroll.Command{Run: a.command, Timeout: a.timeout}
	}
	return s, err
}

// completeRequest takes what was not said from the request of the certificate
// in use.
func (a *autoFlags) completeRequest(e *tlsEnv) error {
	w := a.request
	named := len(w.SANDNS)+len(w.SANIP)+len(w.SANURI)+len(w.SANEmail)+len(w.SANRID)+len(w.SANDirName)+len(w.SANOtherName) > 0
	if !named && w.CommonName == "" && w.Algorithm == "" {
		like, err := e.dir.RequestLike()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, tlsdir.ErrNotFound) {
			return usagef("there is no certificate yet whose names could be taken: say which names clients use with --san-dns or --san-ip")
		}
		if err != nil {
			return err
		}
		*w = like.Words()
		return nil
	}
	if w.Algorithm == "" {
		w.Algorithm = "EC"
		if a.scep != "" {
			w.Algorithm = "RSA" // its messages are encrypted to the key
		}
	}
	if w.CommonName == "" {
		for _, list := range [][]string{w.SANDNS, w.SANIP} {
			if len(list) > 0 && w.CommonName == "" {
				w.CommonName, _, _ = strings.Cut(list[0], ",")
			}
		}
	}
	return nil
}

// keepSecrets copies secrets into credentials/ and names the copies in the
// settings.
func (a *autoFlags) keepSecrets(e *tlsEnv, s *enroll.Settings) error {
	for _, secret := range []struct {
		flag, file, name string
		field            *string
	}{
		{"--eab-key-file", a.eabKeyFile, "eab-key", fieldOf(s.ACME, func(x *enroll.ACME) *string { return &x.EABKeyFile })},
		{"--password-file", a.passwordFile, "est-password", fieldOf(s.EST, func(x *enroll.EST) *string { return &x.PasswordFile })},
		{"--challenge-file", a.challengeFile, "scep-challenge", fieldOf(s.SCEP, func(x *enroll.SCEP) *string { return &x.ChallengeFile })},
	} {
		if secret.file == "" {
			continue
		}
		text, err := readSecret(secret.flag, secret.file)
		if err != nil {
			return err
		}
		name := "credentials/" + secret.name
		if err := private.WriteFile(filepath.Join(e.dir.Path(), filepath.FromSlash(name)), []byte(text+"\n")); err != nil {
			return err
		}
		*secret.field = name
	}
	return nil
}

func fieldOf[T any](x *T, field func(*T) *string) *string {
	if x == nil {
		return nil
	}
	return field(x)
}
