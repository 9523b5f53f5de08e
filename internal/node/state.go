package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"larder/internal/node/store"
	"larder/internal/sys/durable"
)

// What the node remembers of itself lies in its state directory: node-id,
// drives.json, and addresses.json while it runs.

// loadID returns the node's random id, making one at the first start.
func loadID(file string) (string, error) {
	b, err := os.ReadFile(file)
	id := strings.TrimSpace(string(b))
	if _, herr := hex.DecodeString(id); err == nil && herr == nil && len(id) == 16 {
		return id, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the node's id: %w", err)
	}
	var raw [8]byte
	rand.Read(raw[:])
	id = hex.EncodeToString(raw[:])
	if err := durable.WriteFile(file, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("writing the node's id: %w", err)
	}
	return id, nil
}

// knownDrives fills in the ids that drives had when the node last ran, so that
// an empty mount point is not taken for a new drive.
func knownDrives(file string, drives []store.Drive) error {
	ids, err := readDrives(file)
	if err != nil {
		return err
	}
	for i := range drives {
		drives[i].ID = ids[drives[i].Path]
	}
	return nil
}

// rememberDrives writes down the ids of the drives that work. Drives that were
// there before and are not now stay known.
func rememberDrives(file string, drives []store.DriveStatus) error {
	ids, err := readDrives(file)
	if err != nil {
		return err
	}
	changed := false
	for _, d := range drives {
		if d.ID != "" && ids[d.Path] != d.ID {
			ids[d.Path], changed = d.ID, true
		}
	}
	if !changed {
		return nil
	}
	b, err := json.MarshalIndent(ids, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing down the drives: %w", err)
	}
	return nil
}

func readDrives(file string) (map[string]string, error) {
	ids := map[string]string{}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return ids, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which drives there were: %w", err)
	}
	if err := json.Unmarshal(b, &ids); err != nil {
		return nil, fmt.Errorf("%s: %w; it says which drive had which id: remove it if the drives are as they should be", file, err)
	}
	return ids, nil
}
