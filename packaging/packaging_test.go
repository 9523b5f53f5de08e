package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"larder/internal/lardertest"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// glob is files by a pattern, at least one.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names
}

// inCI is true where nothing may be left out for want of a program.
func inCI() bool { return os.Getenv("CI") == "true" }

// program finds a program that tests cannot do without.
func program(t *testing.T, name string) string {
	t.Helper()
	path := find(name)
	if path == "" && inCI() {
		t.Fatalf("%s is not on this machine", name)
	}
	if path == "" {
		t.Skipf("%s is not on this machine", name)
	}
	return path
}

// checker finds a program that looks a second time at what other tests run.
// Nothing brings it to a machine of the tests.
func checker(t *testing.T, name string) string {
	t.Helper()
	path := find(name)
	if path == "" {
		t.Skipf("%s is not on this machine", name)
	}
	return path
}

// find looks for a program, also where only root's PATH leads; "" for none.
func find(name string) string {
	for _, n := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	return ""
}

// fake puts a program into dir that appends its name and arguments to a file,
// a line each, and exits with code.
func fake(t *testing.T, dir, name, code string) (calls func() string) {
	t.Helper()
	record := filepath.Join(dir, name+".calls")
	text := "#!/bin/sh\n{ echo \"$(basename \"$0\"):\"; printf '<%s>\\n' \"$@\"; } >>'" + record + "'\nexit " + code + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return func() string {
		b, _ := os.ReadFile(record)
		return string(b)
	}
}

func TestShellScriptsAreWellFormed(t *testing.T) {
	t.Parallel()
	sh := program(t, "sh")
	scripts := append(glob(t, "linux/*.sh"), glob(t, "scripts/*.sh")...)
	for _, s := range scripts {
		if out, err := exec.Command(sh, "-n", s).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", s, err, out)
		}
		if info, err := os.Stat(s); err != nil || runtime.GOOS != "windows" && info.Mode()&0o111 == 0 {
			t.Errorf("%s is not executable: %v", s, err)
		}
	}
	if out, err := exec.Command(checker(t, "shellcheck"), append(scripts, "build")...).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

// verbs are what each entry point of the vendor's is here.
var verbs = map[string]string{"generateCsr": "csr", "importCert": "import", "disableTls": "disable", "ShowCertDetails": "show"}

func TestEntryPointsCallLarder(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("these are for Linux")
	}
	if n := len(glob(t, "linux/*.sh")); n != len(verbs) {
		t.Errorf("%d scripts, %d are known", n, len(verbs))
	}
	args := []string{"-algo", "RSA", "-subjectOrg", `Two "quoted" words`, "-sanDns", "a.example,b.example", "", "it's", "*", "$HOME", `back\slash`, "line\nbreak"}
	want := ""
	for _, a := range args {
		want += "<" + a + ">\n"
	}
	for script, verb := range verbs {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			dir, beside, named := t.TempDir(), t.TempDir(), t.TempDir()
			inPath, next, byEnv := fake(t, dir, "larder", "7"), fake(t, beside, "larder", "7"), fake(t, named, "my larder", "7")
			call := func(file string, env ...string) {
				t.Helper()
				cmd := exec.Command(file, args...)
				cmd.Env = append([]string{"PATH=" + dir + ":/usr/bin:/bin"}, env...)
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
					t.Errorf("%s: %v, want larder's exit code 7: %s", file, err, out)
				}
			}
			file, err := filepath.Abs(filepath.Join("linux", script+".sh"))
			if err != nil {
				t.Fatal(err)
			}
			call(file)
			if got := inPath(); got != "larder:\n<tls>\n<"+verb+">\n"+want {
				t.Errorf("larder was called with\n%s", got)
			}
			call(file, "LARDER="+filepath.Join(named, "my larder"))
			if got := byEnv(); got != "my larder:\n<tls>\n<"+verb+">\n"+want {
				t.Errorf("the larder of the environment was called with\n%s", got)
			}
			copied := filepath.Join(beside, script+".sh")
			if err := os.WriteFile(copied, []byte(read(t, file)), 0o755); err != nil {
				t.Fatal(err)
			}
			call(copied)
			if got := next(); !strings.HasPrefix(got, "larder:\n<tls>\n<"+verb+">\n") {
				t.Errorf("the larder beside the script was called with\n%s", got)
			}
		})
	}
}

// The parameters of the vendor's scripts, by script.
var parameters = map[string][]string{
	"generateCsr": {"algo", "keySizeOrCurve", "csrName", "subjectCommonName", "subjectCountry", "subjectState", "subjectOrg",
		"sanDns", "sanIp", "sanUri", "sanEmail", "sanRid", "sanDirName", "sanOtherName"},
	"importCert":      {"certName"},
	"disableTls":      {},
	"ShowCertDetails": {},
}

// refusal is for PowerShell before 7.3, and later ones set up to pass arguments
// as those did: quotation marks in an argument reach a program as something
// else, and what they do to blanks beside them differs by version.
const refusal = `$legacy = $PSVersionTable.PSVersion -lt [version]'7.3' -or "$(Get-Variable PSNativeCommandArgumentPassing -ValueOnly -ErrorAction SilentlyContinue)" -eq 'Legacy'
if ($legacy -and ($call -like '*"*')) {
    [Console]::Error.WriteLine("argument: found `

// PowerShell is not on the machines of the tests, so this is what can be seen
// by reading.
func TestPowerShellEntryPoints(t *testing.T) {
	t.Parallel()
	if n := len(glob(t, "windows/*.ps1")); n != len(verbs) {
		t.Errorf("%d scripts, %d are known", n, len(verbs))
	}
	comment := regexp.MustCompile(`(?m)^\s*#.*$`)
	for script, verb := range verbs {
		text := comment.ReplaceAllString(read(t, "windows/"+script+".ps1"), "")
		param, body, ok := strings.Cut(text, "\n)\n")
		if !ok || !strings.Contains(body, "@('tls', '"+verb+"')") || !strings.Contains(body, "& $larder @call\nexit $LASTEXITCODE") {
			t.Errorf("%s does not call larder tls %s and pass its exit code on", script, verb)
		}
		for _, p := range append([]string{"mccRunTimeAccount", "mccLocalAccountCredential"}, parameters[script]...) {
			if !strings.Contains(param, "] $"+p) {
				t.Errorf("%s has no parameter %s", script, p)
			}
		}
		for _, p := range parameters[script] {
			if !strings.Contains(body, "'"+p+"'") {
				t.Errorf("%s does not pass %s on", script, p)
			}
		}
		if refused, called := strings.Index(body, refusal), strings.Index(body, "& $larder @call"); refused < 0 || refused > called {
			t.Errorf("%s does not refuse quotation marks where PowerShell changes them", script)
		}
		if !strings.Contains(param, "[Alias('RunTimeAccountName', 'RunTimeAccount')]") {
			t.Errorf("%s lacks the account's older names", script)
		}
		if strings.Contains(body, "Credential") || strings.Contains(strings.ToLower(text), "password") {
			t.Errorf("%s looks at the credential", script)
		}
		for _, pair := range []string{"{}", "()", "[]"} {
			if strings.Count(text, pair[:1]) != strings.Count(text, pair[1:]) {
				t.Errorf("%s: %s are not in pairs", script, pair)
			}
		}
		pwsh, err := exec.LookPath("pwsh")
		if err != nil {
			continue
		}
		parse := "$e = $null; [void][System.Management.Automation.Language.Parser]::ParseFile((Resolve-Path $args[0]), [ref]$null, [ref]$e); $e; exit $e.Count"
		if out, err := exec.Command(pwsh, "-NoProfile", "-Command", parse, "windows/"+script+".ps1").CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for name, own := range map[string][]string{
		"larder-node": {"ExecStart=/usr/bin/larder node run --config /etc/larder/node.yaml", "ExecReload=/bin/kill -HUP $MAINPID", "LogsDirectory=larder", "Restart=on-failure", "ConditionPathExists=/etc/larder/node.yaml"},
		"larder-control": {"ExecStart=/usr/bin/larder control run --config /etc/larder/control.yaml", "Restart=always", "ConditionPathExists=/etc/larder/control.yaml",
			"After=network-online.target postgresql.service"},
	} {
		unit := read(t, "systemd/"+name+".service")
		lines := strings.Split(unit, "\n")
		for _, want := range append(own, "User=larder", "AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "NoNewPrivileges=true", "ProtectSystem=strict",
			"StateDirectory=larder", "LimitNOFILE=1048576", "MemoryDenyWriteExecute=true", "SystemCallFilter=@system-service", "WantedBy=multi-user.target") {
			if !slices.Contains(lines, want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		// Checked with a program that is there, which the packaged one need not be.
		file := filepath.Join(t.TempDir(), name+".service")
		if err := os.WriteFile(file, []byte(strings.Replace(unit, "ExecStart=/usr/bin/larder", "ExecStart=/bin/true", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(checker(t, "systemd-analyze"), "verify", "--man=no", file).CombinedOutput(); err != nil || strings.Contains(string(out), name+".service:") {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
	}
}

func TestAppArmorProfile(t *testing.T) {
	t.Parallel()
	// -Q: read, but load nothing; -K: no cache.
	if out, err := exec.Command(checker(t, "apparmor_parser"), "-Q", "-K", "apparmor/usr.bin.larder").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// machine is a directory of fakes of what package scripts call.
func machine(t *testing.T) (path string, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	var all []func() string
	for _, name := range []string{"systemd-sysusers", "useradd", "install", "chown", "restorecon", "systemctl"} {
		all = append(all, fake(t, dir, name, "0"))
	}
	all = append(all, fake(t, dir, "getent", "2")) // no such account
	return dir, func() string {
		text := ""
		for _, c := range all {
			text += c()
		}
		return strings.ReplaceAll(text, "\n", " ")
	}
}

func TestPackageScripts(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("these are for Linux")
	}
	// A machine on which the account has been at home, and up to no good.
	root, outside := t.TempDir(), t.TempDir()
	for _, dir := range []string{"etc", "var/lib/larder", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"var/lib/larder/tls": outside, "var/log/larder": filepath.Join(outside, "none")} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(script string, args ...string) string {
		path, calls := machine(t)
		cmd := exec.Command("scripts/"+script, args...)
		cmd.Env = []string{"PATH=" + path + ":/usr/bin:/bin", "DPKG_ROOT=" + root}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s %q: %v: %s", script, args, err, out)
		}
		return calls()
	}
	installed := run("postinstall.sh", "configure")
	for _, want := range []string{"systemd-sysusers: <larder.conf>", "<-h> <root:larder> <" + root + "/etc/larder>"} {
		if !strings.Contains(installed, want) {
			t.Errorf("installing lacks %s:\n%s", want, installed)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "etc/larder")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("/etc/larder: %v, %v", info, err)
	}
	for _, there := range []string{"/tls", "/var/lib/larder", "/var/log/larder", "install:"} {
		if strings.Contains(installed, there) {
			t.Errorf("installing touches %s, which was there:\n%s", there, installed)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("made through a link: %v, %v", entries, err)
	}
	for _, link := range []string{"var/lib/larder", "var/log/larder"} {
		if err := os.RemoveAll(filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	again := run("postinstall.sh", "configure")
	for _, want := range []string{"<-h> <larder:larder> <" + root + "/var/lib/larder>", "<-h> <larder:larder> <" + root + "/var/log/larder>"} {
		if !strings.Contains(again, want) || strings.Contains(again, "/etc/larder") {
			t.Errorf("installing on another machine lacks %s:\n%s", want, again)
		}
	}
	if strings.Contains(installed, "<enable>") || strings.Contains(installed, "<start>") || strings.Contains(installed, "<restart>") {
		t.Errorf("installing starts a node without a configuration:\n%s", installed)
	}
	for _, upgrade := range []string{"upgrade", "1"} {
		if calls := run("preremove.sh", upgrade); calls != "" {
			t.Errorf("upgrading (%s) calls %s", upgrade, calls)
		}
	}
	for _, removal := range []string{"remove", "0"} {
		calls := run("preremove.sh", removal)
		for _, unit := range []string{"larder-node", "larder-control"} {
			if _, err := os.Stat("/run/systemd/system"); err == nil && !strings.Contains(calls, "<disable> <--now> <"+unit+".service>") {
				t.Errorf("removing (%s) does not stop %s", removal, unit)
			}
		}
		run("postremove.sh", removal)
	}
}

// packagesVar says that packages may be built here, as they are in CI: that
// compiles everything for two systems.
const packagesVar = "LARDER_TEST_PACKAGES"

// nfpmVersion is how build names the package builder.
var nfpmVersion = regexp.MustCompile(`(?m)^nfpm=\$\{NFPM:-(\S+)\}$`)

func TestPackages(t *testing.T) {
	if os.Getenv(packagesVar) == "" && !inCI() {
		t.Skip("neither " + packagesVar + " nor CI is set: building packages compiles everything for two systems")
	}
	program(t, "bash")
	named := nfpmVersion.FindStringSubmatch(read(t, "build"))
	if named == nil {
		t.Fatal("build does not say which package builder it wants")
	}
	nfpm := lardertest.Tool(t, named[1]) // or a skip, without a network
	dpkg := program(t, "dpkg-deb")
	out := t.TempDir()
	cmd := exec.Command("./build", "0.0.1-test", out)
	cmd.Env = append(os.Environ(), "NFPM="+nfpm)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	debs, rpms, zips := glob(t, out+"/*.deb"), glob(t, out+"/*.rpm"), glob(t, out+"/*.zip")
	if len(debs) != 1 || len(rpms) != 1 || len(zips) != 1 {
		t.Fatalf("built %q, %q, %q", debs, rpms, zips)
	}
	root := t.TempDir()
	if text, err := exec.Command(dpkg, "-x", debs[0], root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for name, mode := range map[string]os.FileMode{
		"usr/bin/larder": 0o755, "usr/lib/systemd/system/larder-node.service": 0o644, "usr/lib/systemd/system/larder-control.service": 0o644, "usr/lib/sysusers.d/larder.conf": 0o644,
		"usr/share/larder/MccScripts/generateCsr.sh": 0o755, "usr/share/larder/MccScripts/ShowCertDetails.sh": 0o755,
		"usr/share/larder/apparmor/usr.bin.larder": 0o644, "usr/share/doc/larder/operating/node.md": 0o644, "usr/share/doc/larder/node.yaml": 0o644, "usr/share/doc/larder/control.yaml": 0o644,
	} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", name, info, err, mode)
		}
	}
	if text, err := exec.Command(filepath.Join(root, "usr/bin/larder"), "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(text), "larder 0.0.1-test ") {
		t.Errorf("version: %s, %v", text, err)
	}
	if text, err := exec.Command(dpkg, "-f", debs[0], "Package", "Version", "Architecture").CombinedOutput(); err != nil || !strings.Contains(string(text), "Version: 0.0.1~test") {
		t.Errorf("control: %s, %v", text, err)
	}
}
