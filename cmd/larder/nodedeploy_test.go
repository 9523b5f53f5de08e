package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/node/config"
	"larder/internal/pki/authority"
	"larder/internal/sys/firewall"
	"larder/internal/sys/ports"
	"larder/internal/sys/winservice"
)

// recorder is hands that only write down what they are asked.
type recorder struct {
	did  []string
	fail string // the beginning of what fails
}

func (r *recorder) do(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	r.did = append(r.did, text)
	if r.fail != "" && strings.HasPrefix(text, r.fail) {
		return errors.New("no")
	}
	return nil
}

func (r *recorder) hands() hands {
	return hands{
		grant:      func(dir, account string) error { return r.do("grant %s to %s", dir, account) },
		writeFile:  func(name, text string) error { return r.do("write %s: %s", name, text) },
		removeFile: func(name string) error { return r.do("remove %s", name) },
		install:    func(o winservice.Options) error { return r.do("install %s, password %q", o, o.Password) },
		startIt:    func(_ context.Context, name string) error { return r.do("start %s", name) },
		uninstall:  func(_ context.Context, name string) error { return r.do("uninstall %s", name) },
		addRule: func(_ context.Context, rule firewall.Rule) error {
			return r.do("let in %s for %s", rule.PortList(","), rule.Program)
		},
		removeRule: func(_ context.Context, name string) error { return r.do("shut %s", name) },
		run: func(_ context.Context, program string, args ...string) error {
			return r.do("run %s %s", program, strings.Join(args, " "))
		},
	}
}

func linuxDeployment() deployment {
	cfg := config.Default(func(string) string { return "" })
	cfg.State, cfg.TLS.Dir = "/var/lib/larder", "/var/lib/larder/tls"
	cfg.Drives = []config.Drive{{Path: "/var/lib/larder/cache"}, {Path: "/srv/two words/100%"}}
	cfg.Log.Access = "/var/log/larder/access.log"
	return deployment{exe: "/usr/bin/larder", config: "/etc/larder/node.yaml", cfg: cfg, accountThere: true, group: "larder", unit: true, firewall: firewall.UFW}
}

func windowsDeployment() deployment {
	cfg := config.Default(func(string) string { return "" })
	cfg.State, cfg.TLS.Dir = `C:\ProgramData\Larder`, `C:\ProgramData\Larder\tls`
	cfg.Drives = []config.Drive{{Path: `D:\Larder`}}
	cfg.Log.Access = `C:\ProgramData\Larder\logs\access.log`
	return deployment{windows: true, exe: `C:\Program Files\Larder\larder.exe`, config: `C:\ProgramData\Larder\node.yaml`, cfg: cfg, accountThere: true, firewall: firewall.Windows}
}

// carriedOut is what a plan does and prints.
func carriedOut(t *testing.T, make func(deployment, hands) ([]step, error), d deployment, dry bool) (did []string, text string) {
	t.Helper()
	var r recorder
	steps, err := make(d, r.hands())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := carryOut(t.Context(), &b, steps, dry); err != nil {
		t.Fatal(err)
	}
	return r.did, b.String()
}

func wantDone(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("done:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantText(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("missing %q in\n%s", w, text)
		}
	}
}

func TestDeployOnLinux(t *testing.T) {
	t.Parallel()
	did, text := carriedOut(t, deploySteps, linuxDeployment(), false)
	wantDone(t, did, []string{
		"grant /var/lib/larder to larder",
		"grant /srv/two words/100% to larder",
		"grant /var/log/larder to larder",
		"write " + dropInFile + ": # Written by larder node deploy.\n[Service]\nReadWritePaths=\"-/srv/two words/100%%\"\n",
	})
	wantText(t, text, "note:  /etc/larder/node.yaml is fine",
		"done:  directory /var/lib/larder, for larder alone\n         mkdir -p -m 0700 /var/lib/larder && chown -hR larder: /var/lib/larder",
		"to do: ufw lets in TCP 80\n         ufw allow 80/tcp comment 'Larder HTTP'",
		"to do: ufw lets in TCP 443",
		"to do: the node is started, now and with the machine\n         systemctl daemon-reload && systemctl enable --now larder-node")
}

func TestDeployStartsWhenAsked(t *testing.T) {
	t.Parallel()
	d := linuxDeployment()
	d.start = true
	did, _ := carriedOut(t, deploySteps, d, false)
	wantDone(t, did[len(did)-2:], []string{"run systemctl daemon-reload", "run systemctl enable --now larder-node"})

	// But not what is not there.
	d.unit = false
	did, text := carriedOut(t, deploySteps, d, false)
	if last := did[len(did)-1]; strings.HasPrefix(last, "run ") {
		t.Errorf("started without a unit: %s", last)
	}
	wantText(t, text, "to do: no unit larder-node is installed")
}

func TestDeployWithoutTheAccount(t *testing.T) {
	t.Parallel()
	d := linuxDeployment()
	d.accountThere, d.account, d.group = false, "cache", ""
	did, text := carriedOut(t, deploySteps, d, false)
	if slices.ContainsFunc(did, func(s string) bool { return strings.HasPrefix(s, "grant") }) {
		t.Errorf("given to nobody: %q", did)
	}
	wantText(t, text, "to do: account cache is not on this machine", "useradd --system", "User=cache\n         Group=cache\n")
}

func TestDeployWhatTheUnitMustKnow(t *testing.T) {
	t.Parallel()
	d := linuxDeployment()
	d.cfg.Drives = d.cfg.Drives[:1]
	if got := d.dropInText("larder"); got != "" {
		t.Errorf("nothing to say: %q", got)
	}
	d.dropIn = true
	did, _ := carriedOut(t, deploySteps, d, false)
	if !slices.Contains(did, "remove "+dropInFile) {
		t.Errorf("a file that is no longer needed stays: %q", did)
	}
	d.exe, d.config = "/opt/larder/larder", `/etc/other "name"/$x.yaml`
	wantText(t, d.dropInText("larder"), "ExecStart=\nExecStart=\"/opt/larder/larder\" node run --config \"/etc/other \\\"name\\\"/$$x.yaml\"\n")
	d.account, d.group = "cache", "web"
	wantText(t, d.dropInText("cache"), "User=cache\nGroup=web\n") // not the unit's group, which is another account's
}

func TestDeployOnWindows(t *testing.T) {
	t.Parallel()
	d := windowsDeployment()
	d.account, d.password, d.start = `.\cache`, "correct horse", true
	did, text := carriedOut(t, deploySteps, d, false)
	wantDone(t, did, []string{
		`install service larder-node ("C:\Program Files\Larder\larder.exe" node run --config C:\ProgramData\Larder\node.yaml) as .\cache, password "correct horse"`,
		`grant C:\ProgramData\Larder to .\cache`, // what lies in it goes with it
		`grant D:\Larder to .\cache`,
		`let in 80 for C:\Program Files\Larder\larder.exe`,
		`let in 443 for C:\Program Files\Larder\larder.exe`,
		"start larder-node",
	})
	wantText(t, text, `netsh advfirewall firewall add rule name="Larder HTTP" dir=in action=allow protocol=TCP localport=80 program="C:\Program Files\Larder\larder.exe"`,
		"sc.exe start larder-node", `icacls "D:\Larder"`)
	if strings.Contains(text, d.password) {
		t.Errorf("the password is printed:\n%s", text)
	}

	d = windowsDeployment()
	d.noFirewall, d.exe = true, `C:\Users\me\Downloads\larder.exe`
	did, text = carriedOut(t, deploySteps, d, false)
	if len(did) != 3 {
		t.Errorf("done: %q", did)
	}
	wantText(t, text, `as NT SERVICE\larder-node`, "note:  the firewall is left alone", "may be out of reach", "to do: service larder-node is started")
}

func TestDryRunDoesNothing(t *testing.T) {
	t.Parallel()
	for _, d := range []deployment{linuxDeployment(), windowsDeployment()} {
		d.start = true
		for _, make := range []func(deployment, hands) ([]step, error){deploySteps, uninstallSteps} {
			did, text := carriedOut(t, make, d, true)
			if len(did) != 0 || strings.Contains(text, "done:") {
				t.Errorf("done: %q\n%s", did, text)
			}
			wantText(t, text, "would:")
		}
	}
}

func TestDeployRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d      deployment
		change func(*deployment)
		want   []string
	}{
		"directories of the system": {linuxDeployment(), func(d *deployment) {
			d.cfg.State, d.cfg.Log.Access = "/var/lib/", "/var/log/access.log"
		}, []string{"state: /var/lib/: found a directory that others need, expected one for the node alone, such as /var/lib/larder", "log.access: /var/log: found"}},
		"of Windows": {windowsDeployment(), func(d *deployment) {
			d.cfg.State, d.cfg.TLS.Dir, d.cfg.Log.Access = `c:\programdata`, `C:\x\tls`, ""
			d.cfg.Drives = []config.Drive{{Path: `C:\`}}
		}, []string{`drives[0].path: C:\: found a directory that others need, expected one for the node alone, such as C:\Larder`}},
		"a password on Linux": {linuxDeployment(), func(d *deployment) { d.password = "correct horse" }, []string{"only Windows needs the password"}},
		"no password":         {windowsDeployment(), func(d *deployment) { d.account = `CORP\cache` }, []string{`password: found none, expected that of CORP\cache`}},
		"too much of one":     {windowsDeployment(), func(d *deployment) { d.account, d.password = `CORP\cache$`, "correct horse" }, []string{"password: found one, expected none"}},
		"no account":          {windowsDeployment(), func(d *deployment) { d.account = `CORP\` }, []string{`account: found "CORP\\"`}},
		"a port by name":      {linuxDeployment(), func(d *deployment) { d.cfg.Listen.HTTP = []string{":http"} }, []string{`port: found "http"`}},
	} {
		c.change(&c.d)
		var r recorder
		_, err := deploySteps(c.d, r.hands())
		if err == nil || strings.Contains(err.Error(), "correct horse") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantText(t, err.Error(), c.want...)
	}
}

func TestDeployNamesWhoHoldsAPort(t *testing.T) {
	t.Parallel()
	d := linuxDeployment()
	d.firewall = firewall.None
	d.held = map[string]string{":443": ports.Process{PID: 812, Name: "nginx", Path: "/usr/sbin/nginx", User: "root"}.String()}
	_, text := carriedOut(t, deploySteps, d, false)
	wantText(t, text, "to do: port 443 is held by nginx (process 812, /usr/sbin/nginx, account root)", "note:  no active firewall was found; if there is one, it has to let TCP 80, 443 in")
}

func TestFailureEndsIt(t *testing.T) {
	t.Parallel()
	r := recorder{fail: "install"}
	steps, err := deploySteps(windowsDeployment(), r.hands())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = carryOut(t.Context(), &b, steps, false)
	if err == nil || !strings.HasPrefix(err.Error(), "service larder-node, as ") || len(r.did) != 1 {
		t.Errorf("%v after %q", err, r.did)
	}
}

// A rule for ports that the configuration no longer has is removed as well.
func TestFirewallGoesByNames(t *testing.T) {
	t.Parallel()
	d := windowsDeployment()
	d.cfg.Listen.HTTP, d.cfg.Listen.HTTPS = []string{":80", ":8080"}, nil
	did, _ := carriedOut(t, deploySteps, d, false)
	wantDone(t, did[len(did)-2:], []string{`let in 80,8080 for C:\Program Files\Larder\larder.exe`, "shut Larder HTTPS"})
	d.cfg.Listen.HTTP = []string{":9999"}
	did, _ = carriedOut(t, uninstallSteps, d, false)
	wantDone(t, did, []string{"uninstall larder-node", "shut Larder HTTP", "shut Larder HTTPS"})
}

func TestUninstall(t *testing.T) {
	t.Parallel()
	d := windowsDeployment()
	did, text := carriedOut(t, uninstallSteps, d, false)
	wantDone(t, did, []string{"uninstall larder-node", "shut Larder HTTP", "shut Larder HTTPS"})
	wantText(t, text, `netsh advfirewall firewall delete rule name="Larder HTTP" dir=in`, `kept: C:\ProgramData\Larder\node.yaml`, `kept: C:\ProgramData\Larder (state`, `kept: D:\Larder`)

	d = linuxDeployment()
	d.dropIn, d.firewall = true, firewall.Firewalld
	did, text = carriedOut(t, uninstallSteps, d, false)
	wantDone(t, did, []string{"remove " + dropInFile})
	wantText(t, text, "to do: the node is stopped", "systemctl disable --now larder-node", "firewall-cmd --permanent --remove-port=443/tcp", "kept: /var/lib/larder (state", "kept: /srv/two words/100%")
	d.start = true
	did, _ = carriedOut(t, uninstallSteps, d, false)
	wantDone(t, did, []string{"run systemctl disable --now larder-node", "remove " + dropInFile})
}

// What is wrong with the words of an enrolment is said by their names, and
// secrets are not repeated.
func TestEnrolmentWordsWithMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"customerid=1", "customerkey=hunter2", `drivepathandsizeingb="/srv/cache,100"`}, "controlurl: "},
		{[]string{"--customerkey=hunter2", `drivepathandsizeingb=/srv/cache,100`, "controlurl=http://x"}, "controlurl: "},
		{[]string{"customerkey=hunter2", "controlfingerprint=abc", "drivepathandsizeingb=/srv/cache,100"}, "controlfingerprint: "},
		{[]string{"controlurl=https://c:8440", "controlfingerprint=sha256:" + strings.Repeat("ab", 32), "customerid=1", "cachenodeid=2", "customerkey=hunter2", "registrationkey=hunter2"}, "drivepathandsizeingb"},
		{[]string{"customerkey=hunter2", "drivepathandsizeingb=cache,100"}, "drivepathandsizeingb: "},
		{[]string{"customerkey=hunter2", "drivepathandsizeingb=/srv/cache"}, "drivepathandsizeingb: "},
		{[]string{"customerkey=hunter2", "shoulduseproxy=true"}, "proxyurl: "},
		{[]string{"customerkey=hunter2", "shoulduseproxy=perhaps"}, "shoulduseproxy: "},
		{[]string{"customerkey=hunter2", "proxyurl=http://proxy:3128", "proxytlscertificatepath=/there/is/none.pem"}, "proxytlscertificatepath: "},
		{[]string{"customerkey=hunter2", "proxyurl=http://proxy:3128", "proxytlscertificatepath=nodedeploy_test.go"}, "proxytlscertificatepath: found no certificate"},
		{[]string{"customerkye=hunter2"}, "customerkye"},
		{[]string{"hunter2"}, "key=value"},
	} {
		cmd := nodeDeployCommand()
		cmd.SetArgs(append([]string{"--dry-run", "--config", filepath.Join(t.TempDir(), "node.yaml")}, tt.args...))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.ExecuteContext(t.Context())
		var e *exitError
		if !errors.As(err, &e) || e.code != exitUsage || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v, want a mistake that names %s", tt.args, err, tt.want)
		}
	}
}

// The root of a proxy lies where the service may read it, and the first
// configuration names it there.
func TestTheProxysRootIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := filepath.Join(dir, "given.pem")
	root, err := authority.Create("a proxy", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := nodeDeployCommand()
	cmd.SetOut(io.Discard)
	words := enrolmentFlags(&cobra.Command{})
	if err := words.read([]string{"controlurl=https://c:8440", "controlfingerprint=sha256:" + strings.Repeat("ab", 32), "customerid=1", "cachenodeid=2", "customerkey=x", "registrationkey=y",
		"drivepathandsizeingb=" + filepath.Join(dir, "drive") + ",100", "shoulduseproxy=true", "proxyurl=http://proxy.example:3128", `proxytlscertificatepath="` + ca + `"`}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "etc", "node.yaml")
	if err := words.firstConfig(cmd, file, false); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Upstream.ProxyCA != filepath.Join(dir, "etc", "proxy-ca.pem") || cfg.Upstream.Proxy.String() != "http://proxy.example:3128" {
		t.Errorf("got %+v", cfg.Upstream)
	}
	if roots, err := node.ProxyRoots(cfg); err != nil || roots == nil {
		t.Errorf("its roots: %v, %v", roots, err)
	}
	if u := words.proxyFor(cfg)("control.example"); u == nil || u.Host != "proxy.example:3128" {
		t.Errorf("the control plane is asked through %v", u)
	}
}

func TestPortOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{":80": "80", "[::]:443": "443", "80": "80"} {
		if got := portOf(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if !isThisProgram(ports.Process{Path: "/usr/bin/larder"}, "/opt/larder") || isThisProgram(ports.Process{Path: "/usr/sbin/nginx"}, "/usr/bin/larder") {
		t.Error("a node that runs is not known, or another program is taken for it")
	}
}
