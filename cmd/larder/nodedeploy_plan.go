package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"larder/internal/node/config"
	"larder/internal/sys/firewall"
	"larder/internal/sys/winservice"
)

// serviceName is the node to Windows' service manager and to systemd.
const serviceName = "larder-node"

// dropInFile is what deploy adds to the package's unit.
const dropInFile = "/etc/systemd/system/" + serviceName + ".service.d/deploy.conf"

// deployment is what is known about a machine and what is wanted of it.
type deployment struct {
	windows bool
	exe     string
	config  string // absolute
	cfg     *config.Config

	account      string   // "": the default
	password     string   // never printed
	accountThere bool     // Linux; Windows says so itself
	group        string   // Linux: of the account
	closed       []string // Linux: what keeps the account from reading the configuration
	unit         bool     // Linux: the package's unit is there
	dropIn       bool     // Linux: dropInFile is there
	start        bool     // and, for uninstall, stop

	there map[string]found // by the path in the configuration

	firewall   firewall.Kind
	noFirewall bool
	held       map[string]string // listeners of the configuration that others hold, and who
}

// A step is something to be done, or to be said.
type step struct {
	what    string
	command string                      // what it amounts to, as one would type it; may be empty
	do      func(context.Context) error // nil: the administrator's to do
	note    bool                        // nothing is to be done
}

// hands are what a plan changes a machine by.
type hands struct {
	grant      func(dir, account string) error
	writeFile  func(name, text string) error
	removeFile func(name string) error
	install    func(winservice.Options) error
	startIt    func(ctx context.Context, name string) error
	uninstall  func(ctx context.Context, name string) error
	addRule    func(context.Context, firewall.Rule) error
	removeRule func(ctx context.Context, name string) error
	run        func(ctx context.Context, program string, args ...string) error
}

// runTimeAccount is the account, by default the one with the fewest rights.
func (d *deployment) runTimeAccount() string {
	switch {
	case d.account != "":
		return d.account
	case d.windows:
		return winservice.DefaultAccount(serviceName)
	}
	return "larder"
}

// slashed is a path with one kind of separators. filepath knows only those of
// the system it runs on.
func (d *deployment) slashed(p string) string {
	if d.windows {
		p = strings.ToLower(strings.ReplaceAll(p, `\`, "/"))
	}
	return path.Clean(p)
}

func (d *deployment) within(p, dir string) bool {
	return strings.HasPrefix(d.slashed(p)+"/", strings.TrimSuffix(d.slashed(dir), "/")+"/")
}

func (d *deployment) dirOf(file string) string {
	if i := strings.LastIndexByte(file, '\\'); d.windows && i >= 0 {
		return file[:i]
	}
	return path.Dir(file)
}

// deploySteps is what has to be done so that the node runs on this machine.
func deploySteps(d deployment, h hands) ([]step, error) {
	account := d.runTimeAccount()
	var mistakes []string
	for _, p := range d.topPlaces() {
		if err := d.refuse(p); err != nil {
			mistakes = append(mistakes, err.Error())
		}
	}
	if !d.windows && d.password != "" {
		mistakes = append(mistakes, "--run-time-password-file: found one, expected none: only Windows needs the password of a service's account")
	}
	if d.windows {
		if err := d.service().Check(); err != nil {
			mistakes = append(mistakes, err.Error())
		}
	}
	if len(mistakes) > 0 {
		return nil, errors.New(strings.Join(mistakes, "\n"))
	}

	steps := []step{{what: d.config + " is fine", note: true}}
	for _, addr := range slices.Sorted(maps.Keys(d.held)) {
		steps = append(steps, step{what: fmt.Sprintf("port %s is held by %s: the node cannot start before that one is stopped or moved", portOf(addr), d.held[addr])})
	}
	if d.windows {
		steps = append(steps, d.windowsSteps(account, h)...)
	} else {
		steps = append(steps, d.linuxSteps(account, h)...)
	}
	rules, err := d.rules()
	if err != nil {
		return nil, err
	}
	steps = append(steps, d.firewallSteps(true, rules, h)...)
	return append(steps, d.startStep(h)), nil
}

// example is a better directory than the one somebody wrote.
func (d *deployment) example(dir string) string {
	if d.windows {
		return strings.TrimRight(dir, `\/`) + `\Larder`
	}
	return path.Join(dir, "larder")
}

func (d *deployment) rules() ([]firewall.Rule, error) {
	return firewall.Rules(d.exe, d.cfg.Listen.HTTP, d.cfg.Listen.HTTPS)
}

func (d *deployment) service() winservice.Options {
	return winservice.Options{
		Name: serviceName, DisplayName: "Larder cache node",
		Description: "Keeps software updates and other large downloads near the machines that want them.",
		Exe:         d.exe, Args: []string{"node", "run", "--config", d.config},
		Account: d.account, Password: d.password,
	}
}

// windowsSteps installs the service first: an account that Windows keeps for a
// service (NT SERVICE\larder-node) is there from then on.
func (d *deployment) windowsSteps(account string, h hands) (steps []step) {
	o := d.service()
	steps = append(steps, step{
		what:    fmt.Sprintf("service %s, as %s, started with Windows and again when it ends", serviceName, account),
		command: winservice.CommandLine(o.Exe, o.Args),
		do:      func(context.Context) error { return h.install(o) },
	})
	for _, p := range d.topPlaces() {
		dir := p.dir
		if s, theirs := d.logStep(p, account); theirs {
			steps = append(steps, s)
			continue
		}
		steps = append(steps, step{
			what:    fmt.Sprintf("directory %s, for %s, SYSTEM and the administrators alone", dir, account),
			command: fmt.Sprintf(`icacls "%s" /inheritance:r /grant:r "*S-1-5-18:(OI)(CI)F" "*S-1-5-32-544:(OI)(CI)F" "%s:(OI)(CI)(M,DC)"`, dir, account),
			do:      func(context.Context) error { return h.grant(dir, account) },
		})
	}
	if users := d.slashed(d.exe); strings.Contains(users, "/users/") || strings.Contains(users, "/temp/") {
		steps = append(steps, step{what: fmt.Sprintf(`%s may be out of reach for %s: its usual place is C:\Program Files\Larder\larder.exe`, d.exe, account), note: true})
	}
	return steps
}

func (d *deployment) linuxSteps(account string, h hands) (steps []step) {
	if !d.accountThere {
		steps = append(steps, step{
			what:    fmt.Sprintf("account %s is not on this machine; make it, then deploy again", account),
			command: fmt.Sprintf("useradd --system --user-group --home-dir %s --no-create-home --shell /usr/sbin/nologin %s", shellQuote(d.cfg.State), shellQuote(account)),
		})
	}
	for _, p := range d.topPlaces() {
		dir := p.dir
		if s, theirs := d.logStep(p, account); theirs {
			steps = append(steps, s)
			continue
		}
		s := step{what: fmt.Sprintf("directory %s, for %s alone", dir, account)}
		s.command = fmt.Sprintf("mkdir -p -m 0700 %s && chown -hR %s %[1]s && chmod o-rwx,g-w %[1]s", shellQuote(dir), shellQuote(account+":"))
		if d.accountThere {
			s.do = func(context.Context) error { return h.grant(dir, account) }
		}
		steps = append(steps, s)
	}
	steps = append(steps, d.advice(account)...)
	if text := d.dropInText(account); text != "" {
		steps = append(steps, step{
			what:    fmt.Sprintf("%s, what the unit has to know about this machine", dropInFile),
			command: strings.TrimSpace(strings.ReplaceAll(text, "\n", "\n         ")),
			do:      func(context.Context) error { return h.writeFile(dropInFile, text) },
		})
	} else if d.dropIn {
		steps = append(steps, step{
			what:    "the unit knows all it has to as it is",
			command: "rm " + dropInFile,
			do:      func(context.Context) error { return h.removeFile(dropInFile) },
		})
	}
	if !d.unit {
		steps = append(steps, step{what: fmt.Sprintf("no unit %s is installed: it comes with the package (packaging/systemd/%[1]s.service)", serviceName)})
	}
	return steps
}

// dropInText is what the package's unit must be told: where else the node
// writes, where its configuration is, and its account. "" if nothing.
func (d *deployment) dropInText(account string) string {
	var lines []string
	if account != "larder" {
		group := d.group
		if group == "" {
			group = account // which useradd makes with it
		}
		lines = append(lines, "User="+account, "Group="+group)
	}
	for _, dir := range d.dirs() {
		if !d.within(dir, "/var/lib/larder") && !d.within(dir, "/var/log/larder") {
			// The dash: a drive that fails is the node's to report, not a reason not to start.
			lines = append(lines, `ReadWritePaths="-`+unitText(dir)+`"`)
		}
	}
	if d.exe != "/usr/bin/larder" || d.config != "/etc/larder/node.yaml" {
		lines = append(lines, "ExecStart=", fmt.Sprintf(`ExecStart="%s" node run --config "%s"`, unitText(d.exe), unitText(d.config)))
	}
	if len(lines) == 0 {
		return ""
	}
	return "# Written by larder node deploy.\n[Service]\n" + strings.Join(lines, "\n") + "\n"
}

// unitText is text between quotation marks in a unit: systemd.unit(5) on
// specifiers, systemd.syntax(7) on quoting, systemd.service(5) on variables.
func unitText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(s)
}

// firewallSteps lets clients in, or no longer.
func (d *deployment) firewallSteps(add bool, rules []firewall.Rule, h hands) (steps []step) {
	if d.noFirewall {
		return []step{{what: "the firewall is left alone", note: true}}
	}
	if d.firewall == firewall.None {
		if !add {
			return nil
		}
		var open []string
		for _, r := range rules {
			open = append(open, r.PortList(", "))
		}
		return []step{{what: "no active firewall was found; if there is one, it has to let TCP " + strings.Join(open, ", ") + " in", note: true}}
	}
	verb := "lets in"
	if !add {
		verb = "no longer lets in"
	}
	for _, r := range rules {
		s := step{what: fmt.Sprintf("%s %s TCP %s", d.firewall, verb, r.PortList(", ")), command: firewall.CommandFor(d.firewall, add, r)}
		if d.firewall == firewall.Windows {
			s.do = func(ctx context.Context) error { return h.addRule(ctx, r) }
		}
		if add || d.firewall != firewall.Windows {
			steps = append(steps, s)
		}
	}
	if d.firewall == firewall.Windows {
		// By name, and whatever the ports were when they were made.
		for _, name := range firewall.Names {
			if add && slices.ContainsFunc(rules, func(r firewall.Rule) bool { return r.Name == name }) {
				continue
			}
			steps = append(steps, step{
				what:    fmt.Sprintf("%s has no rule %s", d.firewall, name),
				command: firewall.Command(false, firewall.Rule{Name: name}),
				do:      func(ctx context.Context) error { return h.removeRule(ctx, name) },
			})
		}
	}
	return steps
}

func (d *deployment) startStep(h hands) step {
	if d.windows {
		s := step{what: "service " + serviceName + " is started", command: "sc.exe start " + serviceName}
		if d.start {
			s.do = func(ctx context.Context) error { return h.startIt(ctx, serviceName) }
		}
		return s
	}
	s := step{what: "the node is started, now and with the machine", command: "systemctl daemon-reload && systemctl enable --now " + serviceName}
	if d.start && d.unit && d.accountThere {
		s.do = func(ctx context.Context) error {
			if err := h.run(ctx, "systemctl", "daemon-reload"); err != nil {
				return err
			}
			return h.run(ctx, "systemctl", "enable", "--now", serviceName)
		}
	}
	return s
}

// uninstallSteps undoes deploySteps, but for what is worth keeping.
func uninstallSteps(d deployment, h hands) ([]step, error) {
	var steps []step
	if d.windows {
		steps = append(steps, step{
			what:    "service " + serviceName + " is stopped and removed",
			command: fmt.Sprintf("sc.exe stop %s && sc.exe delete %[1]s", serviceName),
			do:      func(ctx context.Context) error { return h.uninstall(ctx, serviceName) },
		})
	} else {
		s := step{what: "the node is stopped, and no longer started with the machine", command: "systemctl disable --now " + serviceName}
		if d.start && d.unit {
			s.do = func(ctx context.Context) error { return h.run(ctx, "systemctl", "disable", "--now", serviceName) }
		}
		steps = append(steps, s)
		if d.dropIn {
			steps = append(steps, step{
				what:    "what deploy told the unit is removed",
				command: "rm " + dropInFile,
				do:      func(context.Context) error { return h.removeFile(dropInFile) },
			})
		}
	}
	rules, err := d.rules()
	if err != nil {
		return nil, err
	}
	steps = append(steps, d.firewallSteps(false, rules, h)...)
	steps = append(steps, step{what: "kept: " + d.config + " (configuration)", note: true})
	for _, dir := range d.dirs() {
		what := "kept: " + dir
		switch dir {
		case d.cfg.TLS.Dir:
			what += " (certificates and keys)"
		case d.cfg.State:
			what += " (state, and what lies below)"
		}
		steps = append(steps, step{what: what, note: true})
	}
	return steps, nil
}
