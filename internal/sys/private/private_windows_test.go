package private

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// wine is true under Wine, which keeps no more of an access list than Unix
// permissions can say: its owner, and everybody.
func wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

// Lists that go through Windows' own making of access lists come out as they
// went in.
func TestAccessListsThroughTheAPI(t *testing.T) {
	t.Parallel()
	for _, list := range [][]entry{
		fileEntries(nil, readAccess),
		fileEntries([]string{sidLocalService}, readAccess),
		dirEntries([]string{"S-1-5-21-1-2-3-1001"}),
	} {
		acl, err := accessList(list)
		if err != nil {
			t.Fatal(err)
		}
		got, err := entriesIn(acl)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(list) {
			t.Fatalf("got %+v, want %+v", got, list)
		}
		for _, e := range list {
			if !slices.Contains(got, e) {
				t.Errorf("got %+v, want %+v in it", got, e)
			}
		}
	}
	if _, err := accessList([]entry{{SID: "nobody"}}); err == nil {
		t.Error("an identifier that is none: no error")
	}
}

func TestAccessListsOfFiles(t *testing.T) {
	t.Parallel()
	parent := tempDir(t)
	if wine() {
		// There, SetNamedSecurityInfo inherits whatever it is told.
		parent = filepath.Join(parent, "private")
		if err := MkdirAll(parent); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(parent, "tls")
	if err := GrantAccount(dir, "LocalService"); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "keys")
	if err := MkdirAll(below); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(below, "node.key")
	if err := WriteFile(name, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[string][]entry{
		dir:   dirEntries([]string{sidLocalService}),
		below: dirEntries([]string{sidLocalService}),
		name:  fileEntries([]string{sidLocalService}, readAccess),
	} {
		owner, got, open, err := entriesOf(n)
		if err != nil || open {
			t.Fatalf("%s: open %v, %v", n, open, err)
		}
		if found, loose := Loose(n); loose {
			t.Errorf("%s is loose: %s", n, found)
		}
		if wine() {
			continue
		}
		if administers() && owner != sidAdministrators {
			t.Errorf("%s belongs to %s, want the administrators: its owner can change the list", n, owner)
		}
		if len(got) != len(want) || slices.ContainsFunc(want, func(e entry) bool { return !slices.Contains(got, e) }) {
			t.Errorf("%s: %+v, want %+v", n, got, want)
		}
		sd, err := windows.GetNamedSecurityInfo(n, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
		if err != nil {
			t.Fatal(err)
		}
		if control, _, err := sd.Control(); err != nil || control&windows.SE_DACL_PROTECTED == 0 {
			t.Errorf("%s inherits: control %x, %v", n, control, err)
		}
	}
}

func TestGrantOfWindowsItself(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{`C:\`, `C:\Windows`, `c:\windows\.`, `C:\ProgramData\`} {
		if err := GrantAccount(dir, "LocalService"); err == nil || !strings.Contains(err.Error(), "found a directory that others need") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// Everybody is let in where the list says so, by name.
func TestLooseByAccessList(t *testing.T) {
	t.Parallel()
	name := filepath.Join(tempDir(t), "f")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	acl, err := accessList(append(fileEntries(nil, 0), entry{SID: "S-1-1-0", Mask: readAccess}))
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(name, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, acl, nil); err != nil {
		t.Fatal(err)
	}
	found, loose := Loose(name)
	if !loose || !strings.HasPrefix(found, "access for ") || strings.Contains(found, "S-1-1-0") {
		t.Errorf("got %q, %v; want the group's name", found, loose)
	}
}

func TestLookupOfAccounts(t *testing.T) {
	t.Parallel()
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	account, domain, _, err := me.User.Sid.LookupAccount("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{account, domain + `\` + account, `.\` + account, me.User.Sid.String()} {
		sid, err := lookup(name)
		if err != nil || !sid.Equals(me.User.Sid) {
			t.Errorf("%s: %v, %v; want %s", name, sid, err, me.User.Sid)
		}
	}
	if sid, err := lookup("Users"); err == nil {
		t.Errorf("a group is taken for an account: %s", sid)
	}
	if sid, err := lookup(`NO-SUCH-DOMAIN\larder$`); err == nil {
		t.Errorf("an account of a domain that is not there: %s", sid)
	}
}
