package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"larder/internal/lardertest/golden"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// describe writes a command, its flags and what is below it as Markdown. A
// default that this machine decides is left out.
func describe(b *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || !cmd.IsAvailableCommand() && cmd.HasParent() {
		return
	}
	fmt.Fprintf(b, "## %s\n\n%s.\n", cmd.CommandPath(), strings.TrimSuffix(cmd.Short, "."))
	if cmd.Runnable() && !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(b, "\n    %s\n", cmd.UseLine())
	}
	if cmd.Long != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.Example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", strings.TrimSpace(cmd.Example))
	}
	rows := ""
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			kind = " " + kind
		}
		if d := f.DefValue; d != "" && d != "[]" && d != "false" && d != "0" && d != "0s" && !strings.Contains(usage, "default") {
			usage += " (default " + d + ")"
		}
		rows += fmt.Sprintf("| `--%s%s` | %s |\n", f.Name, kind, strings.ReplaceAll(usage, "|", "\\|"))
	})
	if rows != "" {
		b.WriteString("\n| flag | |\n|---|---|\n" + rows)
	}
	b.WriteString("\n")
	for _, c := range cmd.Commands() {
		describe(b, c)
	}
}

// The manual's reference of commands is what the commands say of themselves.
func TestTheManualHasEveryCommand(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the manual shows the defaults of Linux")
	}
	t.Parallel()
	var b strings.Builder
	b.WriteString("# Reference of commands\n\nWhat each command says of itself (`larder COMMAND --help`); a test keeps it so. [command-line.md](command-line.md) is the short form.\n\n")
	describe(&b, rootCommand())
	golden.Check(t, "../../docs/operating/commands.md", strings.TrimRight(b.String(), "\n")+"\n")
}
