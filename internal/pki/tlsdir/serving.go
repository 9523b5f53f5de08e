package tlsdir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"larder/internal/sys/disk"
	"larder/internal/sys/durable"
	"larder/internal/sys/private"
)

// Where is what a node that runs says in its TLS directory about itself, for
// commands that only know that directory.
type Where struct {
	HTTPS      []string `json:"https"`      // where TLS is spoken now; empty without a certificate
	Configured []string `json:"configured"` // where it would be spoken
	Admin      string   `json:"admin"`      // of the admin calls
	Version    string   `json:"version"`
	PID        int      `json:"pid"`
}

// Serving is held by the node that serves from a TLS directory.
type Serving struct {
	dir  string
	lock *disk.FileLock
}

const (
	servingFile = "serving.json"
	servingLock = ".serving"
)

// Serve marks the directory as one that a running node serves from. The mark
// ends with the process, however that ends.
func (d *Dir) Serve(ctx context.Context) (*Serving, error) {
	if _, err := os.Stat(d.file(servingLock)); errors.Is(err, fs.ErrNotExist) {
		if err := private.WriteFile(d.file(servingLock), nil); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := &Serving{dir: d.path}
	// A command that asks whether a node runs holds the lock for a moment.
	err := every(ctx, func() (_ bool, err error) {
		s.lock, err = disk.Lock(d.file(servingLock))
		if errors.Is(err, disk.ErrLocked) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("another node serves from the tls directory %s: %w", d.path, err)
	}
	// What an earlier node said is not true of this one.
	if err := os.Remove(d.file(servingFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, s.lock.Unlock())
	}
	return s, nil
}

// Say writes where the node is reached now.
func (s *Serving) Say(w Where) error {
	w.PID = os.Getpid()
	data, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return err
	}
	return private.WriteFile(filepath.Join(s.dir, servingFile), append(data, '\n'))
}

// Close takes the mark away.
func (s *Serving) Close() error {
	err := os.Remove(filepath.Join(s.dir, servingFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.lock.Unlock())
}

// Running returns where the node that serves from the directory is reached, and
// whether there is one.
func (d *Dir) Running() (w Where, running bool, err error) {
	held, err := disk.Held(d.file(servingLock))
	if err != nil || !held {
		return Where{}, false, err
	}
	data, err := durable.ReadFile(d.file(servingFile)) // the node may be replacing it
	if errors.Is(err, fs.ErrNotExist) {
		return Where{}, true, nil // it is just starting
	}
	if err != nil {
		return Where{}, true, err
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return Where{}, true, fmt.Errorf("%s: %w", d.file(servingFile), err)
	}
	return w, true, nil
}

// dialable is where a listener at addr is reached from this machine. The
// unspecified address of either family takes connections of both.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
