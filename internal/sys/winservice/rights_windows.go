package winservice

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"
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

// grantLogon gives an account the right to log on as a service, which the
// list of services would do and the service manager does not.
func grantLogon(a Account) error {
	machine, err := windows.ComputerName()
	if err != nil {
		return err
	}
	sid, _, _, err := windows.LookupSID("", a.lookupName(machine))
	if err != nil {
		return fmt.Errorf("account: found %q, which Windows does not know: %w", a.Start, err)
	}
	dll := windows.NewLazySystemDLL("advapi32.dll")
	open, add, closing, inWords := dll.NewProc("LsaOpenPolicy"), dll.NewProc("LsaAddAccountRights"), dll.NewProc("LsaClose"), dll.NewProc("LsaNtStatusToWinError")
	for _, p := range []*windows.LazyProc{open, add, closing, inWords} {
		if err := p.Find(); err != nil {
			return err
		}
	}
	failed := func(what string, status uintptr) error {
		code, _, _ := inWords.Call(status)
		return fmt.Errorf("%s: %w", what, windows.Errno(code))
	}
	attributes := objectAttributes{length: uint32(unsafe.Sizeof(objectAttributes{}))}
	var policy windows.Handle
	if status, _, _ := open.Call(0, uintptr(unsafe.Pointer(&attributes)), policyCreateAccount|policyLookupNames, uintptr(unsafe.Pointer(&policy))); status != 0 {
		return failed("LsaOpenPolicy", status)
	}
	defer closing.Call(uintptr(policy))
	right, err := windows.NewNTUnicodeString(LogonRight)
	if err != nil {
		return err
	}
	status, _, _ := add.Call(uintptr(policy), uintptr(unsafe.Pointer(sid)), uintptr(unsafe.Pointer(right)), 1)
	runtime.KeepAlive(sid)
	if status != 0 {
		return failed("LsaAddAccountRights", status)
	}
	return nil
}
