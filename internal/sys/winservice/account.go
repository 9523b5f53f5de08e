package winservice

import (
	"fmt"
	"strings"
)

// Account is the account a service runs under.
type Account struct {
	Start    string // as the service manager wants it
	Password bool   // it has one that the service manager has to know
	Right    bool   // it must be granted the right to log on as a service
}

// LogonRight is the right that users and managed accounts need to run a
// service: "Log on as a service" in the local security policy.
const LogonRight = "SeServiceLogonRight"

// virtual is the domain of accounts that Windows keeps for services, one for
// each, of the same name.
const virtual = "NT SERVICE"

// DefaultAccount is the one that Windows keeps for a service alone. It has next
// to no rights, and may open ports 80 and 443: Windows does not guard them.
// LocalService has as few and is shared: what is private to it, every other
// service that runs as LocalService may read as well.
func DefaultAccount(service string) string { return virtual + `\` + service }

// AccountOf reads an account as administrators write it:
//
//	LocalService, NT AUTHORITY\LocalService, NetworkService, LocalSystem
//	NT SERVICE\name               the account that Windows keeps for a service
//	name, .\name, MACHINE\name    a local user
//	DOMAIN\name, name@domain      a user of a domain
//	DOMAIN\name$, name$@domain    a group managed service account
func AccountOf(text string) (Account, error) {
	name := strings.TrimSpace(text)
	bad := func(expected string) (Account, error) {
		return Account{}, fmt.Errorf("account: found %q, expected %s", text, expected)
	}
	switch plain := strings.ToLower(strings.ReplaceAll(name, " ", "")); strings.TrimPrefix(plain, `ntauthority\`) {
	case "localservice":
		return Account{Start: `NT AUTHORITY\LocalService`}, nil
	case "networkservice":
		return Account{Start: `NT AUTHORITY\NetworkService`}, nil
	case "localsystem", "system", `.\localsystem`:
		return Account{Start: "LocalSystem"}, nil
	}
	domain, user, qualified := strings.Cut(name, `\`)
	if !qualified {
		domain, user = ".", name
	}
	at := strings.LastIndexByte(user, '@')
	switch {
	case domain == "" || user == "" || strings.HasSuffix(user, "."):
		return bad(`a name after the domain, as in DOMAIN\name`)
	case strings.ContainsAny(user, "\"/\\[]:;|=,+*?<>\x00\r\n\t") || strings.ContainsAny(domain, "\"/[]:;|=,+*?<>\x00\r\n\t"):
		return bad(`.\name, DOMAIN\name, name@domain.example or DOMAIN\name$`)
	case at == 0 || at == len(user)-1 || qualified && at > 0:
		return bad("either DOMAIN\\name or name@domain.example")
	}
	if strings.EqualFold(domain, virtual) {
		return Account{Start: name}, nil
	}
	start := name
	if !qualified && at < 0 {
		start = `.\` + name
	}
	managed := strings.HasSuffix(user, "$") || at > 0 && user[at-1] == '$'
	if managed && domain == "." && at < 0 {
		return bad(`DOMAIN\name$: a managed account belongs to a domain`)
	}
	return Account{Start: start, Password: !managed, Right: true}, nil
}

// check says whether a password is missing or too many.
func (a Account) check(password bool) error {
	switch {
	case a.Password && !password:
		return fmt.Errorf("password: found none, expected that of %s; a group managed account (DOMAIN\\name$) or the account that Windows keeps for the service (NT SERVICE\\name) needs none", a.Start)
	case !a.Password && password:
		return fmt.Errorf("password: found one, expected none: %s has no password that anybody knows", a.Start)
	}
	return nil
}

// lookupName is the account as Windows looks it up: the dot of .\name is the
// service manager's alone.
func (a Account) lookupName(machine string) string {
	if name, ok := strings.CutPrefix(a.Start, `.\`); ok {
		return machine + `\` + name
	}
	return a.Start
}
