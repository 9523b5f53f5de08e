package firewall

import (
	"context"
	"errors"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestRulesOfListeners(t *testing.T) {
	t.Parallel()
	const exe = `C:\Program Files\Larder\larder.exe`
	got, err := Rules(exe, []string{":80", "10.0.0.1:80", "127.0.0.1:8080", "[::1]:8081", "localhost:8082", ":0"}, []string{":443", "[::]:8443"})
	want := []Rule{{"Larder HTTP", []int{80}, exe}, {"Larder HTTPS", []int{443, 8443}, exe}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := Rules(exe, nil, nil); err != nil || len(got) != 0 {
		t.Errorf("no listeners: %+v, %v", got, err)
	}
	for bad, want := range map[string]string{"80": "missing port", ":http": `port: found "http", expected a number`, ":65536": `found "65536"`} {
		if _, err := Rules(exe, []string{bad}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", bad, err, want)
		}
	}
}

func TestCommandsOfWindows(t *testing.T) {
	t.Parallel()
	r := Rule{"Larder HTTP", []int{80, 8080}, `C:\Program Files\Larder\larder.exe`}
	for got, want := range map[string]string{
		Command(true, r):  `netsh advfirewall firewall add rule name="Larder HTTP" dir=in action=allow protocol=TCP localport=80,8080 program="C:\Program Files\Larder\larder.exe"`,
		Command(false, r): `netsh advfirewall firewall delete rule name="Larder HTTP" dir=in`,
		Command(true, Rule{Name: "any", Ports: []int{443}}): `netsh advfirewall firewall add rule name="any" dir=in action=allow protocol=TCP localport=443`,
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// exitCode is what a program that fails leaves behind.
type exitCode int

func (e exitCode) Error() string { return "exit status" }
func (e exitCode) ExitCode() int { return int(e) }

// fakeNetsh keeps names of rules, as netsh does: it adds the same name twice.
type fakeNetsh struct {
	names  []string
	denied bool
	calls  []string
}

func (f *fakeNetsh) run(_ context.Context, program string, args ...string) (string, error) {
	f.calls = append(f.calls, program+" "+strings.Join(args, "|"))
	name := ""
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "name="); ok {
			name = v
		}
	}
	switch verb := args[2]; {
	case verb == "show" && slices.Contains(f.names, name):
		return "Rule Name: " + name, nil
	case verb == "show":
		return "\r\nNo rules match the specified criteria.\r\n", exitCode(1)
	case f.denied:
		return "The requested operation requires elevation (Run as administrator).\r\n", exitCode(1)
	case verb == "delete":
		f.names = slices.DeleteFunc(f.names, func(n string) bool { return n == name })
	case verb == "add":
		f.names = append(f.names, name)
	}
	return "Ok.", nil
}

func TestAddIsDoneOnce(t *testing.T) {
	t.Parallel()
	f := &fakeNetsh{names: []string{"mine"}}
	r := Rule{"Larder HTTP", []int{80}, `C:\l.exe`}
	for i := range 3 {
		r.Ports = []int{80 + i}
		if err := add(t.Context(), f.run, r); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(f.names, []string{"mine", "Larder HTTP"}) {
		t.Errorf("rules after adding three times: %q", f.names)
	}
	if want := `netsh advfirewall|firewall|add|rule|name=Larder HTTP|dir=in|action=allow|protocol=TCP|localport=82|program=C:\l.exe`; f.calls[len(f.calls)-1] != want {
		t.Errorf("called\n%s\nwant\n%s", f.calls[len(f.calls)-1], want)
	}
	for range 2 {
		if err := remove(t.Context(), f.run, r.Name); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(f.names, []string{"mine"}) {
		t.Errorf("rules after removing: %q", f.names)
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	f := &fakeNetsh{denied: true}
	r := Rule{Name: "Larder HTTP", Ports: []int{80}}
	err := add(t.Context(), f.run, r)
	if err == nil || !strings.Contains(err.Error(), Command(true, r)) || !strings.Contains(err.Error(), "requires elevation") || !strings.Contains(err.Error(), "next: ") {
		t.Errorf("adding: %v", err)
	}
	f.names = []string{r.Name}
	if err := remove(t.Context(), f.run, r.Name); err == nil || !strings.Contains(err.Error(), Command(false, r)) {
		t.Errorf("removing: %v", err)
	}
	if err := remove(t.Context(), func(context.Context, string, ...string) (string, error) { return "", exec.ErrNotFound }, r.Name); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a machine without netsh: %v; what cannot be asked is not the same as no rule", err)
	}
}

func TestRulesThatAreNone(t *testing.T) {
	t.Parallel()
	f := &fakeNetsh{}
	for _, r := range []Rule{{"", []int{80}, ""}, {"all", []int{80}, ""}, {`a" dir=out name="b`, []int{80}, ""}, {"a", nil, ""}, {"a", []int{80, 0}, ""}, {"a", []int{65536}, ""}, {"a", []int{80}, `C:\"x`}} {
		if err := add(t.Context(), f.run, r); err == nil || !strings.Contains(err.Error(), "found ") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, name := range []string{"", "ALL", `a" dir=out name="b`} {
		if err := remove(t.Context(), f.run, name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	if len(f.calls) != 0 {
		t.Errorf("netsh was called: %q", f.calls)
	}
}

func TestOtherSystems(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("this is the system")
	}
	r := Rule{Name: "Larder HTTP", Ports: []int{80}}
	for _, err := range []error{Add(t.Context(), r), Remove(t.Context(), r.Name)} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "not on this system") {
			t.Errorf("got %v", err)
		}
	}
	Detect(t.Context()) // whatever it finds here
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		outputs map[string]string
		want    Kind
	}{
		{nil, None},
		{map[string]string{"firewall-cmd --state": "running\n", "ufw status": "Status: active\n"}, Firewalld},
		{map[string]string{"ufw status": "Status: active\n\nTo Action From\n", "nft list ruleset": "type filter hook input"}, UFW},
		{map[string]string{"ufw status": "Status: inactive\n", "nft list ruleset": "chain input {\n type filter hook input priority filter;\n"}, Nftables},
		{map[string]string{"nft list ruleset": "table ip nat {\n chain pre { type nat hook prerouting priority 0; }\n}"}, None},
	} {
		got := detect(t.Context(), func(_ context.Context, program string, args ...string) (string, error) {
			out, ok := c.outputs[program+" "+strings.Join(args, " ")]
			if !ok {
				return "", exec.ErrNotFound
			}
			return out, nil
		})
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.outputs, got, c.want)
		}
	}
}

func TestCommandsOfOtherFirewalls(t *testing.T) {
	t.Parallel()
	r := Rule{Name: "Larder HTTP", Ports: []int{80}}
	for _, c := range []struct {
		kind   Kind
		add    bool
		prefix string
	}{
		{Windows, true, `netsh advfirewall firewall add rule name="Larder HTTP"`},
		{Firewalld, true, "firewall-cmd --permanent --add-port=80/tcp && firewall-cmd --reload"},
		{Firewalld, false, "firewall-cmd --permanent --remove-port=80/tcp && firewall-cmd --reload"},
		{UFW, true, "ufw allow 80/tcp comment 'Larder HTTP'"},
		{UFW, false, "ufw delete allow 80/tcp"},
		{Nftables, true, "nft insert rule inet filter input tcp dport 80 accept"},
		{Nftables, false, "nft -a list chain inet filter input"},
	} {
		if got := CommandFor(c.kind, c.add, r); !strings.HasPrefix(got, c.prefix) {
			t.Errorf("%s: %s, want %s", c.kind, got, c.prefix)
		}
	}
	r.Ports = []int{80, 8080}
	for kind, want := range map[Kind]string{
		Windows:   `netsh advfirewall firewall add rule name="Larder HTTP" dir=in action=allow protocol=TCP localport=80,8080`,
		Firewalld: "firewall-cmd --permanent --add-port=80/tcp --add-port=8080/tcp && firewall-cmd --reload",
		UFW:       "ufw allow 80,8080/tcp comment 'Larder HTTP'",
		Nftables:  "nft insert rule inet filter input tcp dport '{ 80, 8080 }' accept ",
	} {
		if got := CommandFor(kind, true, r); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	if got := CommandFor(None, true, r); got != "" {
		t.Errorf("no firewall: %q", got)
	}
}
