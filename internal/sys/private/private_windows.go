package private

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// create is os.CreateTemp with an access list from the first moment on.
func create(dir, pattern string) (*os.File, error) {
	accounts, mask, err := accountsOf(dir)
	if err != nil {
		return nil, err
	}
	security, err := attributes(fileEntries(accounts, mask))
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, strings.TrimSuffix(pattern, "*")+rand.Text())
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE,
		security, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}

func mkdirAll(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: windows.ERROR_DIRECTORY}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if parent == filepath.Clean(dir) {
		return err
	}
	if err := mkdirAll(parent); err != nil {
		return err
	}
	accounts, _, err := accountsOf(parent)
	if err != nil {
		return err
	}
	security, err := attributes(dirEntries(accounts))
	if err != nil {
		return err
	}
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	if err := windows.CreateDirectory(path, security); err != nil && !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

func grantAccount(dir, account string) error {
	sid, err := lookup(account)
	if err != nil {
		return err
	}
	var accounts []string
	if s := sid.String(); !isMachine(s) { // SYSTEM is in every list as it is
		accounts = []string{s}
	}
	if err := mkdirAll(dir); err != nil {
		return err
	}
	forDirs, err := accessList(dirEntries(accounts))
	if err != nil {
		return err
	}
	forFiles, err := accessList(fileEntries(accounts, grantAccess&^deleteChild))
	if err != nil {
		return err
	}
	g := giver{dirs: forDirs, files: forFiles}
	if administers() {
		if g.owner, err = windows.StringToSid(sidAdministrators); err != nil {
			return err
		}
	}
	top, err := openToGive(dir, true, true)
	if err != nil {
		return fmt.Errorf("giving %s to %s: %w", dir, account, err)
	}
	defer func() { _ = windows.CloseHandle(top) }()
	if final, err := finalPath(top); err == nil && Shared(final) {
		return fmt.Errorf("giving %s to %s: %w", dir, account, errShared(final))
	}
	if err := g.give(top, dir); err != nil {
		return fmt.Errorf("giving %s to %s: %w", dir, account, err)
	}
	return nil
}

// giver sets lists and, where it may, owners.
type giver struct {
	dirs, files *windows.ACL
	owner       *windows.SID // nil: as it is
}

// openToGive opens something to set its list, not what it leads to if it is a
// link or a junction; follow is for the directory that somebody named, which
// may be where a drive is mounted. A directory that is open like this cannot be
// moved away or replaced, so that the names in it lead to what is in it; a file
// is not kept from those who use it.
func openToGive(name string, isDir, follow bool) (windows.Handle, error) {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, err
	}
	const access = windows.READ_CONTROL | windows.WRITE_DAC | windows.FILE_READ_ATTRIBUTES
	share := uint32(windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE)
	rights, flags := uint32(access), uint32(windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if follow {
		flags = windows.FILE_FLAG_BACKUP_SEMANTICS
	}
	if administers() {
		rights |= windows.WRITE_OWNER
	}
	if isDir {
		rights |= windows.FILE_LIST_DIRECTORY
	} else {
		share |= windows.FILE_SHARE_DELETE
	}
	h, err := windows.CreateFile(path, rights, share, nil, windows.OPEN_EXISTING, flags, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return h, nil
}

// give sets the list of what is open as h, and of what is in it.
func (g *giver) give(h windows.Handle, name string) error {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	acl, isDir := g.files, info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0
	switch {
	case isDir:
		acl = g.dirs
	case info.NumberOfLinks > 1:
		// It has a name elsewhere as well, and what it is there for is not known here.
		return fmt.Errorf("%s: found %d names for this file, expected one; it was left as it is", name, info.NumberOfLinks)
	}
	what := windows.SECURITY_INFORMATION(windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION)
	if g.owner != nil {
		what |= windows.OWNER_SECURITY_INFORMATION
	}
	if err := windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT, what, g.owner, nil, acl, nil); err != nil {
		return &fs.PathError{Op: "setting the access list of", Path: name, Err: err}
	}
	if !isDir {
		return nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if err := g.giveIn(filepath.Join(name, e.Name()), e.IsDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (g *giver) giveIn(name string, isDir bool) error {
	h, err := openToGive(name, isDir, false)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 { // a link or a junction leads elsewhere
		return nil
	}
	if isDir != (info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0) {
		return fmt.Errorf("%s: something else took its place meanwhile", name)
	}
	return g.give(h, name)
}

// finalPath is what is open, by its name without links and junctions.
func finalPath(h windows.Handle) (string, error) {
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(h, &buf[0], uint32(len(buf)), 0)
	if err != nil || int(n) > len(buf) {
		return "", errors.Join(err, windows.ERROR_FILENAME_EXCED_RANGE)
	}
	return windows.UTF16ToString(buf[:n]), nil
}

// administers is true for one who may make the administrators an owner: a
// member of theirs whom user account control does not hold back, and SYSTEM.
func administers() bool {
	sid, err := windows.StringToSid(sidAdministrators)
	if err != nil {
		return false
	}
	member, err := windows.Token(0).IsMember(sid)
	return err == nil && member
}

// belongsTo goes by the list, if it is to be believed.
func belongsTo(dir, account string) bool {
	sid, err := lookup(account)
	if err != nil {
		return false
	}
	owner, list, open, err := entriesOf(dir)
	return err == nil && !open && slices.Contains(believed(owner, list), sid.String())
}

// lookup finds the identifier of an account.
func lookup(account string) (*windows.SID, error) {
	if s := wellKnown(account); s != "" {
		return windows.StringToSid(s)
	}
	machine, err := windows.ComputerName()
	if err != nil {
		return nil, err
	}
	sid, _, kind, err := windows.LookupSID("", qualified(account, machine))
	if err != nil {
		return nil, fmt.Errorf(`account: found %q, expected a name such as .\name, DOMAIN\name, name@domain.example or DOMAIN\name$: %w`, account, err)
	}
	if kind == windows.SidTypeGroup || kind == windows.SidTypeAlias {
		return nil, fmt.Errorf("account: found %q, which is a group; expected one account", account)
	}
	return sid, nil
}

// accountsOf is who files in dir are for, and what these may do with them: the
// accounts that the directory was granted to, for reading. Without any, or if
// who wrote the list is not to be believed, it is the account that runs this,
// unless it is one that has access anyway.
func accountsOf(dir string) (accounts []string, mask uint32, err error) {
	owner, list, unprotected, err := entriesOf(dir)
	if err != nil {
		return nil, 0, err
	}
	if accounts = believed(owner, list); !unprotected && len(accounts) > 0 {
		return accounts, readAccess, nil
	}
	token := windows.GetCurrentProcessToken()
	user, err := token.GetTokenUser()
	if err != nil {
		return nil, 0, fmt.Errorf("asking which account this is: %w", err)
	}
	me := user.User.Sid.String()
	if isMachine(me) || token.IsElevated() {
		return nil, readAccess, nil
	}
	return []string{me}, modify, nil
}

// entriesOf reads the owner and the access list of a file or directory. Open is
// true if it has none, which lets everybody do everything.
func entriesOf(name string) (owner string, list []entry, open bool, err error) {
	failed := func(err error) (string, []entry, bool, error) {
		return "", nil, false, &fs.PathError{Op: "reading the access list of", Path: name, Err: err}
	}
	sd, err := windows.GetNamedSecurityInfo(name, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return failed(err)
	}
	if sd == nil {
		return "", nil, true, nil
	}
	sid, _, err := sd.Owner()
	if err != nil {
		return failed(err)
	}
	if sid != nil {
		owner = sid.String()
	}
	acl, _, err := sd.DACL()
	if errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) || err == nil && acl == nil {
		return owner, nil, true, nil
	}
	if err != nil {
		return failed(err)
	}
	if list, err = entriesIn(acl); err != nil {
		return failed(err)
	}
	return owner, list, false, nil
}

func entriesIn(acl *windows.ACL) (list []entry, err error) {
	for i := range uint32(acl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, i, &ace); err != nil {
			return nil, err
		}
		if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE && ace.Header.AceType != windows.ACCESS_DENIED_ACE_TYPE {
			continue // conditions, and objects of a directory service; files have none by default
		}
		list = append(list, entry{
			SID:         (*windows.SID)(unsafe.Pointer(&ace.SidStart)).String(),
			Mask:        uint32(ace.Mask),
			Deny:        ace.Header.AceType == windows.ACCESS_DENIED_ACE_TYPE,
			Inherit:     ace.Header.AceFlags&(windows.OBJECT_INHERIT_ACE|windows.CONTAINER_INHERIT_ACE) != 0,
			InheritOnly: ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0,
		})
	}
	return list, nil
}

// attributes are for making something with an access list that inherits
// nothing, and which belongs to the administrators if one of them makes it.
func attributes(list []entry) (*windows.SecurityAttributes, error) {
	acl, err := accessList(list)
	if err != nil {
		return nil, err
	}
	sd, err := windows.NewSecurityDescriptor()
	if err != nil {
		return nil, err
	}
	if err := sd.SetDACL(acl, true, false); err != nil {
		return nil, err
	}
	if administers() {
		owner, err := windows.StringToSid(sidAdministrators)
		if err != nil {
			return nil, err
		}
		if err := sd.SetOwner(owner, false); err != nil {
			return nil, err
		}
	}
	if err := sd.SetControl(windows.SE_DACL_PROTECTED, windows.SE_DACL_PROTECTED); err != nil {
		return nil, err
	}
	return &windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: sd}, nil
}

func accessList(list []entry) (*windows.ACL, error) {
	explicit := make([]windows.EXPLICIT_ACCESS, 0, len(list))
	sids := make([]*windows.SID, 0, len(list)) // explicit holds them as numbers, which keep nothing alive
	for _, e := range list {
		sid, err := windows.StringToSid(e.SID)
		if err != nil {
			return nil, fmt.Errorf("identifier %s: %w", e.SID, err)
		}
		sids = append(sids, sid)
		inherit := uint32(windows.NO_INHERITANCE)
		if e.Inherit {
			inherit = windows.SUB_CONTAINERS_AND_OBJECTS_INHERIT
		}
		explicit = append(explicit, windows.EXPLICIT_ACCESS{
			AccessPermissions: windows.ACCESS_MASK(e.Mask),
			AccessMode:        windows.GRANT_ACCESS,
			Inheritance:       inherit,
			Trustee: windows.TRUSTEE{
				TrusteeForm:  windows.TRUSTEE_IS_SID,
				TrusteeType:  windows.TRUSTEE_IS_UNKNOWN,
				TrusteeValue: windows.TrusteeValueFromSID(sid),
			},
		})
	}
	acl, err := windows.ACLFromEntries(explicit, nil)
	runtime.KeepAlive(sids)
	if err != nil {
		return nil, fmt.Errorf("making an access list: %w", err)
	}
	return acl, nil
}

func looseAccess(name string) (string, bool) {
	owner, list, open, err := entriesOf(name)
	switch {
	case err != nil:
		return "", false
	case open:
		return "no access list, which lets everybody in", true
	}
	sids := strangers(withOwner(owner, list))
	if len(sids) == 0 {
		return "", false
	}
	for i, s := range sids {
		sids[i] = nameOf(s)
	}
	return "access for " + strings.Join(sids, ", "), true
}

// nameOf is what Windows calls an identifier, or the identifier.
func nameOf(s string) string {
	sid, err := windows.StringToSid(s)
	if err != nil {
		return s
	}
	account, domain, _, err := sid.LookupAccount("")
	switch {
	case err != nil:
		return s
	case domain == "":
		return account
	}
	return domain + `\` + account
}
