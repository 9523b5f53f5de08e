package control

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/fleet"
	"larder/internal/lardertest"
)

var update = flag.Bool("update", false, "write the answers of testdata/arm anew")

// caller asks a control plane over its whole handler.
type caller struct {
	*Control
	t     *testing.T
	token string
}

// calling opens a control plane whose operations are carried out, and an owner
// who asks it.
func calling(t *testing.T) *caller {
	t.Helper()
	c := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.arm.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	x := &caller{Control: c, t: t}
	x.token = x.as("owner", access.Everything)
	return x
}

// as makes a token of a role.
func (c *caller) as(role string, scopes ...string) string {
	c.t.Helper()
	var secret string
	err := c.d.Tx(c.t.Context(), func(tx *sql.Tx) error {
		var err error
		_, secret, err = c.Control.access.CreateToken(c.t.Context(), tx, access.NewToken{Name: role, Role: access.Role(role), Scopes: scopes}, &access.Principal{Kind: access.Local, Name: "test", Role: access.Owner, Scopes: []string{"/"}})
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return secret
}

// do asks; fields are of the head, as "Name: value".
func (c *caller) do(method, path, body string, fields ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequest(method, "https://control.example"+strings.Replace(path, "SUB", c.subscription, 1), strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+c.token)
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	c.handler().ServeHTTP(w, r)
	return w
}

// settle follows a long-running operation to its end.
func (c *caller) settle(w *httptest.ResponseRecorder) {
	c.t.Helper()
	at := strings.TrimPrefix(w.Header().Get("Azure-AsyncOperation"), "https://control.example")
	if w.Code >= 300 || at == "" {
		c.t.Fatalf("no operation: %d %s", w.Code, w.Body)
	}
	lardertest.Eventually(c.t, "the operation ends", func() bool {
		return strings.Contains(c.do("GET", at, "").Body.String(), `"status":"Succeeded"`)
	})
}

const (
	groupAt     = "/subscriptions/SUB/resourceGroups/schools"
	customersAt = groupAt + "/providers/Microsoft.ConnectedCache/enterpriseMccCustomers"
	customerAt  = customersAt + "/north"
	nodesAt     = customerAt + "/enterpriseMccCacheNodes"
	nodeAt      = nodesAt + "/room-1"
	newest      = "?api-version=2026-06-01"
)

// resources makes the group, the customer and the node.
func (c *caller) resources(query string) {
	c.t.Helper()
	if w := c.do("PUT", groupAt+"?api-version=2022-09-01", `{"location":"westeurope"}`); w.Code != 201 {
		c.t.Fatalf("group: %d %s", w.Code, w.Body)
	}
	c.settle(c.do("PUT", customerAt+query, `{"location":"westeurope","tags":{"a":"b"},"properties":{
		"customer":{"customerName":"North","contactEmail":"ada@school.example","contactPhone":"1","contactName":"Ada","isEnterpriseManaged":true,"isEntitled":true,"shouldMigrate":false,"resendSignupCode":false,"verifySignupCode":false},
		"additionalCustomerProperties":{"optionalProperty1":"one"}}}`))
	ring := `"autoUpdateRingType":"Stable","autoUpdateRequestedWeek":3,"autoUpdateRequestedDay":2,"autoUpdateRequestedTime":"03:00"`
	if query != newest {
		ring = strings.Replace(ring, "Stable", "Slow", 1)
	}
	c.settle(c.do("PUT", nodeAt+query, `{"location":"westeurope","tags":{"k":"v"},"properties":{
		"cacheNode":{"cacheNodeName":"Room 1",`+ring+`},
		"additionalCacheNodeProperties":{"osType":"Linux","isProxyRequired":"None","proxyUrlConfiguration":{"proxyUrl":""},
			"driveConfiguration":[{"physicalPath":"/srv/cache","sizeInGb":100,"cacheNumber":1,"nginxMapping":"/nginx1"}],"optionalProperty1":"x"}}}`))
}

// reported has the node say something.
func (c *caller) reported() {
	c.t.Helper()
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	state, err := json.Marshal(fleet.State{
		Ready: true, Running: 1, System: fleet.System{OS: "linux", Arch: "amd64", Edition: "Debian GNU/Linux", Release: "12", Build: "6.1", Version: "1.0.0", Hostname: "room-1"},
		Drives:       []fleet.DriveState{{Path: "/srv/cache", Budget: 100e9, Used: 1e9, Free: 99e9, State: "ok"}},
		Certificates: []fleet.Certificate{{File: "a.crt", Active: true, Subject: "CN=cache.school.example", Names: []string{"cache.school.example"}, NotBefore: at.Add(-24 * time.Hour), NotAfter: at.Add(300 * 24 * time.Hour), SHA256: "aa", SHA1: "bb", KeyType: "RSA 2048"}},
		Issues:       []fleet.Issue{{Type: "integrity", Text: "1 chunk was rotten", Fix: "Look at the disk."}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.d.ExecContext(c.t.Context(), `UPDATE nodes SET line = 1, last_seen = $1, state = $2, protocol = 1`, db.Micros(time.Now()), string(state)); err != nil {
		c.t.Fatal(err)
	}
	if err := c.watch(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

var passing = []struct {
	form *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "GUID"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`("(?:primaryAccountKey|secondaryAccountKey|registrationKey)": ")[^"]+`), "${1}KEY"},
}

// What each api-version answers is written down in testdata/arm: a difference
// is one that clients see.
func TestAnswersOfEachVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2023-05-01-preview", "2024-11-30-preview", "2026-06-01"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := calling(t)
			query := "?api-version=" + version
			c.resources(query)
			c.reported()
			var b bytes.Buffer
			for _, ask := range []struct{ method, path string }{
				{"GET", customerAt}, {"GET", customersAt}, {"GET", "/subscriptions/SUB/providers/Microsoft.ConnectedCache/enterpriseMccCustomers"}, {"GET", nodeAt}, {"GET", nodesAt},
				{"POST", nodeAt + "/getCacheNodeInstallDetails"}, {"POST", nodeAt + "/getCacheNodeAutoUpdateHistory"}, {"POST", nodeAt + "/getCacheNodeMccIssueDetailsHistory"}, {"POST", nodeAt + "/getCacheNodeTlsCertificateHistory"},
				{"GET", "/providers/Microsoft.ConnectedCache/operations"}, {"GET", nodesAt + "/none"},
			} {
				w := c.do(ask.method, ask.path+query, "")
				fmt.Fprintf(&b, "%s %s: %d\n", ask.method, strings.TrimPrefix(ask.path, groupAt), w.Code)
				if err := json.Indent(&b, bytes.TrimSpace(w.Body.Bytes()), "", "  "); err != nil {
					t.Fatalf("%s %s: %v in %s", ask.method, ask.path, err, w.Body)
				}
				b.WriteString("\n\n")
			}
			got := b.String()
			for _, p := range passing {
				got = p.form.ReplaceAllString(got, p.word)
			}
			file := filepath.Join("testdata", "arm", version+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s answers otherwise than %s says; look at it, then run with -update:\n%s", version, file, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	ws, gs := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(ws), len(gs)) {
		if ws[i] != gs[i] {
			return fmt.Sprintf("line %d\n- %s\n+ %s", i+1, ws[i], gs[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(gs), len(ws))
}

// What ARM promises of every resource: conditions, pages, methods, names and
// errors.
func TestWhatARMPromises(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	tag := c.do("GET", nodeAt+newest, "").Header().Get("ETag")
	if tag == "" {
		t.Fatal("a node has no ETag")
	}
	same := `{"location":"westeurope","properties":{"additionalCacheNodeProperties":{"osType":"Linux"}}}`
	for name, a := range map[string]struct {
		method, path, body, field string
		status                    int
		says                      string
	}{
		"another version":            {"PUT", nodeAt + newest, same, `If-Match: "0"`, 412, "PreconditionFailed"},
		"a version of nothing":       {"PUT", nodesAt + "/new" + newest, same, "If-Match: " + tag, 412, "PreconditionFailed"},
		"only if it is not there":    {"PUT", nodeAt + newest, same, "If-None-Match: *", 412, "PreconditionFailed"},
		"tags of another version":    {"PATCH", nodeAt + newest, `{"tags":{}}`, `If-Match: "0"`, 412, "PreconditionFailed"},
		"deletes another version":    {"DELETE", nodeAt + newest, "", `If-Match: "0"`, 412, "PreconditionFailed"},
		"a customer's other version": {"PUT", customerAt + newest, `{"location":"westeurope"}`, `If-Match: "0"`, 412, "PreconditionFailed"},
		"other case":                 {"GET", strings.ToUpper(strings.TrimPrefix(nodeAt, "/subscriptions/SUB")) + newest, "", "", 200, `"name":"room-1"`},
		"without a version":          {"GET", nodeAt, "", "", 400, "MissingApiVersionParameter"},
		"an unknown version":         {"GET", nodeAt + "?api-version=2020-01-01", "", "", 400, "2026-06-01"},
		"no date":                    {"GET", groupAt + "?api-version=latest", "", "", 400, "InvalidApiVersionParameter"},
		"another subscription":       {"GET", "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/x/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/x" + newest, "", "", 404, "SubscriptionNotFound"},
		"no group":                   {"PUT", "/subscriptions/SUB/resourceGroups/none/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/x" + newest, `{"location":"l"}`, "", 404, "ResourceGroupNotFound"},
		"no customer":                {"PUT", customersAt + "/none/enterpriseMccCacheNodes/x" + newest, same, "", 404, "ResourceNotFound"},
		"a wrong name":               {"PUT", nodesAt + "/a%20b" + newest, same, "", 400, "cacheNodeResourceName"},
		"a slash in a name":          {"PUT", nodesAt + "/a%2Fb" + newest, same, "", 400, "cacheNodeResourceName"},
		"another location":           {"PUT", nodeAt + newest, `{"location":"mars"}`, "", 400, "location"},
		"no JSON":                    {"PUT", nodeAt + newest, `{"location":`, "", 400, "InvalidRequestContent"},
		"a wrong type":               {"PUT", nodeAt + newest, `{"location":"westeurope","properties":{"cacheNode":{"autoUpdateRequestedDay":"two"}}}`, "", 400, "autoUpdateRequestedDay"},
		"too large":                  {"PUT", nodeAt + newest, `{"location":"` + strings.Repeat("x", 2<<20) + `"}`, "", 413, "RequestBodyTooLarge"},
		"a method that is not there": {"POST", nodeAt + newest, "", "", 405, "MethodNotAllowed"},
		"nothing there":              {"GET", "/subscriptions/SUB/x" + newest, "", "", 404, "NotFound"},
		"an operation of nobody":     {"GET", "/subscriptions/SUB/providers/Microsoft.ConnectedCache/locations/x/operationStatuses/11111111-1111-1111-1111-111111111111" + newest, "", "", 404, "NotFound"},
		"is the group there":         {"HEAD", groupAt + "?api-version=2022-09-01", "", "", 204, ""},
		"is another there":           {"HEAD", "/subscriptions/SUB/resourceGroups/none?api-version=2022-09-01", "", "", 404, ""},
		"head of a node":             {"HEAD", nodeAt + newest, "", "", 200, ""},
		"delete what is not there":   {"DELETE", nodesAt + "/none" + newest, "", "", 204, ""},
	} {
		path := a.path
		if !strings.HasPrefix(strings.ToLower(path), "/subscriptions/") {
			path = "/Subscriptions/SUB" + path
		}
		var fields []string
		if a.field != "" {
			fields = append(fields, a.field)
		}
		w := c.do(a.method, path, a.body, fields...)
		if w.Code != a.status || !strings.Contains(w.Body.String(), a.says) {
			t.Errorf("%s: %d %s; want %d with %q", name, w.Code, w.Body, a.status, a.says)
		}
		if w.Code >= 400 && a.method != "HEAD" {
			var e struct {
				Error struct{ Code, Message string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Code == "" || e.Error.Message == "" || w.Header().Get("X-Ms-Error-Code") != e.Error.Code {
				t.Errorf("%s: not ARM's envelope: %s", name, w.Body)
			}
		}
		if w.Code == 405 && !strings.Contains(w.Header().Get("Allow"), "PATCH") {
			t.Errorf("%s: Allow is %q", name, w.Header().Get("Allow"))
		}
		if w.Header().Get("X-Ms-Request-Id") == "" && w.Code < 404 {
			t.Errorf("%s: no request id", name)
		}
	}
	if w := c.do("PUT", nodeAt+newest, same, "If-Match: "+tag); w.Code != 200 {
		t.Errorf("the version that is there: %d %s", w.Code, w.Body)
	}
	// Ids by which a request is traced are given back.
	w := c.do("GET", nodeAt+newest, "", "X-Ms-Client-Request-Id: mine", "X-Ms-Return-Client-Request-Id: true", "X-Ms-Correlation-Request-Id: 11111111-2222-3333-4444-555555555555")
	if w.Header().Get("X-Ms-Client-Request-Id") != "mine" || w.Header().Get("X-Ms-Correlation-Request-Id") != "11111111-2222-3333-4444-555555555555" {
		t.Errorf("got %v", w.Header())
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	for i := range 6 {
		c.settle(c.do("PUT", fmt.Sprintf("%s/more-%d%s", nodesAt, i, newest), `{"location":"westeurope"}`))
		c.settle(c.do("PUT", fmt.Sprintf("%s/c%d%s", customersAt, i, newest), `{"location":"westeurope"}`))
	}
	for _, path := range []string{nodesAt, customersAt, "/subscriptions/SUB/providers/Microsoft.ConnectedCache/enterpriseMccCustomers"} {
		var names []string
		pages := 0
		for next := path + newest + "&$top=3"; next != ""; pages++ {
			var list struct {
				Value    []struct{ Name string }
				NextLink string
			}
			w := c.do("GET", strings.TrimPrefix(next, "https://control.example"), "")
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 || len(list.Value) > 3 {
				t.Fatalf("%s: %d %s", next, w.Code, w.Body)
			}
			for _, v := range list.Value {
				names = append(names, v.Name)
			}
			next = list.NextLink
		}
		slices.Sort(names)
		if len(slices.Compact(names)) != 7 || pages < 3 {
			t.Errorf("%s: %d pages with %v", path, pages, names)
		}
	}
	for _, bad := range []string{"$top=0", "$top=x", "$top=100000", "$skipToken=%25"} {
		if w := c.do("GET", nodesAt+newest+"&"+bad, ""); w.Code != 400 && w.Code != 200 {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
}

// Who has a scope sees what is in it, in every list that leaves out the rest.
func TestListsLeaveOutWhatIsNotTheirs(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	other := strings.NewReplacer("schools", "offices", "north", "south", "room-1", "desk-1")
	for _, put := range []struct{ path, body string }{
		{groupAt + "?api-version=2022-09-01", `{"location":"l"}`}, {customerAt + newest, `{"location":"l"}`}, {nodeAt + newest, `{"location":"l"}`},
	} {
		w := c.do("PUT", other.Replace(put.path), put.body)
		if w.Code != 201 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Header().Get("Azure-AsyncOperation") != "" {
			c.settle(w)
		}
	}
	if _, err := c.d.ExecContext(t.Context(), `INSERT INTO alerts (id, rule, subject, state, severity, step, title, reason, fix, members, first_seen, last_seen) VALUES ('1', 'origin', 'x', 'firing', 3, 0, 'room-1 and desk-1', '', '', $1, 1, 1)`,
		fmt.Sprintf(`[{"nodeId":"1","name":"room-1","scope":"%s"},{"nodeId":"2","name":"desk-1","scope":"%s"}]`, access.GroupScope(c.subscription, "schools"), access.GroupScope(c.subscription, "offices"))); err != nil {
		t.Fatal(err)
	}
	owner := c.token
	mine := c.as("reader", access.GroupScope(c.subscription, "schools"))
	none := c.as("reader", access.GroupScope(c.subscription, "nothing"))
	for _, path := range []string{
		"/subscriptions/SUB/resourceGroups?api-version=2022-09-01", "/subscriptions/SUB/resources?api-version=2022-09-01", "/subscriptions/SUB/providers/Microsoft.ConnectedCache/enterpriseMccCustomers" + newest,
		"/api/larder/v1/nodes", "/api/larder/v1/usage/nodes", "/api/larder/v1/alerts",
	} {
		for who, want := range map[string][2]bool{owner: {true, true}, mine: {true, false}, none: {false, false}} {
			c.token = who
			w := c.do("GET", path, "")
			body := strings.ToLower(w.Body.String())
			// A title may name what a reader does not see; the nodes listed do not.
			body = strings.ReplaceAll(body, "room-1 and desk-1", "")
			got := [2]bool{strings.Contains(body, "schools") || strings.Contains(body, "room-1"), strings.Contains(body, "offices") || strings.Contains(body, "desk-1")}
			if strings.Contains(path, "usage") { // nobody reported: there is nothing to see
				want = [2]bool{}
			}
			if w.Code != 200 || got != want {
				t.Errorf("%s, asked by the owner of %v: %d, sees %v: %s", path, want, w.Code, got, w.Body)
			}
		}
	}
}
