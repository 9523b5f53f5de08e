package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/control"
	"larder/internal/control/access"
	"larder/internal/control/config"
	"larder/internal/control/db"
	"larder/internal/node/catalog"
	"larder/internal/strictyaml"
)

func controlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Run the control plane, and look after it",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(controlRunCommand(), controlCheckCommand(), controlTokenCommand(), controlUserCommand(), controlBackupCommand(), controlRestoreCommand())
	return cmd
}

// loadControlConfig reads a configuration of the control plane.
func loadControlConfig(name string) (*config.Config, error) {
	cfg, err := config.Load(name, os.Getenv)
	var ms strictyaml.Mistakes
	switch {
	case errors.As(err, &ms):
		return nil, &exitError{exitUsage, err}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &exitError{exitNotFound, fmt.Errorf("%w; name the file with --config, or write one (docs/operating/control.md)", err)}
	}
	return cfg, err
}

// controlPlace adds --config and --state, and returns what reads the
// configuration they name: a file, or the control plane of "larder up".
func controlPlace(cmd *cobra.Command) func() (*config.Config, error) {
	file := cmd.Flags().String("config", "", "the control plane's configuration file (default: "+defaultControlConfig+", if --state is not given)")
	state := cmd.Flags().String("state", "", `the directory of "larder up", or of a control plane without a file`)
	return func() (*config.Config, error) {
		switch {
		case *file != "" && *state != "":
			return nil, usagef("--config and --state: found both, expected one of them")
		case *state != "":
			dir, err := filepath.Abs(*state)
			if err != nil {
				return nil, err
			}
			cfg := config.Default(os.Getenv)
			cfg.State = dir
			if _, err := os.Stat(filepath.Join(dir, "control")); err == nil {
				cfg.State = filepath.Join(dir, "control")
			}
			return cfg, cfg.Validate()
		case *file == "":
			*file = defaultControlConfig
		}
		return loadControlConfig(*file)
	}
}

func controlRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve until stopped",
		Long: `Serves the portal, the API and the nodes with the configuration of a file until
SIGTERM or an interrupt. Several replicas may run on one PostgreSQL.

The first start prints a link on stderr by which the first owner is made, once,
within a day.`,
		Args: noArgs,
	}
	file := cmd.Flags().String("config", defaultControlConfig, "the control plane's configuration file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadControlConfig(*file)
		if err != nil {
			return err
		}
		log := newLogger(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.Log.Level}))
		return runControl(cmd.Context(), cmd.ErrOrStderr(), cfg, control.Options{Log: log, Version: versionText(), CheckPublishers: catalog.CheckFiles})
	}
	return cmd
}

// gcPercent is how much garbage may lie about, in percent of what is in use: most
// of a control plane's memory is connections of nodes that wait, which live for
// long, so collecting more often costs little and saves memory.
// GOGC in the environment wins.
const gcPercent = 55

func runControl(ctx context.Context, talk io.Writer, cfg *config.Config, o control.Options) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	c, err := control.Open(ctx, cfg, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	said := make(chan error, 1)
	go func() {
		addr, err := c.WaitServing(ctx) // with port 0 only the system knows where
		if err == nil {
			if err = sayFirstLink(ctx, talk, c, controlURL(cfg.Names[0], addr)); err != nil {
				cancel(err)
			}
			said <- err
			return
		}
		said <- nil // Run says why
	}()
	err = c.Run(ctx)
	cancel(nil)
	return errors.Join(err, <-said)
}

// sayFirstLink prints the link for the first owner, if there is none.
func sayFirstLink(ctx context.Context, w io.Writer, c *control.Control, base string) error {
	link, err := c.FirstLink(ctx)
	if err != nil || link == "" {
		return err
	}
	_, err = fmt.Fprintf(w, "There is no owner yet. Make the first one, within a day, at\n\n  %s%s\n\n", base, link)
	return err
}

// controlURL is where people reach a control plane.
func controlURL(name, listen string) string {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		port = "8440"
	}
	return "https://" + net.JoinHostPort(name, port)
}

func controlCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration, and whether its database answers",
		Args:  noArgs,
	}
	file := cmd.Flags().String("config", defaultControlConfig, "the control plane's configuration file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadControlConfig(*file)
		if err != nil {
			return err
		}
		if !cfg.Postgres() {
			if _, err := os.Stat(strings.TrimPrefix(cfg.Database.URL, "sqlite:")); errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is fine; the database is made at the first start\n", *file)
				return nil
			}
		}
		d, err := db.Open(cmd.Context(), cfg.Database.URL, nil)
		if err != nil {
			return err
		}
		defer d.Close()
		newest, err := db.Newest()
		if err != nil {
			return err
		}
		version, err := d.Version(cmd.Context())
		if err != nil {
			return err
		}
		if version < newest {
			fmt.Fprintf(cmd.ErrOrStderr(), "the database is of version %d and becomes version %d at the next start; make a back-up first\n", version, newest)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is fine\n", *file)
		return nil
	}
	return cmd
}

// withAccess opens the database of a control plane, which may be running, for a
// command on its machine.
func withAccess(ctx context.Context, place func() (*config.Config, error), f func(s *access.Service, d *db.DB, tx *sql.Tx) error) error {
	cfg, err := place()
	if err != nil {
		return err
	}
	if !cfg.Postgres() {
		if _, err := os.Stat(strings.TrimPrefix(cfg.Database.URL, "sqlite:")); err != nil {
			return &exitError{exitNotFound, fmt.Errorf("the control plane's database: %w; start the control plane once, or name its place with --config or --state", err)}
		}
	}
	d, err := control.OpenDB(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	key, err := control.OpenKey(cfg)
	if err != nil {
		return err
	}
	s, err := control.OpenAccess(cfg, d, key, nil)
	if err != nil {
		return err
	}
	err = d.Tx(ctx, func(tx *sql.Tx) error { return f(s, d, tx) })
	var no *access.Refusal
	if errors.As(err, &no) {
		code := map[int]int{400: exitUsage, 403: exitDenied, 404: exitNotFound, 409: exitConflict}[no.Status]
		if code == 0 {
			code = exitFailed
		}
		return &exitError{code, err}
	}
	return err
}

// localPrincipal is whoever runs a command on the control plane's machine: they
// could read the database anyway.
func localPrincipal() *access.Principal {
	name := "local"
	if u := os.Getenv("SUDO_USER"); u != "" {
		name = "local " + u
	} else if u := os.Getenv("USER"); u != "" {
		name = "local " + u
	}
	return &access.Principal{Kind: access.Local, Name: name, Role: access.Owner, Scopes: []string{access.Everything}}
}

func controlTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens for programs", Args: cobra.ArbitraryArgs, RunE: needSubcommand}
	create := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it, once",
		Long: `Makes a token on the control plane's own machine and prints it on stdout; nothing
keeps it. Programs send it as "Authorization: Bearer TOKEN", or use it as client
secret with the client id that is printed on stderr.`,
		Args: noArgs,
	}
	place := controlPlace(create)
	name := create.Flags().String("name", "", "what it is for")
	role := create.Flags().String("role", "", "owner, operator or reader")
	scopes := create.Flags().StringSlice("scope", nil, "a resource group it is good for, /subscriptions/ID/resourceGroups/NAME; may be given again (default: everything)")
	days := create.Flags().Int("days", 0, "days it is good; 0: without end")
	create.RunE = func(cmd *cobra.Command, args []string) error {
		if *days < 0 || *days > 3650 {
			return usagef("--days: found %d, expected 1 to 3650, or 0 for no end", *days)
		}
		return withAccess(cmd.Context(), place, func(s *access.Service, d *db.DB, tx *sql.Tx) error {
			t, secret, err := s.CreateToken(cmd.Context(), tx, access.NewToken{Name: *name, Role: access.Role(*role), Scopes: *scopes, Life: time.Duration(*days) * 24 * time.Hour}, localPrincipal())
			if err != nil {
				return err
			}
			if err := s.Record(cmd.Context(), tx, access.Entry{Actor: localPrincipal(), Action: "token.create", Target: "token " + t.ID, After: t}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "client id %s\n", t.ID)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
			return err
		})
	}
	cmd.AddCommand(create)
	return cmd
}

func controlUserCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "People who may sign in", Args: cobra.ArbitraryArgs, RunE: needSubcommand}
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an account; its password is read from a file, or from stdin",
		Args:  oneArg("the user's name"),
	}
	place := controlPlace(create)
	role := create.Flags().String("role", "reader", "owner, operator or reader")
	scopes := create.Flags().StringSlice("scope", nil, "a resource group, /subscriptions/ID/resourceGroups/NAME; may be given again (default: everything)")
	passwordFile := create.Flags().String("password-file", "-", "the file with the password; -: stdin")
	create.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := readPassword(cmd, *passwordFile)
		if err != nil {
			return err
		}
		return withAccess(cmd.Context(), place, func(s *access.Service, d *db.DB, tx *sql.Tx) error {
			u, err := s.CreateUser(cmd.Context(), tx, access.NewUser{Name: args[0], Password: password, Role: access.Role(*role), Scopes: *scopes}, localPrincipal())
			if err != nil {
				return err
			}
			if err := s.Record(cmd.Context(), tx, access.Entry{Actor: localPrincipal(), Action: "user.create", Target: "user " + u.Name, After: u}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", u.Name, u.Role)
			return err
		})
	}
	reset := &cobra.Command{
		Use:   "reset NAME",
		Short: "Give an account a new password and take its second factor away",
		Args:  oneArg("the user's name"),
	}
	resetPlace := controlPlace(reset)
	resetFile := reset.Flags().String("password-file", "-", "the file with the password; -: stdin")
	reset.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := readPassword(cmd, *resetFile)
		if err != nil {
			return err
		}
		return withAccess(cmd.Context(), resetPlace, func(s *access.Service, d *db.DB, tx *sql.Tx) error {
			off := false
			u, err := s.ChangeUser(cmd.Context(), tx, args[0], access.UserChange{Password: &password, TOTP: &off, Disabled: &off}, localPrincipal())
			if err != nil {
				return err
			}
			if err := s.Record(cmd.Context(), tx, access.Entry{Actor: localPrincipal(), Action: "user.reset", Target: "user " + u.Name}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s has a new password; all sessions have ended\n", u.Name)
			return err
		})
	}
	cmd.AddCommand(create, reset)
	return cmd
}

func readPassword(cmd *cobra.Command, file string) (string, error) {
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return "", usagef("--password-file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
