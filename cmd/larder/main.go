// Command larder is everything Larder does, in one binary: one file per
// sub-command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes (docs/operating/command-line.md).
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitDenied   = 4
	exitConflict = 5
	exitTimeout  = 6
)

// An exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef is a mistake in how a command was called.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(vendorArgs(args))
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "larder: "+err.Error())
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "larder",
		Short: "A content cache for the local network",
		Long: `Larder keeps software updates and other large downloads near the machines
that want them. Facts go to stdout, talk goes to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied,
5 conflict, 6 timed out.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          needSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var form *formError
		if errors.As(err, &form) {
			return &exitError{exitUsage, form}
		}
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(upCommand(), nodeCommand(), controlCommand(), tlsCommand(), versionCommand())
	return root
}

// needSubcommand is what a command without work of its own does.
func needSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q; did you mean %q?", args[0], near[0])
		}
		return usagef("unknown command %q; see %s --help", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}

// noArgs and exactArgs are cobra's, with the exit code of wrong usage.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, found %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}

func atMostOneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("%s takes %s at most, found %q; see %s --help", cmd.CommandPath(), what, args[1], cmd.CommandPath())
		}
		return nil
	}
}

func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("%s needs %s; see %s --help", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}
