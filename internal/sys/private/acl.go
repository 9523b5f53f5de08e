package private

import (
	"slices"
	"strings"
)

// Rights to files and directories (winnt.h). What follows is plain values, so
// that it is tested on every system; private_windows.go turns it into access lists
// and back.
const (
	fullAccess  = 0x1f01ff
	readAccess  = 0x120089             // FILE_GENERIC_READ
	modify      = 0x1301bf             // what Windows calls Modify
	deleteChild = 0x40                 // FILE_DELETE_CHILD
	grantAccess = modify | deleteChild // to replace files in a directory that one may only read
)

// Security identifiers that are the same on every machine.
const (
	sidSystem         = "S-1-5-18"
	sidAdministrators = "S-1-5-32-544"
	sidLocalService   = "S-1-5-19"
	sidNetworkService = "S-1-5-20"
	sidInstaller      = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
)

// entry is one line of an access list.
type entry struct {
	SID         string
	Mask        uint32
	Deny        bool
	Inherit     bool // handed down to files and directories below
	InheritOnly bool // says nothing about the thing itself
}

// fileEntries is the access list of a private file.
func fileEntries(accounts []string, mask uint32) []entry {
	list := []entry{{SID: sidSystem, Mask: fullAccess}, {SID: sidAdministrators, Mask: fullAccess}}
	for _, sid := range accounts {
		list = append(list, entry{SID: sid, Mask: mask})
	}
	return list
}

// dirEntries is the access list of a private directory. Files that other
// programs make in it, such as logs, inherit it.
func dirEntries(accounts []string) []entry {
	list := fileEntries(accounts, grantAccess)
	for i := range list {
		list[i].Inherit = true
	}
	return list
}

// granted is the accounts that a directory's access list names beside SYSTEM
// and the administrators: those that may do there what GrantAccount lets one do.
func granted(list []entry) (accounts []string) {
	for _, e := range list {
		if !e.Deny && !e.InheritOnly && e.Mask&grantAccess == grantAccess && isAccount(e.SID) && !slices.Contains(accounts, e.SID) {
			accounts = append(accounts, e.SID)
		}
	}
	return accounts
}

// believed is granted, if it was somebody with the right to it who wrote the
// list. The owner of a directory can: where everybody may make directories, as
// in C:\ProgramData, somebody may have made this one, with a list that names
// him. An account that made a directory for itself alone has granted it.
func believed(owner string, list []entry) (accounts []string) {
	accounts = granted(list)
	if owner == sidSystem || owner == sidAdministrators || len(accounts) == 1 && accounts[0] == owner {
		return accounts
	}
	return nil
}

// withOwner is list with what the owner of a thing may do to it whatever the
// list says: change the list.
func withOwner(owner string, list []entry) []entry {
	const readControl, writeDAC = 0x20000, 0x40000
	return append(slices.Clone(list), entry{SID: owner, Mask: readControl | writeDAC})
}

// strangers is who has access by list and should not: groups other than the
// administrators, and accounts if there is more than one.
func strangers(list []entry) (sids []string) {
	const harmless = 0x120088 &^ 0x8 // synchronize, read attributes, read control
	var accounts []string
	for _, e := range list {
		switch {
		case e.Deny, e.InheritOnly, e.Mask&^harmless == 0, slices.Contains(sids, e.SID), slices.Contains(accounts, e.SID):
		case isMachine(e.SID):
		case isAccount(e.SID):
			accounts = append(accounts, e.SID)
		default:
			sids = append(sids, e.SID)
		}
	}
	if len(accounts) > 1 {
		sids = append(sids, accounts...)
	}
	return sids
}

// isMachine is true for those who have access to everything anyway.
func isMachine(sid string) bool {
	return sid == sidSystem || sid == sidAdministrators || sid == sidInstaller ||
		sid == "S-1-3-0" || sid == "S-1-3-4" // creator owner, owner rights: of what is there, the one who wrote it
}

// isAccount is true for the identifier of one account, such as a local user,
// a user or a group managed account of a domain, or a service. An identifier
// does not say whether it is a group's; those that every domain has are known.
func isAccount(sid string) bool {
	switch {
	case sid == sidLocalService, sid == sidNetworkService:
		return true
	case sid == sidInstaller:
		return false
	case strings.HasPrefix(sid, "S-1-5-80-"):
		return sid != "S-1-5-80-0" // all services
	case strings.HasPrefix(sid, "S-1-5-21-"):
		rid := sid[strings.LastIndexByte(sid, '-')+1:]
		return !slices.Contains(domainGroups, rid)
	}
	return false
}

// domainGroups end the identifiers of groups that every domain has: its users,
// guests, computers, controllers, administrators of several kinds, and the like.
var domainGroups = []string{"498", "512", "513", "514", "515", "516", "517", "518", "519", "520", "521", "522", "525", "526", "527", "553", "571", "572"}

// wellKnown is the identifier of an account whose name differs by the language
// of Windows, and of one that is given by its identifier; "" for others.
func wellKnown(account string) string {
	name := strings.ToLower(strings.ReplaceAll(account, " ", ""))
	name = strings.TrimPrefix(name, `ntauthority\`)
	switch name {
	case "localservice":
		return sidLocalService
	case "networkservice":
		return sidNetworkService
	case "localsystem", "system", `.\localsystem`:
		return sidSystem
	}
	if strings.HasPrefix(name, "s-1-") {
		return strings.ToUpper(name)
	}
	return ""
}

// qualified is account as Windows looks it up: the dot of .\name, which the
// service manager knows and the directory of accounts does not, becomes the
// name of the machine.
func qualified(account, machine string) string {
	if name, ok := strings.CutPrefix(account, `.\`); ok {
		return machine + `\` + name
	}
	return account
}
