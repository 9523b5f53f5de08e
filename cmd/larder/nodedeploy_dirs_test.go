package main

import (
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestDeployLeavesOtherProgramsTheirDirectories(t *testing.T) {
	t.Parallel()
	const drive = "/srv/two words/100%"
	for name, c := range map[string]struct {
		there map[string]found
		want  []string // nil: it is given
	}{
		"of a database": {map[string]found{drive: {leads: drive, entries: []string{"ibdata1"}}},
			[]string{`drives[1].path: ` + drive + `: found a directory with "ibdata1" in it, which belongs neither to the account nor to larder; expected `, "next: "}},
		"something beside the configuration": {map[string]found{"/var/lib/larder": {leads: "/var/lib/larder", entries: []string{"tls", "other"}}},
			[]string{`state: /var/lib/larder: found a directory with "other" in it`}},
		"a link to a directory of the system": {map[string]found{drive: {leads: "/var/lib"}},
			[]string{drive + ": found a directory that others need, by a link to /var/lib, expected"}},
		"out of sight":            {map[string]found{drive: {leads: drive, hidden: true}}, []string{"may not look into"}},
		"empty":                   {map[string]found{drive: {leads: drive}}, nil},
		"of a fresh file system":  {map[string]found{drive: {leads: drive, entries: []string{"lost+found"}}}, nil},
		"the account's":           {map[string]found{drive: {leads: drive, entries: []string{"x"}, belongs: true}}, nil},
		"a drive from before":     {map[string]found{drive: {leads: drive, entries: []string{"larder.drive", "x"}}}, nil},
		"a state from before":     {map[string]found{"/var/lib/larder": {leads: "/var/lib/larder", entries: []string{"node-id", "x"}}}, nil},
		"certificates before all": {map[string]found{"/var/lib/larder": {leads: "/var/lib/larder", entries: []string{"tls", "cache"}}}, nil},
	} {
		d := linuxDeployment()
		d.there = c.there
		var r recorder
		_, err := deploySteps(d, r.hands())
		switch {
		case c.want == nil && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != nil && err == nil:
			t.Errorf("%s: it is given", name)
		case err != nil:
			wantText(t, err.Error(), c.want...)
		}
	}

	// The configuration lies in the state directory, on Windows by default.
	d := windowsDeployment()
	d.there = map[string]found{d.cfg.State: {leads: d.cfg.State, entries: []string{"Node.yaml", "logs"}}}
	var r recorder
	if _, err := deploySteps(d, r.hands()); err != nil {
		t.Error(err)
	}
}

// A directory of logs that deploy has not made is not given away.
func TestDeployLeavesDirectoriesOfLogs(t *testing.T) {
	t.Parallel()
	d := linuxDeployment()
	d.cfg.Log.Access = "/srv/logs of all/access.log"
	d.there = map[string]found{"/srv/logs of all": {leads: "/srv/logs of all", entries: []string{"nginx.log"}}}
	did, text := carriedOut(t, deploySteps, d, false)
	if slices.ContainsFunc(did, func(s string) bool { return strings.HasPrefix(s, "grant /srv/logs") }) {
		t.Errorf("given away: %q", did)
	}
	wantText(t, text, "to do: directory /srv/logs of all is there and stays whose it is", "touch '/srv/logs of all/access.log' && chown -h larder: '/srv/logs of all/access.log' && chmod 0640")
	d.there = nil
	did, _ = carriedOut(t, deploySteps, d, false)
	if !slices.Contains(did, "grant /srv/logs of all to larder") {
		t.Errorf("not made: %q", did)
	}
	w := windowsDeployment()
	w.cfg.Log.Access = `D:\logs\access.log`
	w.there = map[string]found{`D:\logs`: {leads: `D:\logs`}}
	_, text = carriedOut(t, deploySteps, w, false)
	wantText(t, text, `icacls "D:\logs\access.log" /grant "NT SERVICE\larder-node:(M)"`)
}

// What is printed for a shell is one argument to it.
func TestShellQuote(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no shell")
	}
	for _, s := range []string{"", "a", "two words", `"$HOME"`, "`id`", "$(id)", "it's", "a\nb", `back\slash`, "!x", "{a,b}", "[a]", "~", "#", "x;id", "grün", "''"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q is quoted as %s, which a shell reads as %q, %v", s, shellQuote(s), out, err)
		}
	}
	if got := shellQuote("/var/lib/larder"); got != "/var/lib/larder" {
		t.Errorf("quoted without need: %s", got)
	}
	d := linuxDeployment()
	d.account, d.accountThere = "x;id", false
	d.closed = []string{d.config}
	_, text := carriedOut(t, deploySteps, d, true)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "         ") && strings.Contains(line, "x;id") && !strings.Contains(line, "'") && !strings.Contains(line, "=x;id") {
			t.Errorf("not quoted: %s", line)
		}
	}
}
