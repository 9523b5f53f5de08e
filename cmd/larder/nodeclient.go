package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/strictyaml"
)

// admin talks to a node's admin listener.
type admin struct {
	base string
	http http.Client
}

// adminFlag adds --admin.
func adminFlag(cmd *cobra.Command) func() *admin {
	addr := cmd.Flags().String("admin", "127.0.0.1:5001", "the node's admin listener")
	return func() *admin { return newAdmin(*addr) }
}

// newAdmin makes what talks to the admin listener at addr.
func newAdmin(addr string) *admin {
	a := &admin{base: "http://" + strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/")}
	a.http.Transport = &http.Transport{DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, DisableKeepAlives: true}
	return a
}

// adminPatience is how long a node may take to answer.
const adminPatience = 20 * time.Second

var errSilent = fmt.Errorf("it was silent for %s", adminPatience)

// call makes one admin call. Errors carry exit codes.
func (a *admin) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	if path != node.PathScrub && path != node.PathRenew { // which answer when everything has been read, or renewed
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, adminPatience, errSilent)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return usagef("--admin: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted")
		}
		code := exitFailed
		if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
			code = exitTimeout
		}
		if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
			code, err = exitTimeout, cause
		}
		return &exitError{code, fmt.Errorf("no node answers at %s: %w; is it running, and is --admin its listen.admin?", a.base, err)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return callError(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("the node's answer: %w", err)
	}
	return nil
}

func callError(resp *http.Response) error {
	var e struct {
		Error struct{ Message string }
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(b, &e) != nil || e.Error.Message == "" {
		e.Error.Message = "the node answered " + resp.Status
	}
	code := exitFailed
	switch resp.StatusCode {
	case http.StatusBadRequest:
		code = exitUsage
	case http.StatusNotFound:
		code = exitNotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		code = exitDenied
	case http.StatusConflict:
		code = exitConflict
	}
	return &exitError{code, errors.New(e.Error.Message)}
}

func nodeStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how a node is",
		Args:  noArgs,
	}
	a, show := adminFlag(cmd), outputFlag(cmd)
	watch := cmd.Flags().Bool("watch", false, "show it again every two seconds until interrupted")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for {
			var s node.Status
			if err := a().call(cmd.Context(), http.MethodGet, node.PathStatus, nil, &s); err != nil {
				return err
			}
			if *watch && isTerminal(cmd.OutOrStdout()) {
				fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
			}
			if err := show(s, func(w io.Writer) { statusTable(w, &s) }); err != nil {
				return err
			}
			if !*watch {
				return nil
			}
			select {
			case <-time.After(2 * time.Second):
			case <-cmd.Context().Done():
				return nil
			}
		}
	}
	return cmd
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

// selectionFlags adds the flags that say which objects a command is about.
func selectionFlags(cmd *cobra.Command) *node.Selection {
	var s node.Selection
	cmd.Flags().StringVar(&s.Key, "key", "", "one object by its key, as ls --output json shows it; a space may stand for its line break")
	cmd.Flags().StringVar(&s.Prefix, "prefix", "", "all objects whose URL begins so, without the scheme: host/path")
	cmd.Flags().StringVar(&s.Publisher, "publisher", "", "all objects of a publisher")
	return &s
}

func nodeLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what a node has stored",
		Args:  noArgs,
	}
	a, show, sel := adminFlag(cmd), outputFlag(cmd), selectionFlags(cmd)
	limit := cmd.Flags().Int("limit", 1000, "how many at most; 0: all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *limit < 0 {
			return usagef("--limit: found %d, expected 0 or more", *limit)
		}
		list := []node.ObjectInfo{}
		after := ""
		for {
			n := 1000
			if *limit > 0 {
				n = min(n, *limit-len(list))
			}
			if n <= 0 {
				break
			}
			q := url.Values{"limit": {strconv.Itoa(n)}}
			for name, v := range map[string]string{"key": sel.Key, "prefix": sel.Prefix, "publisher": sel.Publisher, "after": after} {
				if v != "" {
					q.Set(name, v)
				}
			}
			var page []node.ObjectInfo
			if err := a().call(cmd.Context(), http.MethodGet, node.PathObjects+"?"+q.Encode(), nil, &page); err != nil {
				return err
			}
			list = append(list, page...)
			if len(page) < n {
				break
			}
			after = page[len(page)-1].Key
		}
		return show(list, func(w io.Writer) {
			fmt.Fprintln(w, "URL\tSIZE\tSTORED\tPUBLISHER\tPINNED")
			for _, o := range list {
				pin := ""
				if o.Pinned {
					pin = "pinned"
				}
				fmt.Fprintf(w, "%s\t%s\t%d%%\t%s\t%s\n", o.URL, bytesText(o.Size), percent(o.Stored, o.Size), o.Publisher, pin)
			}
		})
	}
	return cmd
}

func percent(part, whole int64) int64 {
	if whole <= 0 {
		return 100
	}
	return 100 * part / whole
}

// needSelection refuses a command without exactly one selection.
func needSelection(cmd *cobra.Command, s *node.Selection) error {
	n := 0
	for _, v := range []string{s.Key, s.Prefix, s.Publisher} {
		if v != "" {
			n++
		}
	}
	if n != 1 {
		return usagef("%s needs exactly one of --key, --prefix and --publisher", cmd.CommandPath())
	}
	return nil
}

func nodePurgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Remove stored objects, so that they are fetched anew",
		Args:  noArgs,
	}
	a, show, sel := adminFlag(cmd), outputFlag(cmd), selectionFlags(cmd)
	cmd.Flags().BoolVar(&sel.DryRun, "dry-run", false, "only say what would be removed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := needSelection(cmd, sel); err != nil {
			return err
		}
		var res node.Selected
		if err := a().call(cmd.Context(), http.MethodPost, node.PathPurge, sel, &res); err != nil {
			return err
		}
		if sel.Key != "" && res.Objects == 0 {
			return &exitError{exitNotFound, fmt.Errorf("no object has the key %q", sel.Key)}
		}
		verb := "removed"
		if sel.DryRun {
			verb = "would remove"
		}
		return show(res, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s, %s\n", verb, count(res.Objects, "object"), bytesText(res.Bytes))
		})
	}
	return cmd
}

func nodePinCommand(on bool) *cobra.Command {
	use, short, verb := "pin", "Keep stored objects, whatever room is needed", "pinned"
	if !on {
		use, short, verb = "unpin", "Let pinned objects be evicted again", "unpinned"
	}
	cmd := &cobra.Command{Use: use, Short: short, Args: noArgs}
	a, show, sel := adminFlag(cmd), outputFlag(cmd), selectionFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := needSelection(cmd, sel); err != nil {
			return err
		}
		sel.Off = !on
		var res node.Selected
		if err := a().call(cmd.Context(), http.MethodPost, node.PathPin, sel, &res); err != nil {
			return err
		}
		if sel.Key != "" && res.Objects == 0 {
			return &exitError{exitNotFound, fmt.Errorf("no object has the key %q", sel.Key)}
		}
		return show(res, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s, %s\n", verb, count(res.Objects, "object"), bytesText(res.Bytes))
		})
	}
	return cmd
}

func nodeVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "verify",
		Aliases: []string{"scrub"},
		Short:   "Read stored objects again and drop what has rotted",
		Long: `Reads the chunks of stored objects again and compares their checksums. What
does not match is dropped and fetched anew when it is asked for. Without a
selection everything is read. Exit code 1 if anything had rotted.`,
		Args: noArgs,
	}
	a, show, sel := adminFlag(cmd), outputFlag(cmd), selectionFlags(cmd)
	var rate strictyaml.Rate
	cmd.Flags().Var(&textFlag{v: &rate, kind: "rate"}, "rate", "how fast, such as 50MB/s; 0: as fast as the drives go")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var res node.Scrubbed
		if err := a().call(cmd.Context(), http.MethodPost, node.PathScrub, node.ScrubRequest{Selection: *sel, Rate: int64(rate)}, &res); err != nil {
			return err
		}
		if err := show(res, func(w io.Writer) {
			fmt.Fprintf(w, "read %s of %s, %s; %d had rotted\n", count(res.Chunks, "chunk"), count(res.Objects, "object"), bytesText(res.Bytes), res.BadChunks)
		}); err != nil {
			return err
		}
		if sel.Key != "" && res.Objects == 0 {
			return &exitError{exitNotFound, fmt.Errorf("no object has the key %q", sel.Key)}
		}
		if res.BadChunks > 0 {
			return &exitError{exitFailed, fmt.Errorf("%d chunks had rotted and were dropped", res.BadChunks)}
		}
		return nil
	}
	return cmd
}

// textFlag makes a flag of a type that reads itself from text.
type textFlag struct {
	v interface {
		UnmarshalText([]byte) error
		String() string
	}
	kind string
}

func (f *textFlag) String() string     { return f.v.String() }
func (f *textFlag) Set(s string) error { return f.v.UnmarshalText([]byte(s)) }
func (f *textFlag) Type() string       { return f.kind }
