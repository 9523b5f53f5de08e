package sysinfo

import (
	"fmt"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

func read(i *Info) {
	v := windows.RtlGetVersion() // not subject to what the manifest claims
	i.Build = fmt.Sprintf("%d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber)
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Windows NT\CurrentVersion`, registry.QUERY_VALUE)
	if err != nil {
		return
	}
	defer k.Close()
	i.Edition, _, _ = k.GetStringValue("ProductName")
	i.Release, _, _ = k.GetStringValue("DisplayVersion")
	if n, _, err := k.GetIntegerValue("UBR"); err == nil {
		i.Build = fmt.Sprintf("%s.%d", i.Build, n)
	}
}
