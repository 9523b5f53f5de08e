package control

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/telemetry"
	"larder/internal/fleet"
	"larder/internal/lardertest"
	"larder/internal/lardertest/golden"
)

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
			golden.Check(t, filepath.Join("testdata", "arm", version+".txt"), got)
		})
	}
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

// Scripts read a resource, change one thing and send it back: whatever else was
// set, and by whichever version, stays.
func TestWhatIsSentBackChangesNothing(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	var got struct {
		Properties struct{ CacheNode struct{ CacheNodeID string } }
	}
	node := func() string {
		if err := json.Unmarshal(c.do("GET", nodeAt+newest, "").Body.Bytes(), &got); err != nil || got.Properties.CacheNode.CacheNodeID == "" {
			t.Fatalf("%+v %v", got, err)
		}
		return "/api/larder/v1/nodes/" + got.Properties.CacheNode.CacheNodeID
	}()
	w := c.do("PUT", nodeAt+newest, `{"location":"westeurope","properties":{"cacheNode":{"fullyQualifiedDomainName":"a.school.example","openFirewallPort80":true,"openFirewallPort5001":false,"runtimeAccountType":"LocalUser"},
		"additionalCacheNodeProperties":{"osType":"Linux","proxyUrlConfiguration":{"proxyUrl":"proxy:3128"},"driveConfiguration":[{"physicalPath":"/srv/cache","sizeInGb":100}]}}}`)
	c.settle(w)
	settings := `{"clientNames":["b.school.example","10.0.0.2"],"drain":true,"limit":{"rate":1000000},"site":"North"}`
	if w := c.do("PATCH", node+"/settings", settings); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	desired, whole := c.do("GET", node+"/desired", "").Body.String(), c.do("GET", nodeAt+newest, "").Body.String()
	for _, version := range []string{"?api-version=2023-05-01-preview", "?api-version=2024-11-30-preview", newest} {
		v := c.do("GET", nodeAt+version, "").Body.String()
		if !strings.Contains(v, `"isEnabled":false`) {
			t.Errorf("%s: a node that drains is enabled: %s", version, v)
		}
		c.settle(c.do("PUT", nodeAt+version, v))
		if now := c.do("GET", node+"/desired", "").Body.String(); now != desired {
			t.Errorf("%s: the document changed from\n%s\nto\n%s", version, desired, now)
		}
		volatile := regexp.MustCompile(`"last(ModifiedAt|UpdatedTimestamp)":"[^"]*"`)
		if now := c.do("GET", nodeAt+newest, "").Body.String(); volatile.ReplaceAllString(now, "") != volatile.ReplaceAllString(whole, "") {
			t.Errorf("%s: the resource changed from\n%s\nto\n%s", version, whole, now)
		}
	}
	c.settle(c.do("PUT", nodeAt+newest, strings.Replace(whole, `"isEnabled":false`, `"isEnabled":true`, 1)))
	if now := c.do("GET", node+"/settings", "").Body.String(); strings.Contains(now, "drain") || !strings.Contains(now, "b.school.example") {
		t.Errorf("enabled anew: %s", now)
	}
}

// The ETag of what was made is good for the first change, however soon or late.
func TestETagsOutliveOperations(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	for _, at := range []string{customersAt + "/south", customersAt + "/south/enterpriseMccCacheNodes/one"} {
		body := `{"location":"westeurope"}`
		w := c.do("PUT", at+newest, body)
		c.settle(w)
		tag := w.Header().Get("ETag")
		if w := c.do("PUT", at+newest, body, "If-Match: "+tag); w.Code != 200 {
			t.Errorf("%s: %d %s", at, w.Code, w.Body)
		}
	}
	// Reading what a machine needs is no change either.
	tag := c.do("GET", nodeAt+newest, "").Header().Get("ETag")
	id := regexp.MustCompile(`"cacheNodeId":"([^"]+)"`).FindStringSubmatch(c.do("GET", nodeAt+newest, "").Body.String())[1]
	if w := c.do("POST", "/api/larder/v1/nodes/"+id+"/deployment", ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if now := c.do("GET", nodeAt+newest, "").Header().Get("ETag"); now != tag {
		t.Errorf("the ETag went from %s to %s", tag, now)
	}
}

// What is made anew under a name does not have the figures of the one before.
func TestFiguresGoWithTheirCustomer(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	other := strings.Replace(customersAt, "SUB", c.subscription, 1) + "/north-2"
	figures := func() (n int) {
		t.Helper()
		if err := c.d.QueryRowContext(t.Context(), `SELECT count(*) FROM usage_total`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	report := func(customer string) {
		t.Helper()
		if _, err := c.d.ExecContext(t.Context(), `INSERT INTO usage_total (span, bucket, customer, minutes, requests, hits, hit, miss, fetched) VALUES (60, 60, $1, 1, 1, 1, 1, 1, 1)`, strings.ToLower(customer)); err != nil {
			t.Fatal(err)
		}
	}
	at := strings.Replace(customerAt, "SUB", c.subscription, 1)
	report(at)
	report(other)
	c.settle(c.do("DELETE", nodeAt+newest, ""))
	if n := figures(); n != 2 {
		t.Errorf("after a node was deleted: %d rows, want both", n)
	}
	c.settle(c.do("DELETE", customerAt+newest, ""))
	if n := figures(); n != 1 {
		t.Errorf("after the customer was deleted: %d rows, want that of the other", n)
	}
	c.settle(c.do("DELETE", groupAt+"?api-version=2022-09-01", ""))
	if n := figures(); n != 0 {
		t.Errorf("after the group was deleted: %d rows", n)
	}
}

// What is being deleted is not made to look alive again.
func TestWhatIsBeingDeletedStaysSo(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	if _, err := c.d.ExecContext(t.Context(), `UPDATE nodes SET provisioning = 'Deleting'`); err != nil {
		t.Fatal(err)
	}
	refused := func(method, at, body string) {
		t.Helper()
		if w := c.do(method, at+newest, body); w.Code != 409 || !strings.Contains(w.Body.String(), "ResourceIsBeingDeleted") {
			t.Errorf("%s %s: %d %s", method, at, w.Code, w.Body)
		}
	}
	refused("PUT", nodeAt, `{"location":"westeurope"}`)
	refused("PATCH", nodeAt, `{"tags":{"a":"b"}}`)
	if _, err := c.d.ExecContext(t.Context(), `UPDATE customers SET provisioning = 'Deleting'`); err != nil {
		t.Fatal(err)
	}
	refused("PUT", customerAt, `{"location":"westeurope"}`)
	refused("PATCH", customerAt, `{"tags":{"a":"b"}}`)
	refused("PUT", nodesAt+"/another", `{"location":"westeurope"}`)
}

// The command runs as root where it is pasted: it names this control plane, as
// its configuration does, whatever a request says.
func TestCommandsNameThisControlPlane(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	id := regexp.MustCompile(`"cacheNodeId":"([^"]+)"`).FindStringSubmatch(c.do("GET", nodeAt+newest, "").Body.String())[1]
	c.cfg.Names = []string{"control.example", "10.0.0.5", "localhost", "127.0.0.1"}
	for host, want := range map[string]string{
		"control.example:8440":   "https://control.example:8440",
		"CONTROL.example":        "https://control.example",
		"10.0.0.5:8440":          "https://10.0.0.5:8440",
		"evil.example:8440":      "https://control.example:8440",
		"127.0.0.1:9000":         "https://control.example:9000",
		"localhost:8440":         "https://control.example:8440",
		"evil.example:$(id)":     "https://control.example",
		"x'; curl evil.example;": "https://control.example",
	} {
		r := httptest.NewRequest("POST", "https://control.example/api/larder/v1/nodes/"+id+"/deployment", nil)
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+c.token)
		w := httptest.NewRecorder()
		c.handler().ServeHTTP(w, r)
		if w.Code != 200 || !strings.Contains(w.Body.String(), "controlurl="+want+" ") || strings.Contains(w.Body.String(), "evil") {
			t.Errorf("asked at %s: %d %s; want %s", host, w.Code, w.Body, want)
		}
	}
}

// A filter tells apart the nodes that it names, if they are the resource's own,
// and never answers with anybody else's figures.
func TestMetricsAreOfWhatIsAsked(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	c.settle(c.do("PUT", nodesAt+"/room-2"+newest, `{"location":"westeurope"}`))
	c.settle(c.do("PUT", customersAt+"/south"+newest, `{"location":"westeurope"}`))
	c.settle(c.do("PUT", customersAt+"/south/enterpriseMccCacheNodes/room-3"+newest, `{"location":"westeurope"}`))
	id := func(at string) string {
		return regexp.MustCompile(`"cacheNodeId":"([^"]+)"`).FindStringSubmatch(c.do("GET", at+newest, "").Body.String())[1]
	}
	one, two, theirs := id(nodeAt), id(nodesAt+"/room-2"), id(customersAt+"/south/enterpriseMccCacheNodes/room-3")
	const nobody = "11111111-2222-3333-4444-555555555555"
	for _, tt := range []struct {
		at, filter, top string
		want            []string // nil: one series of all
	}{
		{customerAt, "", "", nil},
		{customerAt, "cachenodeid eq '*'", "", []string{one, two}},
		{customerAt, "cachenodeid eq '*'", "1", []string{""}},
		{customerAt, "cachenodeid eq '" + two + "'", "", []string{two}},
		{customerAt, "CacheNodeId eq '" + strings.ToUpper(two) + "' or cachenodeid eq '" + two + "'", "", []string{two}},
		{customerAt, "cachenodeid eq '" + nobody + "'", "", []string{}},
		{customerAt, "cachenodeid eq '" + theirs + "'", "", []string{}},
		{nodeAt, "cachenodeid eq '*'", "", []string{one}},
		{nodeAt, "cachenodeid eq '" + one + "'", "", []string{one}},
		{nodeAt, "cachenodeid eq '" + two + "'", "", []string{}},
	} {
		q := "?api-version=2024-02-01&interval=FULL"
		if tt.filter != "" {
			q += "&$filter=" + url.QueryEscape(tt.filter)
		}
		if tt.top != "" {
			q += "&top=" + tt.top
		}
		w := c.do("GET", tt.at+"/providers/microsoft.insights/metrics"+q, "")
		var r telemetry.MetricsResponse
		if err := json.Unmarshal(w.Body.Bytes(), &r); w.Code != 200 || err != nil || len(r.Value) != 1 {
			t.Errorf("%s %s: %d %s", tt.at, tt.filter, w.Code, w.Body)
			continue
		}
		series := r.Value[0].Timeseries
		if tt.want == nil {
			if len(series) != 1 || len(series[0].Metadata) != 0 {
				t.Errorf("no filter: %s", w.Body)
			}
			continue
		}
		var got []string
		for _, x := range series {
			got = append(got, x.Metadata[0].Value)
		}
		if len(got) != len(tt.want) || len(got) > 0 && tt.top == "" && !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(tt.want))) {
			t.Errorf("%s %s: series of %q, want %q", tt.at, tt.filter, got, tt.want)
		}
	}
	for _, q := range []string{"$filter=name+eq+'x'", "$filter=cachenodeid+eq+'*'&top=0", "interval=PT7M", "timespan=x"} {
		if w := c.do("GET", customerAt+"/providers/microsoft.insights/metrics?api-version=2024-02-01&"+q, ""); w.Code != 400 {
			t.Errorf("%s: %d %s", q, w.Code, w.Body)
		}
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
		"/api/larder/v1/nodes", "/api/larder/v1/alerts",
	} {
		for who, want := range map[string][2]bool{owner: {true, true}, mine: {true, false}, none: {false, false}} {
			c.token = who
			w := c.do("GET", path, "")
			body := strings.ToLower(w.Body.String())
			// A title may name what a reader does not see; the nodes listed do not.
			body = strings.ReplaceAll(body, "room-1 and desk-1", "")
			got := [2]bool{strings.Contains(body, "schools") || strings.Contains(body, "room-1"), strings.Contains(body, "offices") || strings.Contains(body, "desk-1")}
			if w.Code != 200 || got != want {
				t.Errorf("%s, asked by the owner of %v: %d, sees %v: %s", path, want, w.Code, got, w.Body)
			}
		}
	}
}

// Figures, sites and clients' settings are of the nodes that the caller may see,
// whether it asks for all or for one.
func TestFiguresKeepToScopes(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	offices := strings.NewReplacer("schools", "offices", "north", "south", "room-1", "desk-1")
	if w := c.do("PUT", offices.Replace(groupAt)+"?api-version=2022-09-01", `{"location":"l"}`); w.Code != 201 {
		t.Fatal(w.Body)
	}
	c.settle(c.do("PUT", offices.Replace(customerAt)+newest, `{"location":"l"}`))
	c.settle(c.do("PUT", offices.Replace(nodeAt)+newest, `{"location":"l","properties":{"cacheNode":{"fullyQualifiedDomainName":"desk-1.office.example"}}}`))
	c.settle(c.do("PUT", nodeAt+newest, `{"location":"westeurope","properties":{"cacheNode":{"fullyQualifiedDomainName":"room-1.school.example"}}}`))
	ids := map[string]string{}
	now := time.Now().Unix()
	for name, at := range map[string]string{"room-1": nodeAt, "desk-1": offices.Replace(nodeAt)} {
		id := regexp.MustCompile(`"cacheNodeId":"([^"]+)"`).FindStringSubmatch(c.do("GET", at+newest, "").Body.String())[1]
		ids[name] = id
		customer := strings.ToLower(strings.Replace(strings.TrimSuffix(at, "/enterpriseMccCacheNodes/"+name), "SUB", c.subscription, 1))
		n := map[string]int{"room-1": 11, "desk-1": 7000}[name]
		for _, span := range []int64{60, 900, 86400} {
			bucket := (now - 300) / span * span
			for _, q := range []string{
				fmt.Sprintf(`INSERT INTO usage (span, bucket, customer, node_id, kind, requests, hits, hit, miss, fetched) VALUES (%d, %d, '%s', '%s', 'kind-%s', %d, 0, 0, 0, 0)`, span, bucket, customer, id, name, n),
				fmt.Sprintf(`INSERT INTO usage_total (span, bucket, customer, minutes, requests, hits, hit, miss, fetched) VALUES (%d, %d, '%s', 1, %d, 0, 0, 0, 0)`, span, bucket, customer, n),
			} {
				if _, err := c.d.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
		}
		quarter := (now - 300) / 900 * 900
		for _, q := range []string{
			fmt.Sprintf(`INSERT INTO outcomes (bucket, customer, node_id, kind, outcome, status, requests) VALUES (%d, '%s', '%s', 'kind-%s', 'hit', '2xx', %d)`, quarter, customer, id, name, n),
			fmt.Sprintf(`INSERT INTO origins (bucket, customer, node_id, host, ok, failures) VALUES (%d, '%s', '%s', '%s.example', %d, 0)`, quarter, customer, id, name, n),
		} {
			if _, err := c.d.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.roster.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	owner := c.token
	mine := c.as("reader", access.GroupScope(c.subscription, "schools"))
	none := c.as("reader", access.GroupScope(c.subscription, "nothing"))
	const usage = "/api/larder/v1/usage/"
	for path, sees := range map[string][2]string{ // what shows the one and the other
		usage + "content-types":                {"kind-room-1", "kind-desk-1"},
		usage + "nodes":                        {ids["room-1"], ids["desk-1"]},
		usage + "outcomes":                     {"kind-room-1", "kind-desk-1"},
		usage + "origins":                      {"room-1.example", "desk-1.example"},
		"/api/larder/v1/client-settings":       {"room-1.school.example", "desk-1.office.example"},
		usage + "overview":                     {`"requests":11,`, `"requests":7000,`},
		usage + "series?interval=PT1M":         {`"requests":11,`, `"requests":7000,`},
		usage + "series?interval=P1D":          {`"requests":11,`, `"requests":7000,`},
		"/api/larder/v1/sites":                 {`"nodes":1,`, "\x00"},
		usage + "nodes?customer=" + "OTHER":    {"\x00", ids["desk-1"]},
		usage + "series?node=" + ids["desk-1"]: {"\x00", `"requests":7000,`},
	} {
		path = strings.Replace(path, "OTHER", url.QueryEscape(strings.Replace(offices.Replace(customerAt), "SUB", c.subscription, 1)), 1)
		for who, want := range map[string][2]bool{owner: {true, true}, mine: {true, false}, none: {false, false}} {
			c.token = who
			w := c.do("GET", path, "")
			body := w.Body.String()
			got := [2]bool{strings.Contains(body, sees[0]), strings.Contains(body, sees[1])}
			for i := range want {
				want[i] = want[i] && sees[i] != "\x00"
			}
			both := `"requests":7011,` // a sum over both, for those who see both
			switch {
			case strings.Contains(path, "overview"), strings.Contains(path, "series?interval"):
				if who == owner {
					want, got = [2]bool{true, true}, [2]bool{strings.Contains(body, both), !strings.Contains(body, `"requests":11,`)}
				} else if strings.Contains(body, both) {
					t.Errorf("%s: a sum over what is not theirs: %s", path, body)
				}
			case strings.Contains(path, "sites"):
				if who == owner {
					got[0], want[0] = strings.Contains(body, `"nodes":2,`), true
				}
			case strings.Contains(path, "node=") || strings.Contains(path, "customer="):
				if who != owner && w.Code != 403 {
					t.Errorf("%s: %d %s, want 403", path, w.Code, body)
				}
			}
			if got != want {
				t.Errorf("%s: sees %v, want %v: %d %s", path, got, want, w.Code, body)
			}
		}
	}
}
