package inventory

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"larder/internal/sys/private"
)

// AuditFile is where Audit writes, below the TLS directory.
const AuditFile = "logs/audit.jsonl"

// Event is one line of the audit file: what was done to which certificate.
type Event struct {
	Time   time.Time `json:"time"`
	What   string    `json:"event"` // requested, imported, activated, disabled, enabled, rolled back, expired, revoked, removed, renewal failed
	Name   string    `json:"name,omitempty"`
	SHA256 string    `json:"sha256,omitempty"`
	By     string    `json:"by,omitempty"` // the account, or "node"
	Detail string    `json:"detail,omitempty"`
}

// Audit appends events to the audit file of a TLS directory and waits until
// the disk has them. The file only grows.
func Audit(dir string, events ...Event) (err error) {
	if len(events) == 0 {
		return nil
	}
	var lines []byte
	for _, e := range events {
		e.Time = e.Time.UTC()
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	name := filepath.Join(dir, filepath.FromSlash(AuditFile))
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		// So that it belongs to the account of the directory, whoever begins it.
		if err := private.WriteFile(name, nil); err != nil {
			return err
		}
	}
	// Through the directory: whoever it belongs to may not lead root elsewhere.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.OpenFile(filepath.FromSlash(AuditFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(lines); err != nil {
		return err
	}
	return f.Sync()
}
