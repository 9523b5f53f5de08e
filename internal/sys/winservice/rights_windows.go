package winservice

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// Rights to the policy of the machine (ntsecapi.h).
const (
	policyCreateAccount = 0x10
	policyLookupNames   = 0x800
)

// objectAttributes is LSA_OBJECT_ATTRIBUTES, all of it reserved.
type objectAttributes struct {
	length                            uint32
	root, name                        uintptr
	attributes                        uint32
	securityDescriptor, securityOfQOS uintptr
}

// policy is the machine's, open. Its methods are the functions of advapi32.dll
// for the rights of accounts.
type policy struct {
	handle windows.Handle
	dll    *windows.LazyDLL
}

func openPolicy() (*policy, error) {
	p := &policy{dll: windows.NewLazySystemDLL("advapi32.dll")}
	attributes := objectAttributes{length: uint32(unsafe.Sizeof(objectAttributes{}))}
	err := p.call("LsaOpenPolicy", 0, uintptr(unsafe.Pointer(&attributes)), policyCreateAccount|policyLookupNames, uintptr(unsafe.Pointer(&p.handle)))
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *policy) close() { _ = p.call("LsaClose", uintptr(p.handle)) }

func (p *policy) call(name string, args ...uintptr) error {
	proc, inWords := p.dll.NewProc(name), p.dll.NewProc("LsaNtStatusToWinError")
	for _, f := range []*windows.LazyProc{proc, inWords} {
		if err := f.Find(); err != nil {
			return err
		}
	}
	if status, _, _ := proc.Call(args...); status != 0 {
		code, _, _ := inWords.Call(status)
		return fmt.Errorf("%s: %w", name, windows.Errno(code))
	}
	return nil
}

// holds says whether an account has a right of its own.
func (p *policy) holds(sid *windows.SID, right string) (bool, error) {
	var rights *windows.NTUnicodeString
	var n uint32
	err := p.call("LsaEnumerateAccountRights", uintptr(p.handle), uintptr(unsafe.Pointer(sid)), uintptr(unsafe.Pointer(&rights)), uintptr(unsafe.Pointer(&n)))
	runtime.KeepAlive(sid)
	if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) { // it has none at all
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = p.call("LsaFreeMemory", uintptr(unsafe.Pointer(rights))) }()
	return slices.ContainsFunc(unsafe.Slice(rights, n), func(s windows.NTUnicodeString) bool { return s.String() == right }), nil
}

// grantLogon gives an account the right to log on as a service, which the
// list of services would do and the service manager does not. The identifier
// is that of an account which did not have it before; "" if it had.
func grantLogon(a Account) (granted string, err error) {
	machine, err := windows.ComputerName()
	if err != nil {
		return "", err
	}
	sid, _, _, err := windows.LookupSID("", a.lookupName(machine))
	if err != nil {
		return "", fmt.Errorf("account: found %q, which Windows does not know: %w", a.Start, err)
	}
	p, err := openPolicy()
	if err != nil {
		return "", err
	}
	defer p.close()
	if had, err := p.holds(sid, LogonRight); err != nil || had {
		return "", err
	}
	right, err := windows.NewNTUnicodeString(LogonRight)
	if err != nil {
		return "", err
	}
	err = p.call("LsaAddAccountRights", uintptr(p.handle), uintptr(unsafe.Pointer(sid)), uintptr(unsafe.Pointer(right)), 1)
	runtime.KeepAlive(sid)
	if err != nil {
		return "", err
	}
	return sid.String(), nil
}

// takeLogon takes that right from an account again.
func takeLogon(account string) error {
	sid, err := windows.StringToSid(account)
	if err != nil {
		return err
	}
	p, err := openPolicy()
	if err != nil {
		return err
	}
	defer p.close()
	right, err := windows.NewNTUnicodeString(LogonRight)
	if err != nil {
		return err
	}
	err = p.call("LsaRemoveAccountRights", uintptr(p.handle), uintptr(unsafe.Pointer(sid)), 0, uintptr(unsafe.Pointer(right)), 1)
	runtime.KeepAlive(sid)
	if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) { // somebody else did
		return nil
	}
	return err
}

// grantedValue lists, beside a service, the accounts that got the right to log
// on for it and did not have it before. It goes with the service.
const grantedValue = "GrantedLogonRight"

func parametersKey(service string) string {
	return `SYSTEM\CurrentControlSet\Services\` + service + `\Parameters`
}

// noteGranted adds an account to that list.
func noteGranted(service, account string) error {
	list := granted(service)
	if slices.Contains(list, account) {
		return nil
	}
	key, _, err := registry.CreateKey(registry.LOCAL_MACHINE, parametersKey(service), registry.SET_VALUE)
	if err != nil {
		return err
	}
	defer key.Close()
	return key.SetStringsValue(grantedValue, append(list, account))
}

// granted is that list.
func granted(service string) []string {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, parametersKey(service), registry.QUERY_VALUE)
	if err != nil {
		return nil
	}
	defer key.Close()
	list, _, err := key.GetStringsValue(grantedValue)
	if err != nil {
		return nil
	}
	return list
}
