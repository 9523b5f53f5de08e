package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"larder/internal/pki/preflight"
	"larder/internal/pki/tlsdir"
	"larder/internal/sys/ports"
)

func tlsPreflightCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "See whether HTTPS can work here, before anything is changed",
		Long: `Looks at the node's version, its port for HTTPS, the names and addresses that
clients use, what lies between here and a client, the clock, and write access.
Each check says what it found, why that matters and what to do. Nothing is
changed. Exit code 1 if something would keep HTTPS from working.`,
		Args: noArgs,
	}
	// A directory that is not there yet is a finding, not a mistake.
	env := tlsFlagsWith(cmd, func(path string) (*tlsdir.Dir, error) { return tlsdir.At(path), nil })
	show := outputFlag(cmd)
	f := cmd.Flags()
	https := f.StringSlice("https", nil, "where HTTPS is to be served; default: listen.https of the configuration, else :443")
	seen := f.String("seen", "", "what a client saw: a thumbprint (SHA-1 or SHA-256), or a file with the certificate in PEM")
	connect := f.StringSlice("connect", nil, "more host:port to look at as a client does")
	timeURL := f.String("time-url", "", "an HTTP server whose clock to compare with")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		o := preflight.Options{Dir: e.dir.Path(), HTTPS: *https, Names: e.names, Version: versionText(), Connect: *connect, TimeURL: *timeURL, Holder: portHolder}
		if where, running, err := e.dir.Running(); err == nil && running {
			o.Node = preflight.NodeState{Running: true, Version: where.Version, HTTPS: where.HTTPS}
			if s := nodeTLS(cmd.Context(), e.dir); s != nil && s.Certificate != nil {
				o.Node.ServedSHA256 = s.Certificate.SHA256
			}
			if len(o.HTTPS) == 0 {
				if o.HTTPS = where.HTTPS; len(o.HTTPS) == 0 {
					o.HTTPS = where.Configured
				}
			}
		}
		if len(o.HTTPS) == 0 && e.cfg != nil {
			o.HTTPS = e.cfg.Listen.HTTPS
		}
		if len(o.HTTPS) == 0 {
			o.HTTPS = []string{":443"}
		}
		if _, port, err := net.SplitHostPort(o.HTTPS[0]); err == nil {
			if n, err := strconv.Atoi(port); err == nil {
				o.Port = n
			}
		}
		if o.Seen = *seen; o.Seen != "" {
			if text, err := os.ReadFile(o.Seen); err == nil {
				o.Seen = string(text)
			}
		}
		checks := preflight.Run(cmd.Context(), o)
		if err := show(checks, func(w io.Writer) { preflightTable(w, checks) }); err != nil {
			return err
		}
		failed := 0
		for _, c := range checks {
			if c.Result == preflight.Failed {
				failed++
			}
		}
		if failed > 0 {
			return fmt.Errorf("%s failed", count(failed, "check"))
		}
		return nil
	}
	return cmd
}

func portHolder(addr string) (string, error) {
	p, found, err := ports.Holder("tcp", addr)
	if err != nil || !found {
		return "", err
	}
	return p.String(), nil
}

// preflightTable is written without columns: its sentences are long.
func preflightTable(w io.Writer, checks []preflight.Check) {
	for i, c := range checks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "[%s] %s\n", c.Result, c.Title)
		for _, part := range []struct{ name, text string }{{"found", c.Found}, {"why", c.Why}, {"do", c.Do}} {
			if part.text != "" {
				fmt.Fprintf(w, "  %-6s %s\n", part.name+":", strings.ReplaceAll(part.text, "\n", "\n         "))
			}
		}
	}
}
