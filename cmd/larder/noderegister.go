package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/node/config"
	"larder/internal/node/link"
	"larder/internal/node/origin"
	"larder/internal/sys/durable"
)

// enrolmentWords are what a control plane shows for a node, in the spelling of
// Connected Cache's script (facts, connected-cache 3.7), and two of ours: where
// the control plane is, and the fingerprint of its root.
type enrolmentWords map[string]*string

var enrolmentNames = []struct{ name, does string }{
	{"controlurl", "https address of the control plane"},
	{"controlfingerprint", "SHA-256 of its root certificate"},
	{"customerid", "the organisation's GUID"},
	{"cachenodeid", "the node's GUID"},
	{"customerkey", "the organisation's key; secret"},
	{"registrationkey", "the node's registration key, good once; secret"},
	{"drivepathandsizeingb", `drives as "PATH,GB[,PATH,GB…]", for a first configuration`},
	{"shoulduseproxy", "true or false"},
	{"proxyurl", "http://host:port of a proxy, for a first configuration"},
	{"proxytlscertificatepath", "a PEM file with the root of a proxy that opens TLS, for a first configuration"},
	{"rebootbypass", "taken and ignored: nothing here needs a reboot"},
}

func enrolmentFlags(cmd *cobra.Command) enrolmentWords {
	w := enrolmentWords{}
	for _, n := range enrolmentNames {
		w[n.name] = cmd.Flags().String(n.name, "", n.does)
	}
	return w
}

// assignment is the form of arguments of the vendor's script, key=value.
var assignment = regexp.MustCompile(`^-*([A-Za-z]+)=`)

// read takes key=value arguments. Values may be secrets and are not repeated.
func (w enrolmentWords) read(args []string) error {
	for _, a := range args {
		m := assignment.FindStringSubmatch(a)
		if m == nil {
			return usagef("found an argument that is no key=value; expected words such as customerid=…, as the control plane shows them")
		}
		v := w[strings.ToLower(m[1])]
		if v == nil {
			return usagef("found %s=…, expected some of %s", m[1], w.names())
		}
		*v = strings.Trim(a[len(m[0]):], `"`)
	}
	if u := *w["shoulduseproxy"]; u != "" {
		use, err := strconv.ParseBool(strings.TrimPrefix(strings.ToLower(u), "$"))
		if err != nil {
			return usagef("shoulduseproxy: found %q, expected true or false", u)
		}
		if use && *w["proxyurl"] == "" {
			return usagef("proxyurl: found nothing, expected http://host:port, as shoulduseproxy is true")
		}
		if !use {
			*w["proxyurl"] = ""
		}
	}
	if !w.wanted() {
		return nil
	}
	// All of it before anything is written.
	_, err := w.drives()
	_, caErr := w.proxyCA()
	if err := errors.Join(w.enrolment().Check(), err, caErr); err != nil {
		return usagef("%w", err)
	}
	return nil
}

func (w enrolmentWords) names() string {
	var names []string
	for _, n := range enrolmentNames {
		names = append(names, n.name)
	}
	return strings.Join(names, ", ")
}

// wanted reports whether the machine is to be enrolled.
func (w enrolmentWords) wanted() bool {
	for _, n := range []string{"controlurl", "controlfingerprint", "customerid", "cachenodeid", "customerkey", "registrationkey"} {
		if *w[n] != "" {
			return true
		}
	}
	return false
}

func (w enrolmentWords) enrolment() link.Enrolment {
	return link.Enrolment{
		URL: *w["controlurl"], Fingerprint: *w["controlfingerprint"], CustomerID: *w["customerid"], CacheNodeID: *w["cachenodeid"],
		CustomerKey: *w["customerkey"], RegistrationKey: *w["registrationkey"],
	}
}

// drives reads PATH,GB[,PATH,GB…].
func (w enrolmentWords) drives() ([]string, error) {
	text := *w["drivepathandsizeingb"]
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(text, ",")
	if len(parts)%2 != 0 {
		return nil, usagef("drivepathandsizeingb: found %d parts, expected pairs of a path and a size in GB, as in /srv/cache,100", len(parts))
	}
	var lines []string
	for i := 0; i < len(parts); i += 2 {
		path, size := strings.TrimSpace(parts[i]), strings.TrimSpace(parts[i+1])
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 || !filepath.IsAbs(path) {
			return nil, usagef("drivepathandsizeingb: found %q,%q, expected an absolute path and a size in GB", path, size)
		}
		lines = append(lines, fmt.Sprintf("  - {path: %s, size: %dGB}\n", yamlQuote(path), n))
	}
	return lines, nil
}

func yamlQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// firstConfigText is the configuration of a node of which only the words are
// known.
func (w enrolmentWords) firstConfigText(file string) (string, error) {
	drives, err := w.drives()
	if err != nil {
		return "", err
	}
	if len(drives) == 0 {
		return "", usagef(`there is no configuration file yet: name one that is there with --config, or the drives with drivepathandsizeingb="/srv/cache,100"`)
	}
	var b strings.Builder
	b.WriteString("# Written by larder node deploy. Change it as you like; what the control plane\n# sets wins over it.\ndrives:\n")
	b.WriteString(strings.Join(drives, ""))
	if p := *w["proxyurl"]; p != "" {
		fmt.Fprintf(&b, "upstream:\n  proxy: %s\n", yamlQuote(p))
		if *w["proxytlscertificatepath"] != "" {
			fmt.Fprintf(&b, "  proxy_ca: %s\n", yamlQuote(proxyCAFile(file)))
		}
	}
	if u := *w["controlurl"]; u != "" {
		fmt.Fprintf(&b, "control: {url: %s}\n", yamlQuote(u))
	}
	return b.String(), nil
}

// proxyCAFile is where the roots of a proxy lie: beside the configuration file,
// as the service may not be let to where they were given.
func proxyCAFile(config string) string { return filepath.Join(filepath.Dir(config), "proxy-ca.pem") }

// proxyCA reads the roots of a proxy that opens TLS, nil if there are none.
func (w enrolmentWords) proxyCA() ([]byte, error) {
	file := *w["proxytlscertificatepath"]
	if file == "" || *w["proxyurl"] == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("proxytlscertificatepath: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return nil, usagef("proxytlscertificatepath: found no certificate in %s, expected PEM", file)
	}
	return b, nil
}

// firstConfig writes a configuration if there is none.
func (w enrolmentWords) firstConfig(cmd *cobra.Command, file string, dry bool) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) || !w.wanted() {
		return nil
	}
	text, err := w.firstConfigText(file)
	if err != nil {
		return err
	}
	ca, err := w.proxyCA()
	if err != nil {
		return err
	}
	if dry {
		fmt.Fprintf(cmd.OutOrStdout(), "would: write %s\n", file)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if ca != nil {
		if err := durable.WriteFile(proxyCAFile(file), ca, 0o644); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "done:  write %s\n", file)
	return nil
}

// loadConfig reads the configuration, or with dry the one that would be written.
func (w enrolmentWords) loadConfig(file string, dry bool) (*config.Config, error) {
	if _, err := os.Stat(file); dry && w.wanted() && errors.Is(err, fs.ErrNotExist) {
		text, err := w.firstConfigText(file)
		if err != nil {
			return nil, err
		}
		return config.Parse(file, []byte(text), os.Getenv)
	}
	return loadConfig(file)
}

// enrol ties the machine to the control plane, if that is wanted.
func (w enrolmentWords) enrol(cmd *cobra.Command, cfg *config.Config, dry bool) error {
	if !w.wanted() {
		return nil
	}
	e := w.enrolment()
	e.Proxy = w.proxyFor(cfg)
	dir := node.LinkDir(cfg.State)
	if dry {
		fmt.Fprintf(cmd.OutOrStdout(), "would: register as node %s at %s\n", e.CacheNodeID, e.URL)
		return nil
	}
	done, err := link.Enrol(cmd.Context(), dir, e, node.SystemInfo(versionText()))
	var no *link.Refusal
	if errors.As(err, &no) && (no.Status == 403 || no.Status == 401) {
		return &exitError{exitDenied, fmt.Errorf("registering with the control plane: %w", err)}
	}
	if err != nil {
		return fmt.Errorf("registering with the control plane: %w", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "done:  registered as node %s at %s; the identity is good until %s and renews itself\n", done.CacheNodeID, e.URL, done.NotAfter.UTC().Format("2006-01-02"))
	return nil
}

// proxyFor is the proxy that the control plane is asked through where it cannot
// be reached directly: the command's, or the configuration's.
func (w enrolmentWords) proxyFor(cfg *config.Config) func(host string) *url.URL {
	u := cfg.Upstream.Proxy.URL()
	var p config.Proxy
	if text := *w["proxyurl"]; text != "" && p.UnmarshalText([]byte(text)) == nil {
		u = p.URL()
	}
	_, noProxy, err := origin.ProxyFromEnvironment(os.Getenv)
	return func(host string) *url.URL {
		if err == nil && noProxy != nil && noProxy(host) {
			return nil
		}
		return u
	}
}

func nodeRegisterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "register WORD=VALUE…",
		Short: "Tie this machine's node to a control plane",
		Long: `Makes a key, proves the registration key that the control plane shows for a node,
and keeps the identity that comes back in the node's state directory. The node
takes it up when it starts. A node that was registered before is registered
anew; what it was stays until the control plane has said yes.`,
		Args: cobra.ArbitraryArgs,
	}
	file := configFlag(cmd)
	words := enrolmentFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := words.read(args); err != nil {
			return err
		}
		if !words.wanted() {
			return usagef("%s needs the words that the control plane shows for the node; see %s --help", cmd.CommandPath(), cmd.CommandPath())
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		return words.enrol(cmd, cfg, false)
	}
	return cmd
}
