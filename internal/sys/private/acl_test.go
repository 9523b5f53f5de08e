package private

import (
	"slices"
	"testing"
)

const (
	alice   = "S-1-5-21-1004336348-1177238915-682003330-1001"
	bob     = "S-1-5-21-1004336348-1177238915-682003330-1002"
	service = "S-1-5-80-3139157870-2983391045-3678747466-658725712-1809340420"
)

func allow(sid string, mask uint32) entry { return entry{SID: sid, Mask: mask} }

func TestGrantIsReadBack(t *testing.T) {
	t.Parallel()
	for _, account := range []string{alice, service, sidLocalService, sidNetworkService} {
		list := dirEntries([]string{account})
		if got := granted(list); !slices.Equal(got, []string{account}) {
			t.Errorf("granted to %s, read back %q", account, got)
		}
		for _, e := range list {
			if !e.Inherit {
				t.Errorf("%+v is not handed down: logs made in the directory would be nobody's", e)
			}
		}
		if got := strangers(list); got != nil {
			t.Errorf("the list of a granted directory is loose: %q", got)
		}
		if got := strangers(fileEntries([]string{account}, readAccess)); got != nil {
			t.Errorf("the list of a file is loose: %q", got)
		}
	}
	if got := granted(dirEntries(nil)); got != nil {
		t.Errorf("granted to nobody, read back %q", got)
	}
}

func TestWhoIsNotGranted(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]entry{
		"everyone":           allow("S-1-1-0", fullAccess),
		"users":              allow("S-1-5-32-545", fullAccess),
		"domain users":       allow("S-1-5-21-1004336348-1177238915-682003330-513", fullAccess),
		"domain admins":      allow("S-1-5-21-1004336348-1177238915-682003330-512", fullAccess),
		"all services":       allow("S-1-5-80-0", fullAccess),
		"the installer":      allow(sidInstaller, fullAccess),
		"administrators":     allow(sidAdministrators, fullAccess),
		"system":             allow(sidSystem, fullAccess),
		"one who reads":      allow(alice, readAccess),
		"one who modifies":   allow(alice, modify), // which a grant is more than
		"one who is denied":  {SID: alice, Mask: fullAccess, Deny: true},
		"one further below":  {SID: alice, Mask: fullAccess, InheritOnly: true, Inherit: true},
		"the creator":        allow("S-1-3-0", fullAccess),
		"application packet": allow("S-1-15-2-1", fullAccess),
	} {
		if got := granted([]entry{e}); got != nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A list says as much as whoever could write it.
func TestListsAreBelievedByTheirOwner(t *testing.T) {
	t.Parallel()
	list := dirEntries([]string{alice})
	for owner, want := range map[string][]string{
		sidSystem: {alice}, sidAdministrators: {alice}, alice: {alice},
		bob: nil, service: nil, "S-1-5-32-545": nil, "": nil,
	} {
		if got := believed(owner, list); !slices.Equal(got, want) {
			t.Errorf("written by %q: %q, want %q", owner, got, want)
		}
	}
	if got := believed(bob, dirEntries([]string{alice, bob})); got != nil {
		t.Errorf("one who lets himself in beside another: %q", got)
	}
}

// An owner who is not in the list can put himself there.
func TestOwnersMayBeStrangers(t *testing.T) {
	t.Parallel()
	list := fileEntries([]string{alice}, readAccess)
	for owner, want := range map[string][]string{
		sidSystem: nil, sidAdministrators: nil, sidInstaller: nil, alice: nil,
		bob: {alice, bob}, "S-1-5-32-545": {"S-1-5-32-545"},
	} {
		if got := strangers(withOwner(owner, list)); !slices.Equal(got, want) {
			t.Errorf("owned by %s: %q, want %q", owner, got, want)
		}
	}
	if got := strangers(withOwner(bob, fileEntries(nil, 0))); got != nil {
		t.Errorf("one's own file: %q", got)
	}
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	private := fileEntries([]string{alice}, readAccess)
	with := func(more ...entry) []entry { return append(slices.Clone(private), more...) }
	for name, c := range map[string]struct {
		list []entry
		want []string
	}{
		"everyone reads":            {with(allow("S-1-1-0", readAccess)), []string{"S-1-1-0"}},
		"users read":                {with(allow("S-1-5-32-545", 0x1200a9)), []string{"S-1-5-32-545"}},
		"authenticated users write": {with(allow("S-1-5-11", 0x2)), []string{"S-1-5-11"}},
		"a domain's users":          {with(allow("S-1-5-21-1004336348-1177238915-682003330-513", readAccess)), []string{"S-1-5-21-1004336348-1177238915-682003330-513"}},
		"may take it over":          {with(allow("S-1-1-0", 0x80000)), []string{"S-1-1-0"}},
		"generic read":              {with(allow("S-1-1-0", 0x80000000)), []string{"S-1-1-0"}},
		"two accounts":              {with(allow(bob, readAccess)), []string{alice, bob}},
		"the same twice":            {with(allow(alice, modify), allow("S-1-1-0", 1), allow("S-1-1-0", 2)), []string{"S-1-1-0"}},
		"may see its attributes":    {with(allow("S-1-1-0", 0x120080)), nil},
		"denied":                    {with(entry{SID: "S-1-1-0", Mask: fullAccess, Deny: true}), nil},
		"for what is below":         {with(entry{SID: "S-1-1-0", Mask: fullAccess, InheritOnly: true}), nil},
		"owner":                     {with(allow("S-1-3-4", fullAccess)), nil},
	} {
		if got := strangers(c.list); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAccountNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		`NT AUTHORITY\LocalService`:   sidLocalService,
		`nt authority\local service`:  sidLocalService,
		"LocalService":                sidLocalService,
		`NT AUTHORITY\NetworkService`: sidNetworkService,
		"LocalSystem":                 sidSystem,
		`NT AUTHORITY\SYSTEM`:         sidSystem,
		"s-1-5-21-1-2-3-1001":         "S-1-5-21-1-2-3-1001",
		`CORP\localservice`:           "",
		`CORP\larder$`:                "",
		"alice":                       "",
	} {
		if got := wellKnown(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{`.\larder`: `HOST\larder`, `CORP\larder$`: `CORP\larder$`, "a@corp.example": "a@corp.example", "larder": "larder"} {
		if got := qualified(name, "HOST"); got != want {
			t.Errorf("%q is looked up as %q, want %q", name, got, want)
		}
	}
}
