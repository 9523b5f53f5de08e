package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/node/config"
	"larder/internal/node/link"
	"larder/internal/pki/bundle"
	"larder/internal/pki/enroll"
	"larder/internal/pki/preflight"
	"larder/internal/pki/problem"
	"larder/internal/pki/tlsdir"
	"larder/internal/strictyaml"
)

func tlsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tls",
		Short: "Look after the certificate that clients see",
		Long: `Requests, imports and renews the certificate that a node serves HTTPS with.

By hand:
  larder tls preflight                                    can HTTPS work here?
  larder tls csr --algo EC --csr-name node --subject-common-name cache.example.com --san-dns cache.example.com
  (your authority signs certs/node.csr)
  larder tls import node.crt                              and HTTPS is on
Without hands:
  larder tls auto --help

The commands change the TLS directory of a configuration (--config), or one that
is named (--dir). A node that runs follows at once, without a dropped
connection. The spellings of Connected Cache's scripts (-algo, -csrName,
-certName, …) are understood, too.`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(tlsPreflightCommand(), tlsCSRCommand(), tlsImportCommand(), tlsShowCommand(), tlsListCommand(), tlsRetentionCommand(),
		tlsDisableCommand(), tlsEnableCommand(), tlsRollbackCommand(), tlsRenewCommand(), tlsAutoCommand())
	for _, sub := range cmd.Commands() {
		run := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) error { return tlsExit(run(cmd, args)) }
	}
	return cmd
}

// tlsExit gives errors of the PKI their exit codes.
func tlsExit(err error) error {
	var known *exitError
	var mistakes strictyaml.Mistakes
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, tlsdir.ErrConflict), errors.Is(err, enroll.ErrBusy): // also when that took too long
		return &exitError{exitConflict, withoutSentinel(err)}
	case errors.Is(err, tlsdir.ErrNotFound), errors.Is(err, enroll.ErrNotAutomatic):
		return &exitError{exitNotFound, withoutSentinel(err)}
	case errors.Is(err, fs.ErrNotExist):
		return &exitError{exitNotFound, err}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitDenied, err}
	case errors.Is(err, context.DeadlineExceeded):
		return &exitError{exitTimeout, err}
	case errors.As(err, &mistakes):
		return &exitError{exitUsage, err}
	}
	return err
}

// withoutSentinel is the problem in err, whose exit code says the rest.
func withoutSentinel(err error) error {
	var p *problem.Problem
	if errors.As(err, &p) {
		return p
	}
	return err
}

// tlsEnv is what a tls command works on.
type tlsEnv struct {
	dir   *tlsdir.Dir
	cfg   *config.Config // nil with --dir
	file  string         // of cfg
	names []string       // that clients use, as far as somebody said so
}

// tlsFlags adds the flags that all tls commands share and returns what opens
// the TLS directory that they name, making it if it is not there.
func tlsFlags(cmd *cobra.Command) func() (*tlsEnv, error) {
	return tlsFlagsWith(cmd, func(path string) (*tlsdir.Dir, error) { return tlsdir.Open(path, "") })
}

// tlsLookFlags is tlsFlags for commands that make and change nothing.
func tlsLookFlags(cmd *cobra.Command) func() (*tlsEnv, error) { return tlsFlagsWith(cmd, tlsdir.Look) }

func tlsFlagsWith(cmd *cobra.Command, open func(path string) (*tlsdir.Dir, error)) func() (*tlsEnv, error) {
	file := configFlag(cmd)
	dir := cmd.Flags().String("dir", "", "the TLS directory, instead of the one of a configuration")
	names := cmd.Flags().StringSlice("client-names", nil, "names and addresses that clients are told to use; default: those that the control plane set, else tls.client_names of the configuration")
	return func() (*tlsEnv, error) {
		env := &tlsEnv{names: *names}
		path := *dir
		if path != "" && cmd.Flags().Changed("config") {
			return nil, usagef("%s takes --config or --dir, not both", cmd.CommandPath())
		}
		if path == "" {
			cfg, err := loadConfig(*file)
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil, &exitError{exitNotFound, fmt.Errorf("reading the configuration: %s is not there; name one with --config, or a TLS directory with --dir", *file)}
				}
				return nil, err
			}
			env.cfg, path = cfg, cfg.TLS.Dir
			if env.file, err = filepath.Abs(*file); err != nil {
				return nil, err
			}
			if len(env.names) == 0 {
				if env.names, err = clientNames(cfg); err != nil {
					return nil, err
				}
			}
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		env.dir, err = open(path)
		return env, err
	}
}

// clientNames are those that the node's control plane set, else those of its
// configuration.
func clientNames(cfg *config.Config) ([]string, error) {
	d, err := link.Document(node.LinkDir(cfg.State))
	switch {
	case errors.Is(err, link.ErrNotEnrolled), err == nil && (d == nil || len(d.ClientNames) == 0):
		return cfg.TLS.ClientNames, nil
	case err != nil:
		return nil, fmt.Errorf("reading what the control plane set: %w; name the clients' names with --client-names", err)
	}
	return d.ClientNames, nil
}

// standards are what certificates are held against; roots are files that the
// administrator named.
func (e *tlsEnv) standards(roots []string) (tlsdir.Standards, error) {
	cfg := e.cfg
	if cfg == nil {
		cfg = &config.Config{}
	}
	st, err := node.Standards(cfg)
	if err != nil {
		return st, err
	}
	st.ClientNames = e.names
	for _, file := range roots {
		b, err := bundle.ReadFile(file, bundle.Options{})
		if err != nil {
			return st, fmt.Errorf("--root: %w", err)
		}
		st.Given = append(st.Given, b.Certs...)
	}
	return st, nil
}

// unknownNames warns if clients would hardly reach this machine by any of the
// names that a certificate or request has. Where somebody set down what clients
// use, the checks know better.
func (e *tlsEnv) unknownNames(ctx context.Context, has []string) []string {
	if len(e.names) > 0 || len(has) == 0 {
		return nil
	}
	var mine []string
	for _, n := range preflight.Names(ctx, preflight.Options{Dir: e.dir.Path(), Names: has}) {
		switch {
		case n.Source == preflight.FromConfiguration && n.Ours:
			return nil // it leads here
		case n.Source == preflight.FromConfiguration || n.LinkLocal:
		default:
			mine = append(mine, n.Name)
		}
	}
	for _, h := range has {
		for _, m := range mine {
			if strings.EqualFold(h, m) || strings.HasPrefix(h, "*.") && strings.HasSuffix(strings.ToLower(m), strings.ToLower(h[1:])) {
				return nil
			}
		}
	}
	return []string{fmt.Sprintf("none of %s leads to this machine, which has %s; clients must reach the node by one of the certificate's names. "+
		"If they use others, say which with tls.client_names in the configuration or --client-names", strings.Join(has, ", "), strings.Join(mine, ", "))}
}

// warn writes warnings to stderr.
func warn(cmd *cobra.Command, warnings ...string) {
	for _, w := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
	}
}

// readSecret reads a file that holds a password.
func readSecret(flag, file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", usagef("%s: %w", flag, err)
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return "", usagef("%s: %s is empty; expected a password", flag, file)
	}
	return text, nil
}
