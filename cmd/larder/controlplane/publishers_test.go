package controlplane_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A mistake in a publisher file is told where it is made, with the field and the
// line, and reaches no node.
func TestMistakesInPublishersAreToldAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "")
	if a := p.do("PUT", p.arm("?api-version=2022-09-01"), `{"location":"westeurope"}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p.settle(p.do("PUT", p.arm(customerPath)+"?"+armVersion, `{"location":"westeurope"}`))
	at := "/api/larder/v1" + p.arm("/customers/north/publishers/")
	put := func(name, file string) answer {
		body, err := json.Marshal(map[string]string{"file": file})
		if err != nil {
			t.Fatal(err)
		}
		return p.do("PUT", at+name, string(body))
	}
	const good = "name: intranet\nhosts: [packages.school.example]\n"
	if a := put("intranet", good); a.status != 200 {
		t.Fatalf("a good file: %d %s", a.status, a.body)
	}
	for name, tt := range map[string]struct{ file, says string }{
		"an unknown field":      {"name: x\nhosts: [x.school.example]\ncolour: red\n", "colour"},
		"no host":               {"name: x\n", "hosts"},
		"no YAML":               {"name: [", "YAML"},
		"a whole domain":        {"name: x\nhosts: [\"*.example\"]\n", "hosts[0]"},
		"a host of another":     {"name: x\nhosts: [packages.school.example]\n", "packages.school.example"},
		"the name of another":   {"name: intranet\nhosts: [x.school.example]\n", "intranet"},
		"a file of the machine": {"name: x\nhosts: [x.school.example]\norigin: {ca: /etc/shadow}\n", "origin.ca"},
	} {
		if a := put("x", tt.file); a.status != 400 || !strings.Contains(string(a.body), tt.says) || !strings.Contains(string(a.body), `"target":"file"`) {
			t.Errorf("%s: %d %s; want a 400 about %s", name, a.status, a.body, tt.says)
		}
	}
	if a := put("intranet", strings.Replace(good, "packages", "files", 1)); a.status != 200 {
		t.Errorf("the file changed: %d %s", a.status, a.body)
	}
	var list struct{ Value []struct{ Name, File string } }
	p.get(strings.TrimSuffix(at, "/"), &list)
	if len(list.Value) != 1 || !strings.Contains(list.Value[0].File, "files.school.example") {
		t.Errorf("there are %+v", list.Value)
	}
	// What was there before is in the audit.
	if a := p.do("DELETE", at+"intranet", ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	audit := string(p.do("GET", "/api/larder/v1/audit", "").body)
	for _, want := range []string{"publisher.delete", "packages.school.example", "files.school.example"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit does not hold %s: %s", want, audit)
		}
	}
	if n := strings.Count(audit, `"before":{"file":`); n != 2 {
		t.Errorf("%d entries say what was there before, want 2 (%s)", n, fmt.Sprint(audit))
	}
}
