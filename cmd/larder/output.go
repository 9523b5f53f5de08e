package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// outputFlag adds --output and returns what prints in the form it names.
func outputFlag(cmd *cobra.Command) func(v any, table func(w io.Writer)) error {
	return outputFlagWith(cmd, "", nil)
}

// outputFlagWith is outputFlag with one form more, which print writes.
func outputFlagWith(cmd *cobra.Command, more string, print func(w io.Writer) error) func(v any, table func(w io.Writer)) error {
	form := outputForm{form: "table", more: more}
	usage := "table, json or yaml"
	if more != "" {
		usage = "table, json, yaml or " + more
	}
	cmd.Flags().VarP(&form, "output", "o", usage)
	return func(v any, table func(w io.Writer)) error {
		out := cmd.OutOrStdout()
		if more != "" && form.form == more {
			return print(out)
		}
		switch form.form {
		case "table":
			tw := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
			table(tw)
			return tw.Flush()
		case "json":
			e := json.NewEncoder(out)
			e.SetIndent("", "  ")
			return e.Encode(v)
		case "yaml":
			// By way of JSON, so that both have the same names.
			b, err := json.Marshal(v)
			if err != nil {
				return err
			}
			var plain any
			if err := yaml.Unmarshal(b, &plain); err != nil {
				return err
			}
			e := yaml.NewEncoder(out)
			e.SetIndent(2)
			return e.Encode(plain)
		}
		return fmt.Errorf("no output form %q", form.form)
	}
}

// outputForm is the value of --output. It is checked before anything is done.
type outputForm struct {
	form string
	more string // a form that only this command has; "" none
}

func (f *outputForm) String() string { return f.form }
func (f *outputForm) Type() string   { return "form" }
func (f *outputForm) Set(s string) error {
	if s != "table" && s != "json" && s != "yaml" && (f.more == "" || s != f.more) {
		return &formError{s, f.more}
	}
	f.form = s
	return nil
}

type formError struct{ found, more string }

func (e *formError) Error() string {
	if e.more != "" {
		return fmt.Sprintf("--output: found %q, expected table, json, yaml or %s", e.found, e.more)
	}
	return fmt.Sprintf("--output: found %q, expected table, json or yaml", e.found)
}

// count writes a number of things: 1 object, 2 objects.
func count[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// bytesText writes a number of bytes for people: 1.5 GiB.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

// bar draws a share as a bar of ten.
func bar(part, whole int64) string {
	if whole <= 0 {
		return ""
	}
	n := int(10 * min(part, whole) / whole)
	return strings.Repeat("#", n) + strings.Repeat(".", 10-n)
}

// newLogger makes the log of a program that runs on. What libraries say past it
// (net/http of an origin that talks out of turn) goes to it too, for those who
// look for trouble.
func newLogger(h slog.Handler) *slog.Logger {
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(h, slog.LevelDebug).Writer())
	return slog.New(h)
}
