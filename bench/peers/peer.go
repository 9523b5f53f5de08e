package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// hostName is what all requests ask for and the certificate is made out to.
const hostName = "bench.example.net"

// Addrs are where a peer listens, host:port; HTTPS is empty when it has no TLS.
type Addrs struct{ HTTP, HTTPS string }

// Peer is a cache that can be measured. All of its files lie in dir and all
// of its answers come from origin (host:port). Stop ends what Start began,
// also when that failed half-way.
type Peer interface {
	Name() string
	Start(ctx context.Context, dir string, origin string, cert *certificate) (Addrs, error)
	PIDs() []int // its processes now
	Stop() error
}

// process is a peer's root process; the peers embed it.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan error // gets what Wait returned; the goroutine behind it ends with the process
	log  string
}

func (p *process) Name() string { return p.name }

// run starts the peer's program in a process group of its own; what it says goes to dir/output.
func (p *process) run(dir string, env []string, program string, args ...string) error {
	p.log = filepath.Join(dir, "output")
	out, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer out.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	ownGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	p.done = make(chan error, 1)
	go func() { p.done <- p.cmd.Wait() }()
	return nil
}

// await returns when every address accepts connections.
func (p *process) await(ctx context.Context, addrs ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, addr := range addrs {
		for {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
				break
			}
			select {
			case err := <-p.done:
				p.done <- err
				return fmt.Errorf("ended before it listened on %s: %w%s", addr, err, p.said())
			case <-ctx.Done():
				return fmt.Errorf("does not listen on %s: %w%s", addr, err, p.said())
			case <-tick.C:
			}
		}
	}
	return nil
}

// said returns the last lines of the peer's output for an error's text.
func (p *process) said() string {
	b, err := os.ReadFile(p.log)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "\n" + string(b[max(0, len(b)-2000):])
}

func (p *process) PIDs() []int {
	if p.cmd == nil {
		return nil
	}
	return processTree(p.cmd.Process.Pid)
}

// Stop asks first and kills after five seconds, the children too.
func (p *process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	pids := p.PIDs()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // already gone: then done says so
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	for _, pid := range pids {
		if child, err := os.FindProcess(pid); err == nil {
			_ = child.Kill() // gone in the usual case
		}
	}
	p.cmd = nil
	return nil
}

// missing tells which of the programs are not installed.
func missing(programs ...string) error {
	var errs []error
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%s is not installed: run bench/install-peers.sh", program))
		}
	}
	return errors.Join(errs...)
}

// freeAddrs returns n loopback addresses that nobody listens on at the moment.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that no address comes twice
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}

// port returns the port of host:port.
func port(addr string) string {
	return addr[strings.LastIndexByte(addr, ':')+1:]
}

// writeFiles writes a peer's configuration, name → text, with $WORD replaced.
func writeFiles(dir string, files map[string]string, words ...string) error {
	r := strings.NewReplacer(words...)
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(r.Replace(text)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// certificate is the one ECDSA P-256 pair that all peers show.
type certificate struct {
	CertFile, KeyFile string // PEM
	Roots             *x509.CertPool
}
