package arm

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/fleet"
)

// The vendor's clients check these before they ask; here the server does, so
// that scripts are told, too (facts, connected-cache 3.4 and 4.4).
const (
	maxDrivesLinux   = 9
	maxDrivesWindows = 1
	maxDriveGB       = 10_000
	smallDriveGB     = 50 // below this the vendor refuses, and we warn

	maxTags     = 50
	maxTagKey   = 512
	maxTagValue = 256
)

// mistakes are all that is wrong with a body.
type mistakes []route.Detail

func (m *mistakes) add(target, format string, args ...any) {
	*m = append(*m, route.Detail{Code: "InvalidParameter", Target: target, Message: target + ": " + fmt.Sprintf(format, args...)})
}

func (m mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	e := &route.Error{Status: http.StatusBadRequest, Code: m[0].Code, Target: m[0].Target, Message: m[0].Message}
	if len(m) > 1 {
		e.Message += fmt.Sprintf(" (and %d more, in details)", len(m)-1)
		e.Details = m
	}
	return e
}

func checkTags(tags map[string]string, m *mistakes) {
	if len(tags) > maxTags {
		m.add("tags", "found %d, expected %d at most", len(tags), maxTags)
	}
	for k, v := range tags {
		if k == "" || len(k) > maxTagKey || strings.ContainsAny(k, `<>%&\?/`) {
			m.add("tags", "found the key %q, expected 1 to %d characters without < > %% & \\ ? /", k, maxTagKey)
		}
		if len(v) > maxTagValue {
			m.add("tags."+k, "found %d characters, expected %d at most", len(v), maxTagValue)
		}
	}
}

// ringWords are the rings in the words of versions before 2026-06-01, which are
// those that are kept, and in the words since.
var ringWords = map[string]string{"fast": "Fast", "beta": "Fast", "slow": "Slow", "stable": "Slow", "preview": "Preview"}

var clockForm = regexp.MustCompile(`^([01]?[0-9]|2[0-3]):[0-5][0-9]$`)

// applyNode checks what a client of a version wants of a node and puts it into n:
// its properties as they are kept, and the parts of its Spec that ARM has words
// for. The others stay, and so does what the version has no field for: whoever
// sends back what it got changes nothing. warnings are for the client to read.
func applyNode(n *roster.Node, p *NodeProperties, before *stored, version string) (_ *stored, warnings []string, err error) {
	var m mistakes
	s := &stored{}
	if p == nil {
		p = &NodeProperties{}
	}
	c, a := p.CacheNode, p.Additional
	if c == nil {
		c = &CacheNodeEntity{}
	}
	if a == nil {
		a = &AdditionalNode{}
	}
	s.node, s.additional = writableNode(c), writableAdditional(a)
	if before == nil {
		before = &stored{new(CacheNodeEntity), new(AdditionalNode)}
	}
	if old := before.node; version < renamed {
		s.node.OpenFirewallPort80, s.node.OpenFirewallPort443, s.node.OpenFirewallPort5000, s.node.OpenFirewallPort5001 = old.OpenFirewallPort80, old.OpenFirewallPort443, old.OpenFirewallPort5000, old.OpenFirewallPort5001
		s.node.RuntimeAccountType = old.RuntimeAccountType
	}

	os := a.OSType
	switch strings.ToLower(os) {
	case "linux":
		s.additional.OSType = "Linux"
	case "windows":
		s.additional.OSType = "Windows"
	case "":
		s.additional.OSType = before.additional.OSType
	case "eflow":
		m.add("properties.additionalCacheNodeProperties.osType", "found Eflow, which is no longer supported; expected Linux or Windows")
	default:
		m.add("properties.additionalCacheNodeProperties.osType", "found %q, expected Linux or Windows", os)
	}
	if before.additional.OSType != "" && s.additional.OSType != "" && before.additional.OSType != s.additional.OSType && len(m) == 0 {
		m.add("properties.additionalCacheNodeProperties.osType", "found %s, expected %s: it cannot change; make another node", s.additional.OSType, before.additional.OSType)
	}
	drives, dw := checkDrives(s.additional, &m)
	warnings = append(warnings, dw...)
	proxy := checkProxy(s.additional, &m)
	update := checkRing(s.node, &m)
	if e := c.MaxAllowableEgressInMbps; e != nil && *e < 0 {
		m.add("properties.cacheNode.maxAllowableEgressInMbps", "found %d, expected 0 for no limit, or more", *e)
	} else if e != nil && *e > 0 {
		warnings = append(warnings, "maxAllowableEgressInMbps is kept and not acted upon: what a node sends its clients is not limited, only what it fetches (limit, under /api/larder/v1)")
	}
	if v := c.FullyQualifiedDomainName; v != "" {
		if !hostForm.MatchString(v) {
			m.add("properties.cacheNode.fullyQualifiedDomainName", "found %q, expected a host name", v)
		}
	}
	if v := c.IPAddress; v != "" {
		if _, err := netip.ParseAddr(v); err != nil {
			m.add("properties.cacheNode.ipAddress", "found %q, expected an IP address", v)
		}
	}
	if a.CreationMethod != nil && (*a.CreationMethod < 0 || *a.CreationMethod > 100) {
		m.add("properties.additionalCacheNodeProperties.creationMethod", "found %d, expected 0 for the portal or 1 for the command line", *a.CreationMethod)
	}
	if err := m.err(); err != nil {
		return nil, nil, err
	}
	n.Spec.Drives, n.Configured = drives, len(drives) > 0
	if proxy != nil && n.Spec.Proxy != nil {
		proxy.CA = n.Spec.Proxy.CA // ARM has no word for it
	}
	n.Spec.Proxy, n.Spec.Update = proxy, update
	// These can be set under /api/larder/v1, too, so that only what is new counts.
	if old, names := namesOf(before.node), namesOf(s.node); !slices.Equal(old, names) {
		others := slices.DeleteFunc(slices.Clone(n.Spec.ClientNames), func(n string) bool { return slices.Contains(old, n) || slices.Contains(names, n) })
		n.Spec.ClientNames = append(names, others...)
	}
	if c.IsEnabled != nil {
		n.Spec.Drain = !*c.IsEnabled
	}
	return s, warnings, nil
}

// namesOf are the names that clients reach a node by, as far as ARM has fields
// for them.
func namesOf(c *CacheNodeEntity) (names []string) {
	if v := c.FullyQualifiedDomainName; v != "" {
		names = append(names, strings.ToLower(v))
	}
	if v := c.IPAddress; v != "" {
		names = append(names, v)
	}
	return names
}

var hostForm = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// checkDrives reads the drives. Numbers that are missing are given out.
func checkDrives(a *AdditionalNode, m *mistakes) (drives []fleet.Drive, warnings []string) {
	const field = "properties.additionalCacheNodeProperties.driveConfiguration"
	most := maxDrivesLinux
	if a.OSType == "Windows" {
		most = maxDrivesWindows
	}
	if n := len(a.DriveConfiguration); n > most {
		m.add(field, "found %d drives, expected %d at most on %s", n, most, cmp.Or(a.OSType, "Linux"))
		return nil, nil
	}
	taken, paths := map[int]bool{}, map[string]int{}
	for i := range a.DriveConfiguration {
		d := &a.DriveConfiguration[i]
		at := fmt.Sprintf("%s[%d]", field, i)
		if d.SizeInGb == nil || *d.SizeInGb <= 0 || *d.SizeInGb > maxDriveGB {
			m.add(at+".sizeInGb", "found %s, expected 1 to %d", number(d.SizeInGb), maxDriveGB)
		} else if *d.SizeInGb < smallDriveGB {
			warnings = append(warnings, fmt.Sprintf("drive %s has %d GB: below %d GB it will evict what clients ask for again", d.PhysicalPath, *d.SizeInGb, smallDriveGB))
		}
		if !absolutePath(d.PhysicalPath) {
			m.add(at+".physicalPath", "found %q, expected an absolute path such as /srv/cache or D:\\cache, without %s", d.PhysicalPath, notInPaths)
		} else {
			clean := cleanPath(d.PhysicalPath)
			for other, k := range paths {
				if other == clean || strings.HasPrefix(clean, other+"/") || strings.HasPrefix(other, clean+"/") {
					m.add(at+".physicalPath", "found %q, which is or lies in or around that of drive %d; expected drives side by side", d.PhysicalPath, k+1)
				}
			}
			paths[clean] = i
		}
		if d.CacheNumber != nil {
			if *d.CacheNumber < 1 || *d.CacheNumber > 20 || taken[*d.CacheNumber] {
				m.add(at+".cacheNumber", "found %d, expected a number from 1 to 20 that no other drive has", *d.CacheNumber)
			}
			taken[*d.CacheNumber] = true
		}
		if d.SizeInGb != nil {
			drives = append(drives, fleet.Drive{Path: d.PhysicalPath, Size: int64(*d.SizeInGb) * 1e9})
		}
	}
	for i, next := range a.DriveConfiguration {
		if next.CacheNumber == nil {
			k := 1
			for taken[k] {
				k++
			}
			taken[k] = true
			a.DriveConfiguration[i].CacheNumber = &k
		}
		if next.NginxMapping == "" {
			a.DriveConfiguration[i].NginxMapping = fmt.Sprintf("/nginx/cache%d/", *a.DriveConfiguration[i].CacheNumber)
		}
	}
	return drives, warnings
}

func number(n *int) string {
	if n == nil {
		return "nothing"
	}
	return strconv.Itoa(*n)
}

var windowsPath = regexp.MustCompile(`^[A-Za-z]:[\\/]`)

// notInPaths separates paths in commands, or means something to a shell.
const notInPaths = `, " ' $ % ! & | ; < > * ? and backquotes`

func absolutePath(p string) bool {
	return len(p) <= 1024 && !strings.ContainsAny(p, ",\"'$%!&|;<>*?`") && !strings.ContainsFunc(p, unicode.IsControl) &&
		(strings.HasPrefix(p, "/") && p != "/" || windowsPath.MatchString(p))
}

// cleanPath makes paths comparable.
func cleanPath(p string) string {
	if windowsPath.MatchString(p) {
		p = strings.ToLower(strings.ReplaceAll(p, `\`, "/"))
	}
	return path.Clean(p)
}

// checkProxy reads the proxy; nil if there is none.
func checkProxy(a *AdditionalNode, m *mistakes) *fleet.Proxy {
	const field = "properties.additionalCacheNodeProperties."
	text := ""
	if a.ProxyURLConfiguration != nil {
		text = strings.TrimSpace(a.ProxyURLConfiguration.ProxyURL)
	}
	switch strings.ToLower(a.IsProxyRequired) {
	case "", "none":
		if a.IsProxyRequired != "" {
			a.IsProxyRequired = "None"
		}
		if text == "" {
			return nil
		}
		if a.IsProxyRequired == "None" {
			m.add(field+"isProxyRequired", "found None with a proxyUrl, expected Required, or no proxyUrl")
			return nil
		}
		a.IsProxyRequired = "Required"
	case "required":
		a.IsProxyRequired = "Required"
		if text == "" {
			m.add(field+"proxyUrlConfiguration.proxyUrl", "found nothing, expected host:port, as isProxyRequired is Required")
			return nil
		}
	default:
		m.add(field+"isProxyRequired", "found %q, expected None or Required", a.IsProxyRequired)
		return nil
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "http://"), "/")
	host, port, err := net.SplitHostPort(bare)
	n, perr := strconv.Atoi(port)
	if _, aerr := netip.ParseAddr(host); err != nil || perr != nil || n < 1 || n > 65535 || !hostForm.MatchString(host) && aerr != nil {
		m.add(field+"proxyUrlConfiguration.proxyUrl", "expected host:port such as proxy.example:3128, without a user name") // what was found may hold a password
		return nil
	}
	return &fleet.Proxy{URL: "http://" + bare}
}

// checkRing reads the update ring; nil if nothing was said.
func checkRing(c *CacheNodeEntity, m *mistakes) *fleet.Update {
	const field = "properties.cacheNode."
	week, day, clock := value(c.AutoUpdateRequestedWeek), value(c.AutoUpdateRequestedDay), c.AutoUpdateRequestedTime
	if week < 0 || week > 5 {
		m.add(field+"autoUpdateRequestedWeek", "found %d, expected 1 to 5", week)
	}
	if day < 0 || day > 7 {
		m.add(field+"autoUpdateRequestedDay", "found %d, expected 1 to 7", day)
	}
	if clock != "" && !clockForm.MatchString(clock) {
		m.add(field+"autoUpdateRequestedTime", "found %q, expected hh:mm, in UTC", clock)
	}
	if c.AutoUpdateRingType == "" {
		if week != 0 || day != 0 || clock != "" {
			m.add(field+"autoUpdateRingType", "found nothing, expected Stable, as there is a week, day or time")
		}
		return nil
	}
	ring, ok := ringWords[strings.ToLower(c.AutoUpdateRingType)]
	if !ok {
		m.add(field+"autoUpdateRingType", "found %q, expected Stable or Beta (before 2026-06-01: Slow or Fast)", c.AutoUpdateRingType)
		return nil
	}
	c.AutoUpdateRingType = ring
	if ring == "Slow" {
		if week == 0 {
			m.add(field+"autoUpdateRequestedWeek", "found nothing, expected 1 to 5, as the ring is Stable")
		}
		if day == 0 {
			m.add(field+"autoUpdateRequestedDay", "found nothing, expected 1 to 7, as the ring is Stable")
		}
		if clock == "" {
			m.add(field+"autoUpdateRequestedTime", "found nothing, expected hh:mm, in UTC, as the ring is Stable")
		}
		return &fleet.Update{Ring: "Stable", Week: week, Day: day, Time: clock}
	}
	if week != 0 || day != 0 || clock != "" {
		m.add(field+"autoUpdateRingType", "found %s with a week, day or time; expected none of these, or the ring Stable", c.AutoUpdateRingType)
	}
	return &fleet.Update{Ring: "Beta"}
}

func value(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// stored is what is kept of a node's properties: what clients may write.
type stored struct {
	node       *CacheNodeEntity
	additional *AdditionalNode
}

// writableNode is c without what only the server says.
func writableNode(c *CacheNodeEntity) *CacheNodeEntity {
	return &CacheNodeEntity{
		CacheNodeName: c.CacheNodeName, CustomerName: c.CustomerName, CustomerIndex: c.CustomerIndex,
		FullyQualifiedDomainName: c.FullyQualifiedDomainName, IPAddress: c.IPAddress, IsEnterpriseManaged: c.IsEnterpriseManaged,
		MaxAllowableEgressInMbps: c.MaxAllowableEgressInMbps, AutoUpdateRingType: c.AutoUpdateRingType, AutoUpdateRequestedWeek: c.AutoUpdateRequestedWeek,
		AutoUpdateRequestedDay: c.AutoUpdateRequestedDay, AutoUpdateRequestedTime: c.AutoUpdateRequestedTime, ShouldMigrate: c.ShouldMigrate,
		OpenFirewallPort80: c.OpenFirewallPort80, OpenFirewallPort443: c.OpenFirewallPort443, OpenFirewallPort5000: c.OpenFirewallPort5000, OpenFirewallPort5001: c.OpenFirewallPort5001,
		RuntimeAccountType: c.RuntimeAccountType,
	}
}

func writableAdditional(a *AdditionalNode) *AdditionalNode {
	out := &AdditionalNode{
		OSType: a.OSType, IsProxyRequired: a.IsProxyRequired, CreationMethod: a.CreationMethod, AutoUpdateVersion: a.AutoUpdateVersion,
		UpdateInfoDetails: a.UpdateInfoDetails, UpdateRequested: a.UpdateRequested, DetailsIssuesList: a.DetailsIssuesList, Optional: a.Optional,
		DriveConfiguration: append([]DriveConfiguration(nil), a.DriveConfiguration...),
	}
	if a.ProxyURLConfiguration != nil {
		p := *a.ProxyURLConfiguration
		out.ProxyURLConfiguration = &p
	}
	return out
}
