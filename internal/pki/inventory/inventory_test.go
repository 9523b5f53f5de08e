package inventory

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var day0 = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func day(n int) time.Time { return day0.AddDate(0, 0, n) }

// named is an entry for 90 days from day n.
func named(name string, n int) Entry {
	return Entry{
		Name: name, SHA256: strings.Repeat(name, 64)[:64], SHA1: strings.ToUpper(strings.Repeat(name, 40)[:40]), Subject: "CN=" + name,
		SANs: []string{"DNS:" + name + ".example"}, NotBefore: day(n), NotAfter: day(n + 90), File: "certs/" + name + ".pem", KeyFile: "keys/" + name + ".key", Source: "import",
	}
}

func states(inv *Inventory) string {
	var all []string
	for _, e := range inv.Entries {
		all = append(all, e.Name+" "+string(e.State)+" "+string(e.Reason))
	}
	return strings.Join(all, ", ")
}

func TestLifeOfThreeCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inv, err := Load(dir)
	if err != nil || len(inv.Entries) != 0 {
		t.Fatalf("an empty directory: %v, %v", inv, err)
	}
	for i, name := range []string{"aa", "bb", "cc"} {
		e := inv.Add(named(name, 10*i), Stored, day(10*i))
		if err := inv.Activate(e.SHA256, day(10*i)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := states(inv), "aa inactive replaced, bb inactive replaced, cc active "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if e := inv.Previous("", day(21)); e == nil || e.Name != "bb" {
		t.Errorf("to go back to: %+v, want bb", e)
	}
	inv.Revoke(named("bb", 0).SHA256, "revoked on Monday")
	if e := inv.Find(named("bb", 0).SHA256); e.Reason != Revoked || e.Detail != "revoked on Monday" {
		t.Errorf("revoked: %+v", e)
	}
	if e := inv.Previous("", day(21)); e == nil || e.Name != "aa" {
		t.Errorf("with bb revoked: %+v, want aa", e)
	}
	if e := inv.Previous("", day(95)); e != nil {
		t.Errorf("with aa expired: %+v, want none", e)
	}
	inv.Deactivate(Disabled, "", day(30))
	if inv.Current() != nil {
		t.Error("still active after it was disabled")
	}
	if err := inv.Activate(named("cc", 0).SHA256, day(31)); err != nil {
		t.Fatal(err)
	}
	if inv.Expire(day(100)) || !inv.Expire(day(111)) {
		t.Error("expiry is not where the certificate ends")
	}
	if e := inv.Find(named("cc", 0).SHA256); e.Reason != Expired || !e.Deactivated.Equal(day(110)) || !e.Since().Equal(day(110)) {
		t.Errorf("expired: %+v, want since the end of its life", e)
	}
	if err := inv.Save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inv, again); diff != "" {
		t.Errorf("saved and loaded (-want +got):\n%s", diff)
	}
}

func TestRetentionIsEighteenMonthsAfterDeactivation(t *testing.T) {
	t.Parallel()
	inv := &Inventory{}
	for _, name := range []string{"aa", "bb"} {
		e := inv.Add(named(name, 0), Stored, day(0))
		if err := inv.Activate(e.SHA256, day(1)); err != nil {
			t.Fatal(err)
		}
	}
	// aa was replaced on day 1; bb is active, and stays so whatever its age.
	limit := day(1).AddDate(0, 18, 0)
	if due := inv.Due(limit, ""); len(due) != 0 {
		t.Errorf("due on the day itself: %v", due)
	}
	if due := inv.Due(limit.Add(time.Second), ""); len(due) != 1 || due[0].Name != "aa" {
		t.Errorf("after it: %v, want aa", due)
	}
	if due := inv.Due(limit.Add(time.Second), "certs/aa.pem"); len(due) != 0 {
		t.Errorf("files in use are due: %v", due)
	}
	due := inv.Due(limit.AddDate(10, 0, 0), "")
	if len(due) != 1 {
		t.Fatalf("ten years on: %v, want aa alone", due)
	}
	now := day(0)
	due[0].Removed = &now
	if due := inv.Due(limit.AddDate(10, 0, 0), ""); len(due) != 0 {
		t.Errorf("removed twice: %v", due)
	}
}

func TestKeyThatOthersNeed(t *testing.T) {
	t.Parallel()
	inv := &Inventory{}
	a, b := named("aa", 0), named("bb", 0)
	b.KeyFile = a.KeyFile // signed again
	inv.Add(a, Stored, day(0))
	inv.Add(b, Stored, day(0))
	if !inv.KeyShared(inv.Find(a.SHA256), "") {
		t.Error("the key of a request that was signed again is taken for free")
	}
	inv.Find(b.SHA256).File = ""
	if inv.KeyShared(inv.Find(a.SHA256), "") || !inv.KeyShared(inv.Find(a.SHA256), a.KeyFile) {
		t.Error("whose files are gone needs no key, and what is in use does")
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	inv := &Inventory{}
	e := named("node", 0)
	e.SHA1, e.SHA256 = "5CC5D65EE08264A902A52E0BBA78CB08941AB570", "d9c65db3826cb6a27a655fc2c375fc6d7ead9fed52752dbe5be4ae6cbdf90c15"
	inv.Add(e, Stored, day(0))
	for what, want := range map[string]int{
		"node": 1, "5CC5D65E": 1, "5cc5d65ee08264a902a52e0bba78cb08941ab570": 1, "5C C5 D6 5E E0": 1, "\u200e5c c5 d6 5e": 1, "d9:c6:5d:b3": 1,
		"5CC5D6": 0, "other": 0, "": 0, "ffffffff": 0,
	} {
		if got := len(inv.Lookup(what)); got != want {
			t.Errorf("%q: %d entries, want %d", what, got, want)
		}
	}
}

func TestFilesThatAreNoInventory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"cut off":   {`{"format":1,"certifi`, "move it aside"},
		"of later":  {`{"format":2}`, "newer version"},
		"something": {`[]`, "move it aside"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "inventory.json"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "inventory.json") {
			t.Errorf("%s: %v, want the file and %q", name, err, tt.want)
		}
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	inv := &Inventory{}
	e := named("aa", 0)
	e.Subject, e.SANs = "CN=a,O=\"Example, Inc\"\nnext", []string{"DNS:a.example", "IP:10.0.0.5"}
	e.Name = "=cmd()"
	inv.Add(e, Stored, day(0))
	if err := inv.Activate(e.SHA256, day(1)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := inv.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	got := make(map[string]string)
	for i, name := range rows[0] {
		got[name] = rows[1][i]
	}
	for name, want := range map[string]string{
		"name": "'=cmd()", "state": "active", "reason": "", "subject": e.Subject, "sans": "DNS:a.example IP:10.0.0.5", "since": "2026-01-02T12:00:00Z",
		"notAfter": "2026-04-01T12:00:00Z", "sha256": e.SHA256, "activated": "2026-01-02T12:00:00Z", "deactivated": "", "removed": "",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}

func TestAuditOnlyGrows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"imported", "removed"} {
		if err := Audit(dir, Event{Time: day0, What: what, Name: "aa", By: "root"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Audit(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(AuditFile)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, e.What)
	}
	if strings.Join(got, " ") != "imported removed" {
		t.Errorf("got %q", got)
	}
}

// Whatever happens in whatever order: at most one certificate is active, what
// is inactive has a reason and a date, and the active one is never due.
func TestInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		inv := &Inventory{}
		now := day0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "days")) * 24 * time.Hour)
			name := rapid.SampledFrom([]string{"aa", "bb", "cc"}).Draw(t, "name")
			e := named(name, int(now.Sub(day0).Hours()/24))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				inv.Add(e, Stored, now)
			case 1:
				if inv.Find(e.SHA256) != nil {
					if err := inv.Activate(e.SHA256, now); err != nil {
						t.Fatal(err)
					}
				}
			case 2:
				inv.Deactivate(Disabled, "", now)
			case 3:
				inv.Expire(now)
			case 4:
				for _, d := range inv.Due(now, "") {
					if d.State == Active {
						t.Fatalf("the active one is due: %+v", d)
					}
					d.Removed = &now
				}
			}
			active := 0
			for _, e := range inv.Entries {
				if e.State == Active {
					active++
				} else if e.Reason == "" || e.Deactivated == nil {
					t.Fatalf("inactive without reason or date: %+v", e)
				}
			}
			if active > 1 {
				t.Fatalf("%d are active", active)
			}
		}
	})
}
