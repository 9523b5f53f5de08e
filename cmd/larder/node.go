package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/node/config"
	"larder/internal/strictyaml"
	"larder/internal/sys/reload"
	"larder/internal/sys/winservice"
)

func nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a cache node, and talk to one",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(nodeRunCommand(), nodeCheckCommand(), nodeStatusCommand(), nodeLsCommand(),
		nodePurgeCommand(), nodePinCommand(true), nodePinCommand(false), nodeVerifyCommand(), nodeCatalogCommand(),
		nodeDeployCommand(), nodeRegisterCommand(), nodeUninstallCommand())
	return cmd
}

// configFlag adds --config.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", defaultConfig, "the node's configuration file")
}

// loadConfig reads a configuration; what is wrong with it is wrong usage.
func loadConfig(name string) (*config.Config, error) {
	cfg, err := config.Load(name, os.Getenv)
	var ms strictyaml.Mistakes
	switch {
	case errors.As(err, &ms):
		return nil, &exitError{exitUsage, err}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &exitError{exitNotFound, fmt.Errorf("%w; name the file with --config, or write one (docs/operating/node.md)", err)}
	}
	return cfg, err
}

func nodeRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve until stopped",
		Long: `Serves content with the configuration of a file until SIGTERM or an interrupt.
SIGHUP reads the catalogue, the certificate and the access log's file again.`,
		Args: noArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		return winservice.Run(cmd.Context(), serviceName, func(ctx context.Context, service bool) error {
			out := cmd.ErrOrStderr()
			if service { // nobody sees its stderr
				events, err := winservice.Log(serviceName)
				if err != nil {
					return err
				}
				defer events.Close()
				out = events
			}
			log := newLog(out, cfg)
			for _, w := range cfg.Warnings() {
				log.Warn("configuration", "warning", w)
			}
			return runNode(ctx, cfg, node.Options{Log: log, Version: versionText()})
		})
	}
	return cmd
}

func newLog(w io.Writer, cfg *config.Config) *slog.Logger {
	return newLogger(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: cfg.Log.Level}))
}

// runNode opens and runs a node, and reloads it on SIGHUP.
func runNode(ctx context.Context, cfg *config.Config, o node.Options) error {
	n, err := node.Open(ctx, cfg, o)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	reload.Notify(hup)
	done := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-hup:
				n.Reload()
			case <-done:
				return
			}
		}
	}()
	err = n.Run(ctx)
	signal.Stop(hup)
	close(done)
	<-over
	return err
}

func nodeCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration, its catalogue and its drives",
		Args:  noArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		for _, w := range cfg.Warnings() {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
		}
		if err := node.Check(cfg); err != nil {
			return &exitError{exitUsage, config.Locate(*file, err)}
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is fine\n", *file)
		return nil
	}
	return cmd
}
