package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/node/config"
	"larder/internal/sys/firewall"
	"larder/internal/sys/ports"
	"larder/internal/sys/winservice"
)

func nodeDeployCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy",
		Short: "Set this machine up to run a node as a service",
		Long: `Checks the configuration, makes the node's directories for the account it will
run under, and lets clients through the firewall. Every step is printed with
the command it amounts to.

Windows: installs the service and adds the firewall's rules.
Linux: the package brings the unit larder-node; what else it needs to know is
written beside it. The firewall's and systemd's commands are printed and left
to you; --start runs systemd's.

With the words that a control plane shows for a node, such as customerid=… and
registrationkey=…, the machine becomes that node. They may also be written as
flags. If there is no configuration file yet, one is written with the drives of
drivepathandsizeingb="/srv/cache,100" and the proxy of proxyurl.`,
		Example: `  larder node deploy --config /etc/larder/node.yaml --start
  larder node deploy controlurl=https://control.example:8440 controlfingerprint=sha256:… customerid=… cachenodeid=… customerkey=… registrationkey=… drivepathandsizeingb="/srv/cache,100"`,
		Args: cobra.ArbitraryArgs,
	}
	file := configFlag(cmd)
	words := enrolmentFlags(cmd)
	account := cmd.Flags().String("run-time-account", "", `the account the node runs under: Linux larder; Windows NT SERVICE\larder-node, LocalService, .\name, DOMAIN\name, or DOMAIN\name$ for a managed one`)
	passwordFile := cmd.Flags().String("run-time-password-file", "", "a file with that account's password; Windows only, and only for users")
	noFirewall := cmd.Flags().Bool("no-firewall", false, "leave the firewall alone")
	start := cmd.Flags().Bool("start", false, "start the node")
	dry := cmd.Flags().Bool("dry-run", false, "only say what would be done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*dry && !isAdministrator() {
			return &exitError{exitDenied, fmt.Errorf("%s: this account may not set a machine up; %s, or look at --dry-run", cmd.CommandPath(), beAdministrator)}
		}
		if err := words.read(args); err != nil {
			return err
		}
		if err := words.firstConfig(cmd, *file, *dry); err != nil {
			return err
		}
		cfg, err := words.loadConfig(*file, *dry)
		if err != nil {
			return err
		}
		for _, w := range cfg.Warnings() {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
		}
		if err := node.Check(cfg); err != nil {
			return &exitError{exitUsage, config.Locate(*file, err)}
		}
		if err := words.enrol(cmd, cfg, *dry); err != nil {
			return err
		}
		d, err := survey(cmd.Context(), *file, cfg, *account, *passwordFile)
		if err != nil {
			return err
		}
		d.noFirewall, d.start = *noFirewall, *start
		steps, err := deploySteps(d, ownHands())
		if err != nil {
			return usagef("%w", err)
		}
		return carryOut(cmd.Context(), cmd.OutOrStdout(), steps, *dry)
	}
	return cmd
}

func nodeUninstallCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Undo what deploy has done to this machine",
		Long: `Stops and removes the service and the firewall's rules. What is cached, the
certificates and keys, and the configuration stay, and their places are printed.

Linux: systemd's and the firewall's commands are printed and left to you;
--stop runs systemd's. The program itself goes with its package.`,
		Args: noArgs,
	}
	file := configFlag(cmd)
	noFirewall := cmd.Flags().Bool("no-firewall", false, "leave the firewall alone")
	stop := cmd.Flags().Bool("stop", false, "stop the node; on Windows it is stopped anyway")
	dry := cmd.Flags().Bool("dry-run", false, "only say what would be done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*dry && !isAdministrator() {
			return &exitError{exitDenied, fmt.Errorf("%s: this account may not change a machine; %s, or look at --dry-run", cmd.CommandPath(), beAdministrator)}
		}
		cfg, err := config.Load(*file, os.Getenv)
		if err != nil {
			// A node without a good configuration must be removable.
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v; going by the defaults\n", err)
			cfg = config.Default(os.Getenv)
		}
		d, err := survey(cmd.Context(), *file, cfg, "", "")
		if err != nil {
			return err
		}
		d.noFirewall, d.start = *noFirewall, *stop
		steps, err := uninstallSteps(d, ownHands())
		if err != nil {
			return usagef("%w", err)
		}
		return carryOut(cmd.Context(), cmd.OutOrStdout(), steps, *dry)
	}
	return cmd
}

// carryOut does the steps in their order and prints each. The first that fails
// ends it: the ones after it may need it.
func carryOut(ctx context.Context, w io.Writer, steps []step, dry bool) error {
	for _, s := range steps {
		word := "done"
		switch {
		case s.note:
			word = "note"
		case s.do == nil:
			word = "to do"
		case dry:
			word = "would"
		default:
			if err := s.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.what, err)
			}
		}
		fmt.Fprintf(w, "%-6s %s\n", word+":", s.what)
		if s.command != "" {
			fmt.Fprintf(w, "         %s\n", s.command)
		}
	}
	return nil
}

// survey looks at the machine, for the plan to be a function of values.
func survey(ctx context.Context, file string, cfg *config.Config, account, passwordFile string) (deployment, error) {
	d := deployment{cfg: cfg, account: account, held: map[string]string{}, firewall: firewall.Detect(ctx)}
	var err error
	if d.config, err = filepath.Abs(file); err != nil {
		return d, err
	}
	if d.exe, err = os.Executable(); err != nil {
		return d, err
	}
	if passwordFile != "" {
		b, err := os.ReadFile(passwordFile)
		if err != nil {
			return d, usagef("--run-time-password-file: %w", err)
		}
		d.password = strings.TrimRight(string(b), "\r\n")
	}
	for _, addr := range append(append([]string{}, cfg.Listen.HTTP...), cfg.Listen.HTTPS...) {
		if p, found, err := ports.Holder("tcp", addr); err == nil && found && !isThisProgram(p, d.exe) {
			d.held[addr] = p.String()
		}
	}
	d.onThisSystem()
	d.look()
	return d, nil
}

// isThisProgram is true for a node that runs already.
func isThisProgram(p ports.Process, exe string) bool {
	return strings.EqualFold(filepath.Base(p.Path), filepath.Base(exe))
}

// portOf is the port of host:port, for people.
func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return port
}

// ownHands are what really changes this machine.
func ownHands() hands {
	return hands{
		grant:      grantDir,
		writeFile:  writeDropIn,
		removeFile: removeDropIn,
		install:    winservice.Install,
		startIt:    winservice.Start,
		uninstall: func(ctx context.Context, name string) error {
			if err := winservice.Uninstall(ctx, name); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		},
		addRule:    firewall.Add,
		removeRule: firewall.Remove,
		run:        runProgram,
	}
}
