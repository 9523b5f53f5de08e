package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"larder/internal/control"
	"larder/internal/control/backup"
	"larder/internal/control/db"
	"larder/internal/sys/durable"
	"larder/internal/sys/private"
)

// backupKeys are the flags that say for whom a back-up is, or who reads it.
type backupKeys struct{ passphrase, recipients, identity string }

func (k *backupKeys) toRecipients() ([]age.Recipient, error) {
	switch {
	case k.passphrase != "" && k.recipients != "":
		return nil, usagef("--passphrase-file and --recipients-file: found both, expected one of them")
	case k.recipients != "":
		f, err := os.Open(k.recipients)
		if err != nil {
			return nil, usagef("--recipients-file: %w", err)
		}
		defer f.Close()
		rs, err := age.ParseRecipients(f)
		if err != nil {
			return nil, usagef("--recipients-file: %w", err)
		}
		return rs, nil
	case k.passphrase != "":
		p, err := k.readPassphrase()
		if err != nil {
			return nil, err
		}
		r, err := age.NewScryptRecipient(p)
		return []age.Recipient{r}, err
	}
	return nil, usagef("a back-up holds every secret of the control plane: name --passphrase-file, or --recipients-file with age's public keys")
}

func (k *backupKeys) toIdentities() ([]age.Identity, error) {
	switch {
	case k.passphrase != "" && k.identity != "":
		return nil, usagef("--passphrase-file and --identity-file: found both, expected one of them")
	case k.identity != "":
		f, err := os.Open(k.identity)
		if err != nil {
			return nil, usagef("--identity-file: %w", err)
		}
		defer f.Close()
		ids, err := age.ParseIdentities(f)
		if err != nil {
			return nil, usagef("--identity-file: %w", err)
		}
		return ids, nil
	case k.passphrase != "":
		p, err := k.readPassphrase()
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(p)
		return []age.Identity{id}, err
	}
	return nil, usagef("name --passphrase-file, or --identity-file with age's secret keys")
}

func (k *backupKeys) readPassphrase() (string, error) {
	b, err := os.ReadFile(k.passphrase)
	if err != nil {
		return "", usagef("--passphrase-file: %w", err)
	}
	p := strings.TrimRight(string(b), "\r\n")
	if len(p) < 12 {
		return "", usagef("--passphrase-file: found %d characters, expected at least 12", len(p))
	}
	return p, nil
}

func controlBackupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write everything the control plane keeps into one encrypted file",
		Long: `Writes the database, as of one moment and while the control plane runs, and the
key that seals its secrets, encrypted with age. The file is read back before it
gets its name, if its key is at hand (--passphrase-file or --identity-file).

It restores to SQLite as well as to PostgreSQL, whichever it came from.`,
		Args: oneArg("the file to write"),
	}
	place := controlPlace(cmd)
	var k backupKeys
	cmd.Flags().StringVar(&k.passphrase, "passphrase-file", "", "a file with a passphrase of 12 characters or more")
	cmd.Flags().StringVar(&k.recipients, "recipients-file", "", "a file with age's public keys (age1…), one a line")
	cmd.Flags().StringVar(&k.identity, "identity-file", "", "with --recipients-file: a secret key of one of them, to read the file back")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		recipients, err := k.toRecipients()
		if err != nil {
			return err
		}
		cfg, err := place()
		if err != nil {
			return err
		}
		key, err := os.ReadFile(cfg.KeyFile)
		if err != nil {
			return &exitError{exitNotFound, fmt.Errorf("key_file: %w", err)}
		}
		d, err := db.Open(cmd.Context(), cfg.Database.URL, nil)
		if err != nil {
			return err
		}
		defer d.Close()
		// Beside its place, so that an older back-up of this name stays until this
		// one is whole.
		part := args[0] + ".part"
		defer os.Remove(part)
		s, err := writeBackup(cmd.Context(), d, string(key), part, recipients)
		if err != nil {
			return err
		}
		verified := "not read back: its key is not at hand"
		if k.passphrase != "" || k.identity != "" {
			if err := verifyBackup(part, &k); err != nil {
				return err
			}
			verified = "read back"
		}
		if err := durable.Rename(part, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d rows of %d tables, %s\n", args[0], s.Rows, s.Tables, verified)
		return nil
	}
	return cmd
}

func writeBackup(ctx context.Context, d *db.DB, key, file string, recipients []age.Recipient) (_ *backup.Summary, err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s, err := backup.Write(ctx, d, key, f, recipients...)
	if err != nil {
		return nil, err
	}
	return s, f.Sync()
}

func verifyBackup(file string, k *backupKeys) error {
	ids, err := k.toIdentities()
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = backup.Verify(f, ids...)
	return err
}

func controlRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a control plane of a back-up",
		Long: `Fills the database that the configuration names, which must be new, and writes
the key file. With --check it only reads the file to its end.`,
		Args: oneArg("the file to read"),
	}
	place := controlPlace(cmd)
	var k backupKeys
	cmd.Flags().StringVar(&k.passphrase, "passphrase-file", "", "the file with the passphrase")
	cmd.Flags().StringVar(&k.identity, "identity-file", "", "a file with age's secret keys")
	check := cmd.Flags().Bool("check", false, "only read the file to its end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids, err := k.toIdentities()
		if err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if errors.Is(err, fs.ErrNotExist) {
			return &exitError{exitNotFound, err}
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if *check {
			s, err := backup.Verify(f, ids...)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is whole: %d rows of %d tables, made at %s\n", args[0], s.Rows, s.Tables, s.Created.Format("2006-01-02 15:04:05 UTC"))
			return nil
		}
		cfg, err := place()
		if err != nil {
			return err
		}
		if _, err := os.Stat(cfg.KeyFile); err == nil {
			return &exitError{exitConflict, fmt.Errorf("key_file: found %s; a back-up is restored to a place that holds nothing yet", cfg.KeyFile)}
		}
		if err := private.MkdirAll(cfg.State); err != nil {
			return err
		}
		d, err := db.Open(cmd.Context(), cfg.Database.URL, nil)
		if err != nil {
			return err
		}
		defer d.Close()
		s, key, err := backup.Restore(cmd.Context(), f, d, ids...)
		if errors.Is(err, backup.ErrNotEmpty) {
			return &exitError{exitConflict, err}
		}
		if err != nil {
			return err
		}
		if err := private.WriteFile(cfg.KeyFile, []byte(key)); err != nil {
			return err
		}
		if _, err := control.OpenKey(cfg); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "restored %d rows of %d tables\n", s.Rows, s.Tables)
		return nil
	}
	return cmd
}
