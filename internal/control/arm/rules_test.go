package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"larder/internal/control/roster"
	"larder/internal/control/route"
)

func apply(t testing.TB, n *roster.Node, body string, before *stored) (*stored, []string, error) {
	t.Helper()
	var p NodeProperties
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	return applyNode(n, &p, before, renamed)
}

// Each rule of the vendor's clients is a rule of ours, and names its field.
func TestRulesNameTheirField(t *testing.T) {
	t.Parallel()
	drive := func(path string, size int) string {
		return fmt.Sprintf(`{"physicalPath":%q,"sizeInGb":%d}`, path, size)
	}
	drives := func(os string, ds ...string) string {
		return fmt.Sprintf(`{"additionalCacheNodeProperties":{"osType":%q,"driveConfiguration":[%s]}}`, os, strings.Join(ds, ","))
	}
	var ten []string
	for i := range 10 {
		ten = append(ten, drive(fmt.Sprintf("/srv/%d", i), 100))
	}
	const a, c = "properties.additionalCacheNodeProperties.", "properties.cacheNode."
	for _, tt := range []struct{ name, body, target string }{
		{"ten drives on Linux", drives("Linux", ten...), a + "driveConfiguration"},
		{"two drives on Windows", drives("Windows", drive(`D:\a`, 100), drive(`E:\a`, 100)), a + "driveConfiguration"},
		{"size 0", drives("Linux", drive("/srv/a", 0)), a + "driveConfiguration[0].sizeInGb"},
		{"size below 0", drives("Linux", drive("/srv/a", -5)), a + "driveConfiguration[0].sizeInGb"},
		{"too large", drives("Linux", drive("/srv/a", 10001)), a + "driveConfiguration[0].sizeInGb"},
		{"no size", drives("Linux", `{"physicalPath":"/srv/a"}`), a + "driveConfiguration[0].sizeInGb"},
		{"relative path", drives("Linux", drive("srv/a", 100)), a + "driveConfiguration[0].physicalPath"},
		{"the root", drives("Linux", drive("/", 100)), a + "driveConfiguration[0].physicalPath"},
		{"a command in a path", drives("Linux", drive("/srv/$(id)", 100)), a + "driveConfiguration[0].physicalPath"},
		{"another one", drives("Linux", drive("/srv/`id`", 100)), a + "driveConfiguration[0].physicalPath"},
		{"a comma in a path", drives("Linux", drive("/srv/a,100,/srv/b", 100)), a + "driveConfiguration[0].physicalPath"},
		{"a line's end in a path", drives("Linux", drive("/srv/a\nb", 100)), a + "driveConfiguration[0].physicalPath"},
		{"an escape in a path", drives("Linux", `{"physicalPath":"/srv/\u001b[2J","sizeInGb":100}`), a + "driveConfiguration[0].physicalPath"},
		{"the same path", drives("Linux", drive("/srv/a", 100), drive("/srv/a/", 100)), a + "driveConfiguration[1].physicalPath"},
		{"nested", drives("Linux", drive("/srv/a/b", 100), drive("/srv/a", 100)), a + "driveConfiguration[1].physicalPath"},
		{"the same number", drives("Linux", `{"physicalPath":"/a","sizeInGb":100,"cacheNumber":1}`, `{"physicalPath":"/b","sizeInGb":100,"cacheNumber":1}`), a + "driveConfiguration[1].cacheNumber"},
		{"number 21", drives("Linux", `{"physicalPath":"/a","sizeInGb":100,"cacheNumber":21}`), a + "driveConfiguration[0].cacheNumber"},
		{"Eflow", drives("Eflow"), a + "osType"},
		{"another system", drives("BSD"), a + "osType"},
		{"a proxy that is none", `{"additionalCacheNodeProperties":{"isProxyRequired":"Required"}}`, a + "proxyUrlConfiguration.proxyUrl"},
		{"a proxy without a port", `{"additionalCacheNodeProperties":{"isProxyRequired":"Required","proxyUrlConfiguration":{"proxyUrl":"proxy"}}}`, a + "proxyUrlConfiguration.proxyUrl"},
		{"a colon in the host", `{"additionalCacheNodeProperties":{"isProxyRequired":"Required","proxyUrlConfiguration":{"proxyUrl":"pro:xy:80"}}}`, a + "proxyUrlConfiguration.proxyUrl"},
		{"a proxy with a password", `{"additionalCacheNodeProperties":{"isProxyRequired":"Required","proxyUrlConfiguration":{"proxyUrl":"u:hunter2@proxy:80"}}}`, a + "proxyUrlConfiguration.proxyUrl"},
		{"a proxy not wanted", `{"additionalCacheNodeProperties":{"isProxyRequired":"None","proxyUrlConfiguration":{"proxyUrl":"proxy:80"}}}`, a + "isProxyRequired"},
		{"perhaps a proxy", `{"additionalCacheNodeProperties":{"isProxyRequired":"Maybe"}}`, a + "isProxyRequired"},
		{"Stable without a week", `{"cacheNode":{"autoUpdateRingType":"Stable","autoUpdateRequestedDay":1,"autoUpdateRequestedTime":"03:00"}}`, c + "autoUpdateRequestedWeek"},
		{"Slow without a day", `{"cacheNode":{"autoUpdateRingType":"slow","autoUpdateRequestedWeek":2,"autoUpdateRequestedTime":"03:00"}}`, c + "autoUpdateRequestedDay"},
		{"Stable without a time", `{"cacheNode":{"autoUpdateRingType":"Stable","autoUpdateRequestedDay":1,"autoUpdateRequestedWeek":2}}`, c + "autoUpdateRequestedTime"},
		{"Beta with a day", `{"cacheNode":{"autoUpdateRingType":"Beta","autoUpdateRequestedDay":1}}`, c + "autoUpdateRingType"},
		{"another ring", `{"cacheNode":{"autoUpdateRingType":"Gold"}}`, c + "autoUpdateRingType"},
		{"a day without a ring", `{"cacheNode":{"autoUpdateRequestedDay":1}}`, c + "autoUpdateRingType"},
		{"day 8", `{"cacheNode":{"autoUpdateRingType":"Stable","autoUpdateRequestedDay":8,"autoUpdateRequestedWeek":2,"autoUpdateRequestedTime":"03:00"}}`, c + "autoUpdateRequestedDay"},
		{"a time that is none", `{"cacheNode":{"autoUpdateRingType":"Stable","autoUpdateRequestedDay":1,"autoUpdateRequestedWeek":2,"autoUpdateRequestedTime":"24:00"}}`, c + "autoUpdateRequestedTime"},
		{"a name that is none", `{"cacheNode":{"fullyQualifiedDomainName":"https://x"}}`, c + "fullyQualifiedDomainName"},
		{"an address that is none", `{"cacheNode":{"ipAddress":"10.0.0"}}`, c + "ipAddress"},
		{"egress below 0", `{"cacheNode":{"maxAllowableEgressInMbps":-1}}`, c + "maxAllowableEgressInMbps"},
	} {
		_, _, err := apply(t, &roster.Node{}, tt.body, nil)
		var e *route.Error
		if !errors.As(err, &e) || e.Status != 400 || e.Target != tt.target || !strings.HasPrefix(e.Message, tt.target+": ") || strings.Contains(e.Message, "hunter2") {
			t.Errorf("%s: got %v, want a 400 about %s", tt.name, err, tt.target)
		}
	}
}

func TestWhatIsTaken(t *testing.T) {
	t.Parallel()
	n := &roster.Node{}
	st, warnings, err := apply(t, n, `{"cacheNode":{"autoUpdateRingType":"Stable","autoUpdateRequestedDay":2,"autoUpdateRequestedWeek":3,"autoUpdateRequestedTime":"3:05","ipAddress":"10.0.0.1","isEnabled":false,"cacheNodeId":"mine","xCid":"7"},
		"additionalCacheNodeProperties":{"osType":"linux","driveConfiguration":[{"physicalPath":"/srv/a","sizeInGb":20,"cacheNumber":2},{"physicalPath":"/srv/b","sizeInGb":100}],
		"proxyUrlConfiguration":{"proxyUrl":"proxy.example:3128"},"cacheNodeState":4,"issuesList":["x"]},"unknown":{"a":1}}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := n.Spec
	if len(s.Drives) != 2 || s.Drives[0].Size != 20e9 || s.Proxy.URL != "http://proxy.example:3128" || s.Update.Ring != "Stable" || s.Update.Week != 3 || !s.Drain || s.ClientNames[0] != "10.0.0.1" || !n.Configured {
		t.Errorf("got %+v", s)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "/srv/a") {
		t.Errorf("warnings: %q, want one about the small drive", warnings)
	}
	if *st.additional.DriveConfiguration[1].CacheNumber != 1 || st.additional.OSType != "Linux" || st.node.AutoUpdateRingType != "Slow" || st.node.CacheNodeID != "" || st.node.XCid != "" || st.additional.CacheNodeState != nil {
		t.Errorf("kept: %+v %+v", st.node, st.additional)
	}
	if _, _, err := apply(t, n, `{"additionalCacheNodeProperties":{"osType":"Windows"}}`, st); err == nil || !strings.Contains(err.Error(), "cannot change") {
		t.Errorf("another system: got %v", err)
	}
}

// A name that ARM's fields gave goes with them; those that were given elsewhere
// stay.
func TestNamesOfARMComeAndGo(t *testing.T) {
	t.Parallel()
	n := &roster.Node{}
	var st *stored
	for _, step := range []struct {
		body, elsewhere, want string
	}{
		{`{"cacheNode":{"fullyQualifiedDomainName":"A.example","ipAddress":"10.0.0.1"}}`, "", "a.example 10.0.0.1"},
		{`{"cacheNode":{"fullyQualifiedDomainName":"a.example","ipAddress":"10.0.0.1"}}`, "b.example", "b.example"},
		{`{"cacheNode":{"fullyQualifiedDomainName":"c.example","ipAddress":"10.0.0.1"}}`, "", "c.example 10.0.0.1 b.example"},
		{`{"cacheNode":{"ipAddress":"10.0.0.1"}}`, "", "10.0.0.1 b.example"},
		{`{}`, "", "b.example"},
	} {
		if step.elsewhere != "" {
			n.Spec.ClientNames = strings.Fields(step.elsewhere)
		}
		var err error
		if st, _, err = apply(t, n, step.body, st); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(n.Spec.ClientNames, " "); got != step.want {
			t.Errorf("after %s: %q, want %q", step.body, got, step.want)
		}
	}
}

func FuzzNodeBody(f *testing.F) {
	f.Add([]byte(`{"cacheNode":{"autoUpdateRingType":"Fast"},"additionalCacheNodeProperties":{"driveConfiguration":[{"physicalPath":"/a","sizeInGb":1}],"isProxyRequired":"Required","proxyUrlConfiguration":{"proxyUrl":"a:1"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var p NodeProperties
		if json.Unmarshal(body, &p) != nil {
			return
		}
		n := &roster.Node{}
		st, _, err := applyNode(n, &p, nil, renamed)
		if err != nil {
			return
		}
		// What was taken is taken again when it is sent back.
		again := &roster.Node{Spec: n.Spec}
		if _, _, err := applyNode(again, &NodeProperties{CacheNode: st.node, Additional: st.additional}, st, renamed); err != nil {
			t.Errorf("%s: what was kept is refused: %v", body, err)
		}
		if !reflect.DeepEqual(again.Spec, n.Spec) {
			t.Errorf("%s: what was kept changes %+v to %+v", body, n.Spec, again.Spec)
		}
	})
}

// What is kept of an organisation is kept again when it is sent back, and tags
// and locations of groups are named when they are wrong.
func FuzzCustomerBody(f *testing.F) {
	f.Add([]byte(`{"location":"westeurope","tags":{"a":"b"},"properties":{"customer":{"customerName":"North","contactEmail":"a@b","isEntitled":true},"additionalCustomerProperties":{"optionalProperty1":"x","customerEntitlementExpiration":"2026-01-01T00:00:00Z"}}}`))
	f.Add([]byte(`{"location":"","tags":{"<":"b"},"properties":{"customer":{"contactEmail":"x"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var c CustomerResource
		if json.Unmarshal(body, &c) != nil {
			return
		}
		var m mistakes
		checkTags(c.Tags, &m)
		checkLocation(c.Location, true, func() string { return "" }, &m)
		st := readCustomer(c.Properties, &m)
		for _, d := range m {
			if d.Target == "" || !strings.HasPrefix(d.Message, d.Target+": ") {
				t.Errorf("%+v does not name its field", d)
			}
		}
		kept, err := json.Marshal(st)
		if err != nil {
			t.Fatalf("%s: not kept: %v", body, err)
		}
		var p CustomerProperties
		var read storedCustomer
		if err := json.Unmarshal(kept, &read); err != nil {
			t.Fatalf("%s: not read: %v", kept, err)
		}
		p.Customer, p.Additional = read.Customer, read.Additional
		if again, err := json.Marshal(readCustomer(&p, &mistakes{})); err != nil || string(again) != string(kept) {
			t.Errorf("%s is kept, and %s of that (%v)", kept, again, err)
		}
	})
}
