package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"larder/internal/control/backup"
	"larder/internal/control/db"
	"larder/internal/lardertest/dbtest"
)

// What was written is there again, from either engine to either engine, and
// sessions are not.
func TestABackupRestoresToEitherEngine(t *testing.T) {
	t.Parallel()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		for _, q := range []string{
			`INSERT INTO resource_groups (subscription, key, name, location, created) VALUES ('s', 'g', 'G ''quoted'' ü', 'l', 1)`,
			`INSERT INTO customers (id, subscription, group_key, name, location, customer_id, provisioning, version, primary_key, secondary_key) VALUES ('c', 's', 'g', 'c', 'l', 'cid', 'Succeeded', 9007199254740993, $1, $1)`,
			`INSERT INTO nodes (node_id, id, customer, name, location, provisioning, version, created, configured) VALUES ('n', 'n', 'c', 'n', 'l', 'Succeeded', 1, 1, TRUE)`,
			`INSERT INTO users (id, key, name, role, scopes, created) VALUES ('u', 'ada', 'Ada', 'owner', '["/"]', 1)`,
			`INSERT INTO sessions (hash, user_id, created, used, remote) VALUES ($1, 'u', 1, 1, 'x')`,
			`UPDATE counters SET value = 41 WHERE name = 'revision'`,
		} {
			args := []any{}
			if strings.Contains(q, "$1") {
				args = append(args, []byte{0, 1, 255})
			}
			if _, err := d.ExecContext(t.Context(), q, args...); err != nil {
				t.Fatal(err)
			}
		}
		var file bytes.Buffer
		s, err := backup.Write(t.Context(), d, "the key\n", &file, id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(file.Bytes(), []byte("quoted")) {
			t.Error("it can be read without a key")
		}
		if v, err := backup.Verify(bytes.NewReader(file.Bytes()), id); err != nil || v.Rows != s.Rows || v.Tables != s.Tables {
			t.Errorf("verified %+v (%v), wrote %+v", v, err, s)
		}
		for _, url := range []string{filepath.Join(t.TempDir(), "new.db"), dbtest.Postgres(t)} {
			to, err := db.Open(t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close()
			got, key, err := backup.Restore(t.Context(), bytes.NewReader(file.Bytes()), to, id)
			if err != nil || key != "the key\n" || got.Rows != s.Rows {
				t.Fatalf("to %s: %+v, %v", to.Engine(), got, err)
			}
			var name, text string
			var version, revision, sessions int64
			var configured bool
			var primary []byte
			if err := to.QueryRowContext(t.Context(), `SELECT g.name, c.version, c.primary_key, n.configured, (SELECT value FROM counters WHERE name = 'revision'), (SELECT count(*) FROM sessions)
				FROM resource_groups g, customers c, nodes n`).Scan(&name, &version, &primary, &configured, &revision, &sessions); err != nil {
				t.Fatal(err)
			}
			text = fmt.Sprint(name, version, primary, configured, revision, sessions)
			if want := "G 'quoted' ü 9007199254740993 [0 1 255] true 41 0"; strings.Join(strings.Fields(text), "") != strings.Join(strings.Fields(want), "") {
				t.Errorf("to %s: got %s, want %s", to.Engine(), text, want)
			}
			if _, _, err := backup.Restore(t.Context(), bytes.NewReader(file.Bytes()), to, id); !errors.Is(err, backup.ErrNotEmpty) {
				t.Errorf("once more: got %v, want ErrNotEmpty", err)
			}
		}
	})
}

func TestDamagedBackupsAreRecognised(t *testing.T) {
	t.Parallel()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := backup.Write(t.Context(), dbtest.SQLite(t), "key", &file, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	whole := file.Bytes()
	if _, err := backup.Verify(bytes.NewReader(whole), other); err == nil || errors.Is(err, backup.ErrDamaged) {
		t.Errorf("another's key: got %v", err)
	}
	for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
		if _, err := backup.Verify(bytes.NewReader(whole[:n]), id); err == nil {
			t.Errorf("cut at %d it passes", n)
		}
	}
	changed := bytes.Clone(whole)
	changed[len(changed)-20] ^= 1
	if _, err := backup.Verify(bytes.NewReader(changed), id); err == nil {
		t.Error("changed it passes")
	}
}
