package winservice

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"
)

func TestAccounts(t *testing.T) {
	t.Parallel()
	const user, managed, none = "password", "managed", "none"
	for _, c := range []struct{ text, start, kind, lookup string }{
		{"LocalService", `NT AUTHORITY\LocalService`, none, ""},
		{`nt authority\local service`, `NT AUTHORITY\LocalService`, none, ""},
		{`NT AUTHORITY\NetworkService`, `NT AUTHORITY\NetworkService`, none, ""},
		{"SYSTEM", "LocalSystem", none, ""},
		{`.\LocalSystem`, "LocalSystem", none, ""},
		{`NT SERVICE\larder`, `NT SERVICE\larder`, none, ""},
		{"larder", `.\larder`, user, `HOST\larder`},
		{`.\larder`, `.\larder`, user, `HOST\larder`},
		{` .\larder `, `.\larder`, user, `HOST\larder`},
		{`.\two words`, `.\two words`, user, `HOST\two words`},
		{`HOST\larder`, `HOST\larder`, user, `HOST\larder`},
		{`CORP\svc.larder`, `CORP\svc.larder`, user, `CORP\svc.larder`},
		{"svc@corp.example", "svc@corp.example", user, "svc@corp.example"},
		{`CORP\larder$`, `CORP\larder$`, managed, `CORP\larder$`},
		{"larder$@corp.example", "larder$@corp.example", managed, "larder$@corp.example"},
	} {
		a, err := AccountOf(c.text)
		if err != nil || a.Start != c.start || a.Right != (c.kind != none) || a.Password != (c.kind == user) {
			t.Errorf("%q: %+v, %v; want %s, %s", c.text, a, err, c.start, c.kind)
			continue
		}
		if c.lookup != "" && a.lookupName("HOST") != c.lookup {
			t.Errorf("%q is looked up as %q, want %q", c.text, a.lookupName("HOST"), c.lookup)
		}
		for _, given := range []bool{true, false} {
			err := a.check(given)
			if (err == nil) != (given == (c.kind == user)) {
				t.Errorf("%q with a password %v: %v", c.text, given, err)
			}
			if err != nil && !strings.Contains(err.Error(), a.Start) {
				t.Errorf("the error does not name the account: %v", err)
			}
		}
	}
}

// Windows keeps an account for each service, and only of the service's name.
func TestDefaultAccountIsTheServicesOwn(t *testing.T) {
	t.Parallel()
	o := Options{Name: "larder-node", Exe: `C:\l.exe`}
	made, err := prepare(o)
	if want := (Account{Start: `NT SERVICE\larder-node`}); err != nil || made.account != want {
		t.Errorf("by default: %+v, %v; want %+v", made.account, err, want)
	}
	o.Account = `nt service\Larder-Node`
	if err := o.Check(); err != nil {
		t.Error(err)
	}
	o.Account = `NT SERVICE\other`
	if err := o.Check(); err == nil || !strings.Contains(err.Error(), `expected NT SERVICE\larder-node`) {
		t.Errorf("another service's: %v", err)
	}
}

func TestAccountsThatAreNone(t *testing.T) {
	t.Parallel()
	for bad, want := range map[string]string{
		"":                    "a name after the domain",
		`CORP\`:               `a name after the domain, as in DOMAIN\name`,
		`\larder`:             `a name after the domain, as in DOMAIN\name`,
		`CORP\a\b`:            `.\name, DOMAIN\name, name@domain.example or DOMAIN\name$`,
		`CORP/larder`:         `.\name, DOMAIN\name`,
		`CORP\a"b`:            `.\name, DOMAIN\name`,
		"a\nb":                `.\name, DOMAIN\name`,
		"@corp.example":       "either DOMAIN\\name or name@domain.example",
		"larder@":             "either DOMAIN\\name or name@domain.example",
		`CORP\a@corp`:         "either DOMAIN\\name or name@domain.example",
		"larder$":             "a managed account belongs to a domain",
		`.\larder$`:           "a managed account belongs to a domain",
		`CORP\ends.with.dot.`: "a name after the domain",
	} {
		if a, err := AccountOf(bad); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("found %q", bad)) {
			t.Errorf("%q: %+v, %v; want %s", bad, a, err, want)
		}
	}
}

func FuzzAccountOf(f *testing.F) {
	for _, s := range []string{"", `.\a`, `CORP\a$`, "a$@b", `a\b\c`, "@", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := AccountOf(text)
		if err != nil {
			return
		}
		if a.Password && !a.Right {
			t.Errorf("%q: a user without the right to log on", text)
		}
		again, err := AccountOf(a.Start)
		if err != nil || again != a {
			t.Errorf("%q is %+v, and that read again %+v, %v", text, a, again, err)
		}
	})
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	const exe = `C:\Program Files\Larder\larder.exe`
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ``},
		{[]string{"node", "run", "--config", `C:\ProgramData\Larder\node.yaml`}, ` node run --config C:\ProgramData\Larder\node.yaml`},
		{[]string{`D:\my files\`}, ` "D:\my files\\"`},
		{[]string{""}, ` ""`},
		{[]string{`a"b`}, ` "a\"b"`},
		{[]string{`a\"b`}, ` "a\\\"b"`},
		{[]string{`a\\b c`}, ` "a\\b c"`},
		{[]string{`ends\`}, ` ends\`},
		{[]string{"grün", "tab\there"}, " grün \"tab\there\""},
	} {
		if got := CommandLine(exe, c.args); got != `"`+exe+`"`+c.want {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
	}
}

func TestMistakesInOptionsAllAtOnce(t *testing.T) {
	t.Parallel()
	const secret = "correct horse"
	err := Options{Name: "a/b", Exe: "larder.exe", Args: []string{"a\x00"}, Account: `CORP\gmsa$`, Password: secret}.Check()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`service name: found "a/b"`, `program: found "larder.exe", expected a whole path`, "without zero bytes", `CORP\gmsa$ has no password`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %s in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the password is in the error: %v", err)
	}
	if err := Install(Options{Name: "larder", Exe: `C:\"x`}); err == nil || !strings.Contains(err.Error(), "program: found") {
		t.Errorf("a quotation mark in the program: %v", err)
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	t.Parallel()
	o := Options{Name: "larder", Exe: `C:\l.exe`, Account: `.\l`, Password: "correct horse"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, o); strings.Contains(text, o.Password) || !strings.Contains(text, `"C:\l.exe"`) {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func TestElsewhere(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("this is the system")
	}
	for what, err := range map[string]error{
		"install":   Install(Options{Name: "larder", Exe: `C:\l.exe`}),
		"start":     Start(t.Context(), "larder"),
		"uninstall": Uninstall(t.Context(), "larder"),
	} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "not on this system") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Log("larder"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("log: %v", err)
	}
	if err := Run(t.Context(), "larder", func(_ context.Context, service bool) error {
		if service {
			return fs.ErrInvalid
		}
		return fs.ErrClosed
	}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("run: %v, want what the node returned", err)
	}
}

func TestSeverities(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]severity{
		`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"error"}` + "\n": information,
		`{"level":"DEBUG-4"}`:  information,
		`{"level":"WARN"}`:     warning,
		`{"level":"ERROR+2"}`:  failure,
		"panic: out of memory": warning,
		"":                     warning,
	} {
		if got := severityOf([]byte(line)); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
