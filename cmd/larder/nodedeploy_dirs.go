package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"larder/internal/sys/private"
)

// place is a directory that the node writes in, and what the configuration
// calls it.
type place struct {
	field, dir string
	own        []string // what larder has put there, if it has been there before
}

// found is what there is at the path of a directory.
type found struct {
	leads   string // the path without symbolic links
	belongs bool   // it is the account's already
	entries []string
	hidden  bool // not even an administrator may look into it
}

// places are what the configuration names, the access log's directory last and
// with nothing of its own: it may have been there for others.
func (d *deployment) places() []place {
	all := []place{
		{"state", d.cfg.State, []string{"node-id"}},
		{"tls.dir", d.cfg.TLS.Dir, []string{"active.yaml", "inventory.json", "certs", "keys"}},
	}
	for i, drive := range d.cfg.Drives {
		all = append(all, place{fmt.Sprintf("drives[%d].path", i), drive.Path, []string{"larder.drive"}})
	}
	if d.cfg.Log.Access != "" {
		all = append(all, place{"log.access", d.dirOf(d.cfg.Log.Access), nil})
	}
	return all
}

// topPlaces are the places that lie in no other, which is left to the other.
func (d *deployment) topPlaces() (top []place) {
	all := d.places()
	for i, p := range all {
		inside := func(o place) bool { return d.slashed(o.dir) != d.slashed(p.dir) && d.within(p.dir, o.dir) }
		again := func(o place) bool { return d.slashed(o.dir) == d.slashed(p.dir) }
		if !slices.ContainsFunc(all, inside) && !slices.ContainsFunc(all[:i], again) {
			top = append(top, p)
		}
	}
	return top
}

// dirs are the directories that the node writes in, each once; those that lie
// in another are left to it.
func (d *deployment) dirs() (dirs []string) {
	for _, p := range d.topPlaces() {
		dirs = append(dirs, p.dir)
	}
	return dirs
}

// look asks this machine about the directories.
func (d *deployment) look() {
	d.there = map[string]found{}
	for _, p := range d.places() {
		leads, err := filepath.EvalSymlinks(p.dir)
		if err != nil {
			continue
		}
		f := found{leads: leads, belongs: private.BelongsTo(leads, d.runTimeAccount())}
		entries, err := os.ReadDir(leads)
		f.hidden = err != nil && isAdministrator()
		for _, e := range entries {
			f.entries = append(f.entries, e.Name())
		}
		d.there[p.dir] = f
	}
}

// refuse says why a directory is not to be given to the account; nil if it is.
func (d *deployment) refuse(p place) error {
	f, there := d.there[p.dir]
	if private.Shared(p.dir) || there && private.Shared(f.leads) {
		what := "a directory that others need"
		if there && d.slashed(f.leads) != d.slashed(p.dir) {
			what += ", by a link to " + f.leads
		}
		return fmt.Errorf("%s: %s: found %s, expected one for the node alone, such as %s", p.field, p.dir, what, d.example(p.dir))
	}
	if !there || f.belongs || d.isLog(p) {
		return nil
	}
	if f.hidden {
		return fmt.Errorf("%s: %s: found a directory that this account may not look into, or none; expected one for the node alone; next: name another one, such as %s", p.field, p.dir, d.example(p.dir))
	}
	for _, q := range d.places() {
		if d.within(q.dir, p.dir) && slices.ContainsFunc(d.there[q.dir].entries, func(name string) bool { return slices.Contains(q.own, name) }) {
			return nil // larder's from before, under another account perhaps
		}
	}
	for _, name := range f.entries {
		if name == "lost+found" || d.expects(path.Join(d.slashed(p.dir), name)) {
			continue
		}
		return fmt.Errorf("%s: %s: found a directory with %q in it, which belongs neither to the account nor to larder; expected an empty one, one of the account %s, or one that larder has used; next: name another one, such as %s", p.field, p.dir, name, d.runTimeAccount(), d.example(p.dir))
	}
	return nil
}

// expects is true for the configuration itself and what leads to a place.
func (d *deployment) expects(name string) bool {
	return d.slashed(name) == d.slashed(d.config) || slices.ContainsFunc(d.places(), func(p place) bool { return d.within(p.dir, name) })
}

// isLog is true for a place that is there for the access log alone.
func (d *deployment) isLog(p place) bool { return p.field == "log.access" }

// logStep is for a directory of the access log that is there and not the
// account's: other programs may have their logs in it.
func (d *deployment) logStep(p place, account string) (s step, theirs bool) {
	f, there := d.there[p.dir]
	if !d.isLog(p) || !there || f.belongs {
		return step{}, false
	}
	file := d.cfg.Log.Access
	s = step{
		what:    fmt.Sprintf("directory %s is there and stays whose it is; %s needs the file of the access log, and to put a full one aside a directory of its own, which deploy makes if it is not there", p.dir, account),
		command: fmt.Sprintf("touch %[1]s && chown -h %[2]s %[1]s && chmod 0640 %[1]s", shellQuote(file), shellQuote(account+":")),
	}
	if d.windows {
		s.command = fmt.Sprintf(`type nul >> "%s" && icacls "%[1]s" /grant "%[2]s:(M)"`, file, account)
	}
	return s, true
}

// advice is how the account comes to read the configuration: by its group.
func (d *deployment) advice(account string) (steps []step) {
	owner := shellQuote("root:" + d.group)
	for _, name := range d.closed {
		quoted := shellQuote(name)
		enter := fmt.Sprintf("%s may not enter %s, where %s is", account, name, d.config)
		switch {
		case name == d.config:
			steps = append(steps, step{
				what:    fmt.Sprintf("%s may not read %s", account, name),
				command: fmt.Sprintf("chown %s %[2]s && chmod 0640 %[2]s", owner, quoted),
			})
		case private.Shared(name):
			steps = append(steps, step{
				what:    enter + ", and that directory is not for the node to open; put the configuration elsewhere",
				command: fmt.Sprintf("mv %s /etc/larder/node.yaml && larder node deploy", shellQuote(d.config)),
			})
		default:
			steps = append(steps, step{what: enter, command: fmt.Sprintf("chown %s %[2]s && chmod g+rx %[2]s", owner, quoted)})
		}
	}
	return steps
}

// shellQuote is one argument of a command as one types it into a shell.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
