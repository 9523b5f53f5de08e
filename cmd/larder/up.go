package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"larder/internal/control"
	controlconfig "larder/internal/control/config"
	"larder/internal/demo"
	"larder/internal/node"
	"larder/internal/node/catalog"
	"larder/internal/node/config"
	"larder/internal/node/link"
	"larder/internal/sys/disk"
	"larder/internal/sys/durable"
)

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process, on loopback",
		Long: `Runs a control plane and a node that is enrolled with it, on loopback, with
everything they need in one directory. The first start writes node.yaml there,
which later starts read; the flags win over it. With --demo there is a publisher
to try it with, and a short burst of simulated clients shows what the cache does.`,
		Args: noArgs,
	}
	f := cmd.Flags()
	state := f.String("state", "", "directory for everything (default: larder in the user's state directory)")
	withDemo := f.Bool("demo", false, "serve a demo publisher and let simulated clients fetch from it")
	httpAddr := f.String("http", "127.0.0.1:8080", "where to serve content")
	httpsAddr := f.String("https", "127.0.0.1:8443", "where to serve content over TLS, once there is a certificate")
	adminAddr := f.String("admin", "127.0.0.1:5001", "where to serve the admin calls")
	controlAddr := f.String("control", "127.0.0.1:8440", "where to serve the control plane: portal, API and nodes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := *state
		if dir == "" {
			var err error
			if dir, err = defaultState(); err != nil {
				return err
			}
		}
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		cfg, err := upConfig(dir, *httpAddr, *httpsAddr, *adminAddr)
		if err != nil {
			return err
		}
		// What goes on is said on stderr by the demo; a log beside it would
		// only be in the way.
		level := slog.LevelInfo
		if *withDemo {
			level = slog.LevelWarn
		}
		o := node.Options{Version: versionText(), Log: newLogger(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))}
		return withControl(cmd.Context(), cmd.ErrOrStderr(), dir, *controlAddr, cfg, o, func(ctx context.Context) error {
			if *withDemo {
				return runDemo(ctx, cmd.OutOrStdout(), dir, cfg, o)
			}
			return runNode(ctx, cfg, o)
		})
	}
	return cmd
}

// withControl runs a control plane around work, which runs the node. The node
// enrols at the first start.
func withControl(ctx context.Context, talk io.Writer, dir, listen string, cfg *config.Config, o node.Options, work func(ctx context.Context) error) error {
	// Before anything is touched: a second one here would move the node of the
	// first to its own control plane.
	lock, err := disk.Lock(filepath.Join(dir, "up.lock"))
	if errors.Is(err, disk.ErrLocked) {
		return fmt.Errorf("--state: %s is in use by another larder up", dir)
	}
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	defer lock.Unlock()
	ccfg := controlconfig.Default(os.Getenv)
	ccfg.State, ccfg.Listen, ccfg.Names = filepath.Join(dir, "control"), listen, []string{"localhost", "127.0.0.1", "::1"}
	if err := ccfg.Validate(); err != nil {
		return &exitError{exitUsage, fmt.Errorf("--control: %w", err)}
	}
	c, err := control.Open(ctx, ccfg, control.Options{Log: o.Log, Version: o.Version, CheckPublishers: catalog.CheckFiles})
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	// The control plane ends after the node: its last report should arrive.
	cctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		err := c.Run(cctx)
		if err != nil {
			err = fmt.Errorf("control plane: %w", err)
		}
		cancel(err)
		done <- err
	}()
	err = func() error {
		addr, err := c.WaitServing(ctx)
		if err != nil {
			return nil // Run says why
		}
		if err := enrolHere(ctx, c, "https://"+addr, node.LinkDir(cfg.State)); err != nil {
			return fmt.Errorf("enrolling the node: %w", err)
		}
		_, port, _ := net.SplitHostPort(addr)
		base := "https://localhost:" + port
		if err := sayFirstLink(ctx, talk, c, base); err != nil {
			return err
		}
		fmt.Fprintf(talk, "The control plane is at %s; its root is %s (%s/ca.pem).\n", base, c.Fingerprint(), base)
		return work(ctx)
	}()
	stop()
	return errors.Join(err, <-done)
}

// enrolHere ties the node in this process to its control plane.
func enrolHere(ctx context.Context, c *control.Control, url, dir string) error {
	if _, _, err := link.Whose(dir); !errors.Is(err, link.ErrNotEnrolled) {
		if err != nil {
			return err
		}
		return link.Move(dir, url) // the port may be another one this time
	}
	l, err := c.EnrolLocal(ctx)
	if err != nil {
		return err
	}
	_, err = link.Enrol(ctx, dir, link.Enrolment{
		URL: url, Fingerprint: l.Fingerprint, CustomerID: l.CustomerID, CacheNodeID: l.CacheNodeID, CustomerKey: l.CustomerKey, RegistrationKey: l.RegistrationKey,
	}, node.SystemInfo(versionText()))
	return err
}

// defaultState returns where "larder up" keeps everything if nothing is said.
func defaultState() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "larder"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usagef("--state: %w; name a directory", err)
	}
	return filepath.Join(home, ".local", "state", "larder"), nil
}

// upConfig reads the directory's node.yaml, after writing it at the first start.
func upConfig(dir, httpAddr, httpsAddr, adminAddr string) (*config.Config, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("--state: %w", err)
	}
	file := filepath.Join(dir, "node.yaml")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		text, err := firstConfig(dir)
		if err != nil {
			return nil, err
		}
		if err := durable.WriteFile(file, []byte(text), 0o640); err != nil {
			return nil, fmt.Errorf("writing %s: %w", file, err)
		}
	}
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	cfg.Listen.HTTP, cfg.Listen.HTTPS, cfg.Listen.Admin = []string{httpAddr}, []string{httpsAddr}, adminAddr
	if err := cfg.Validate(); err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--http, --https or --admin: %w", err)}
	}
	return cfg, nil
}

// firstConfig makes a configuration that takes a quarter of the free disk, and
// 20 GB at most.
func firstConfig(dir string) (string, error) {
	space, err := disk.Usage(dir)
	if err != nil {
		return "", fmt.Errorf("asking how much disk is free: %w", err)
	}
	const mb = 1_000_000
	size := min(space.Free/4, 20_000*mb) / mb
	if size < 100 {
		return "", fmt.Errorf("%s: only %s are free, too little for a cache; name another place with --state", dir, bytesText(space.Free))
	}
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	return fmt.Sprintf(`# Written by the first "larder up" in this directory. Change it as you like; the
# listeners are set by flags.
state: %s
drives:
  - {path: %s, size: %dMB}
catalog:
  dirs: [%s]
tls: {dir: %s}
`, quote(dir), quote(filepath.Join(dir, "cache")), size, quote(filepath.Join(dir, "catalog.d")), quote(filepath.Join(dir, "tls"))), nil
}

// runDemo runs the node with the demo publisher, shows what a burst of clients
// costs upstream, and keeps serving.
func runDemo(ctx context.Context, out io.Writer, dir string, cfg *config.Config, o node.Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("the demo publisher's origin: %w", err)
	}
	catalogDir := filepath.Join(dir, "demo")
	if err := os.MkdirAll(catalogDir, 0o750); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(catalogDir, "demo.yaml"), demo.Publisher(ln.Addr().String()), 0o644); err != nil {
		return err
	}
	o.Publishers = append(o.Publishers, catalog.Source{Name: catalogDir, FS: os.DirFS(catalogDir)})

	origin := demo.NewOrigin()
	originDone := make(chan error, 1)
	go func() { originDone <- origin.Run(ctx, ln) }()
	n, err := node.Open(ctx, cfg, o)
	if err != nil {
		cancel()
		return errors.Join(err, <-originDone)
	}
	nodeDone := make(chan error, 1)
	go func() { nodeDone <- n.Run(ctx) }()

	if n.WaitServing(ctx) == nil { // else Run says why
		err = showBurst(ctx, out, n, origin)
		if err == nil {
			select {
			case err = <-nodeDone:
				nodeDone <- nil
			case <-ctx.Done():
			}
		}
	}
	cancel()
	return errors.Join(err, <-nodeDone, <-originDone)
}

// showBurst lets clients fetch and prints the result and what to try.
func showBurst(ctx context.Context, out io.Writer, n *node.Node, origin *demo.Origin) error {
	addrs := n.Addresses()
	base := "http://" + addrs.HTTP[0]
	fmt.Fprintf(out, "Larder serves content at %s, its admin calls at http://%s.\n", base, addrs.Admin)
	if len(addrs.HTTPS) > 0 {
		fmt.Fprintf(out, "HTTPS at https://%s.\n", addrs.HTTPS[0])
	} else {
		fmt.Fprintln(out, "There is no certificate yet, so it serves HTTP only.")
	}
	fmt.Fprint(out, "\nSimulated clients fetch from the demo publisher …\n\n")
	res, err := demo.Burst(ctx, demo.BurstConfig{NodeURL: base, UpstreamBytes: origin.BytesSent})
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted
		}
		return err
	}
	fmt.Fprintln(out, res.String())
	if res.Wrong > 0 {
		return fmt.Errorf("%d bytes were not those of the origin", res.Wrong)
	}
	origin.Ready() // before anybody is told to ask for it
	fmt.Fprintf(out, `
It keeps serving until you press Ctrl-C. Try, in another window:

  curl -s -H 'Host: %[2]s' %[1]s/files/1MiB.bin -o /dev/null -w '%%{http_code} %%{size_download} bytes, %%{speed_download} bytes/s\n'
  curl '%[1]s/files/16MiB.bin?cacheHostOrigin=%[2]s' -r 0-1 -sD - -o /dev/null
  curl -s -x %[1]s http://%[2]s%[3]s
  curl -s http://%[4]s/summary
  %[6]s node status%[5]s
  %[6]s node ls%[5]s
`, base, demo.Host, demo.SumsPath, addrs.Admin, adminHint(addrs.Admin), os.Args[0])
	return nil
}

func adminHint(addr string) string {
	if addr == "127.0.0.1:5001" {
		return ""
	}
	return " --admin " + addr
}
