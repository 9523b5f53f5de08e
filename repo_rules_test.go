package larder_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/doc"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var rules = []rule{
	{
		name:  "imports point down",
		check: importsPointDown,
		bad: []sample{
			{"control: node and control meet only in fleet", "-- internal/node/a.go --\npackage node\nimport _ \"larder/internal/control\"\n"},
			{"node: node and control meet only in fleet", "-- internal/control/arm/a.go --\npackage arm\nimport _ \"larder/internal/node/store\"\n"},
			{"stages do not know each other", "-- internal/node/fill/a.go --\npackage fill\nimport _ \"larder/internal/node/store\"\n"},
			{"stages do not know each other", "-- internal/node/fill/a_test.go --\npackage fill_test\nimport _ \"larder/internal/node/origin\"\n"},
			{"stages do not know each other", "-- internal/node/config/a.go --\npackage config\nimport _ \"larder/internal/node/origin\"\n"},
			{"internal/node/store may not import internal/node:", "-- internal/node/store/a.go --\npackage store\nimport _ \"larder/internal/node\"\n"},
			{"internal/pki/livecert may not import internal/node", "-- internal/pki/livecert/a.go --\npackage livecert\nimport _ \"larder/internal/node\"\n"},
			{"internal/byterange may not import internal/pki/csr", "-- internal/byterange/a.go --\npackage byterange\nimport _ \"larder/internal/pki/csr\"\n"},
			{"internal/fleet may not import internal/node", "-- internal/fleet/a.go --\npackage fleet\nimport _ \"larder/internal/node/config\"\n"},
			{"a name of its own", "-- internal/node/a.go --\npackage node\nimport . \"larder/internal/byterange\"\n"},
		},
		good: `
-- cmd/larder/main.go --
package main
import ("larder/internal/node"; "larder/internal/control")
-- internal/node/node.go --
package node
import ("larder/internal/node/fill"; "larder/internal/pki/livecert"; "larder/internal/fleet"; "larder/internal/byterange")
-- internal/node/fill/fill.go --
package fill
import ("larder/internal/byterange"; "larder/internal/sys/durable")
-- internal/node/fill/fill_test.go --
package fill_test
import ("larder/internal/node/fill"; "larder/internal/lardertest")
-- internal/control/a.go --
package control
import ("larder/internal/fleet"; "larder/internal/pki/authority"; "larder/internal/vault")
`,
	},
	{
		name:  "lardertest is for tests",
		check: lardertestIsForTests,
		bad:   []sample{{"internal/node/a.go:2", "-- internal/node/a.go --\npackage node\nimport _ \"larder/internal/lardertest\"\n"}},
		good: `
-- internal/node/a_test.go --
package node_test
import _ "larder/internal/lardertest"
-- bench/main.go --
package main
import _ "larder/internal/lardertest/origin"
`,
	},
	{
		name:  "the engine is behind front",
		check: engineIsBehindFront,
		bad:   []sample{{"only internal/node/front", "-- internal/node/a.go --\npackage node\nimport _ \"github.com/valyala/fasthttp/reuseport\"\n"}},
		good:  "-- internal/node/front/a.go --\npackage front\nimport _ \"github.com/valyala/fasthttp\"\n",
	},
	{
		name:  "packages are named after a job",
		check: packagesAreNamed,
		bad: []sample{
			{`package "util"`, "-- internal/util/a.go --\npackage util\n"},
			{`package "helpers"`, "-- internal/node/helpers/a.go --\npackage helpers\n"},
		},
		good: "-- internal/byterange/a.go --\npackage byterange\n",
	},
	{
		name:  "packages say what they are for",
		check: packagesSayWhatFor,
		bad: []sample{
			{"no package comment", "-- a.go --\npackage a\n"},
			{`begin "Package a "`, "-- a.go --\n// This is a package which does it all.\npackage a\n"},
			{`begin "Command larder "`, "-- cmd/larder/a.go --\n// Larder is where it all begins, and ends.\npackage main\n"},
			{"full sentence", "-- a.go --\n// Package a things\npackage a\n"},
			{"full sentence", "-- a.go --\n// Package a is it.\npackage a\n"},
			{"more than one file", "-- a.go --\n// Package a counts what is left over.\npackage a\n-- b.go --\n// Package a counts what is left over.\npackage a\n"},
		},
		good: `
-- cmd/larder/main.go --
// Command larder is the one binary: nodes, control plane and tools.
package main
-- cmd/larder/up.go --
package main
-- internal/a/a.go --
//go:build linux

// Package a brings missing chunks in, each of them once.
package a
-- internal/a/a_test.go --
package a_test
`,
	},
	{
		name:  "what goes round the house",
		check: forbiddenNames,
		bad: []sample{
			{"http.DefaultClient: ", "-- a.go --\npackage a\nimport \"net/http\"\nvar c = http.DefaultClient\n"},
			{"http.Get: ", "-- a.go --\npackage a\nimport web \"net/http\"\nvar c = web.Get\n"},
			{"http.ListenAndServe: ", "-- a.go --\npackage a\nimport \"net/http\"\nvar c = http.ListenAndServe\n"},
			{"os.Rename: ", "-- internal/node/a.go --\npackage a\nimport \"os\"\nfunc f() { os.Rename(\"a\", \"b\") }\n"},
			{"os.WriteFile: ", "-- internal/node/a.go --\npackage a\nimport \"os\"\nfunc f() { os.WriteFile(\"a\", nil, 0) }\n"},
			{"time.Sleep: ", "-- a_test.go --\npackage a\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"},
			{"an exception for a file that is not there", "-- repo_test.go --\npackage larder_test\n"},
			{"time.Sleep: ", "-- a.go --\npackage a\nimport \"time\"\nvar f = time.Sleep\n"},
		},
		good: `
-- internal/sys/durable/a.go --
package durable
import "os"
func f() { os.Rename("a", "b") }
-- internal/node/a_test.go --
package node
import ("os"; "time"; "testing/synctest"; "net/http")
var c = &http.Client{}
func f(t *testing.T) {
	os.WriteFile("a", nil, 0)
	synctest.Test(t, func(t *testing.T) { time.Sleep(time.Hour) })
}
`,
	},
	{
		name:  "nothing happens at import",
		check: nothingHappensAtImport,
		bad: []sample{
			{"init", "-- a.go --\npackage a\nfunc init() {}\n"},
			{"promauto", "-- a.go --\npackage a\nimport _ \"github.com/prometheus/client_golang/prometheus/promauto\"\n"},
		},
		good: "-- a.go --\npackage a\ntype t int\nfunc (t) init() {}\n",
	},
	{
		name:  "dependencies earn their place",
		check: dependenciesAreRecorded,
		bad: []sample{
			{"example.com/b has no line", "-- go.mod --\nmodule larder\nrequire (\n\texample.com/a v1.0.0\n\texample.com/b v1.0.0\n)\n-- docs/decisions/dependencies.md --\n| `example.com/a` | MIT |\n"},
			{"example.com/c has no line", "-- go.mod --\nmodule larder\nrequire example.com/c v1.0.0\n-- docs/decisions/dependencies.md --\nexample.com/c\n"},
			{"example.com/a is not in go.mod", "-- go.mod --\nmodule larder\n-- docs/decisions/dependencies.md --\n| `example.com/a` | MIT |\n"},
			{"internal/a/a.go:2: example.com/a is recorded for tests", "-- go.mod --\nmodule larder\nrequire example.com/a v1.0.0\n-- docs/decisions/dependencies.md --\n| `example.com/a` | MIT | it | why | tests, bench |\n-- internal/a/a.go --\npackage a\nimport _ \"example.com/a/sub\"\n"},
		},
		good: `
-- go.mod --
module larder
require example.com/z v1.0.0
require (
	example.com/a v1.0.0
	example.com/b/v2 v1.0.0 // indirect
)
-- docs/decisions/dependencies.md --
| module | licence | what for | why not ours | imported by |
|---|---|---|---|---|
| ` + "`example.com/a`" + ` | MIT | it | why | tests |
| ` + "`example.com/z`" + ` | MIT | it | why | node |
-- internal/a/a_test.go --
package a
import _ "example.com/a"
-- bench/a.go --
package main
import _ "example.com/a"
-- internal/a/a.go --
package a
import _ "example.com/z"
`,
	},
	{
		name:  "metrics are named alike",
		check: metricsAreNamed,
		bad: []sample{
			{"begin larder_fill_", "-- internal/node/fill/a.go --\npackage fill\nvar n = \"larder_store_fetched_bytes_total\"\n"},
			{"end in a unit", "-- internal/node/fill/a.go --\npackage fill\nvar n = \"larder_fill_fetched\"\n"},
			{"milliseconds", "-- internal/node/fill/a.go --\npackage fill\nvar n = \"larder_fill_wait_milliseconds\"\n"},
			{"begin larder_fill_", "-- internal/node/fill/a.go --\npackage fill\nvar n = \"larder_fill_total\"\n"},
			{"whole", "-- internal/node/fill/a.go --\npackage fill\nimport \"github.com/prometheus/client_golang/prometheus\"\nvar o = prometheus.CounterOpts{Namespace: \"larder\", Name: \"x_total\"}\n"},
		},
		good: "-- internal/node/fill/a.go --\npackage fill\nvar n, m, o = \"larder_fill_fetched_bytes_total\", \"larder_fill_readers\", \"Larder_x\"\n",
	},
}

var (
	// stages are the steps of a request, and the parts of a node that are kept
	// as ignorant of one another: only internal/node puts them together.
	stages = []string{"front", "catalog", "freshness", "store", "fill", "origin", "peer", "config", "accesslog"}

	// mayImport says which parts of internal/ a part may import besides itself
	// and the leaves. A part that is not named here is a leaf.
	mayImport = map[string][]string{
		"node":       {"fleet", "pki", "client"},
		"control":    {"fleet", "pki", "vault", "service"},
		"fleet":      {},
		"pki":        {},
		"vault":      {"pki"},
		"service":    {"pki"},
		"client":     {"fleet"},
		"lardertest": {"node", "control", "fleet", "pki", "vault", "service", "client"},
	}

	badPackageNames = []string{"util", "utils", "common", "types", "base", "helper", "helpers", "misc", "shared", "lib"}

	// metricUnits need a word before them that says what is measured;
	// metricThings are counted and may stand alone.
	metricUnits  = []string{"bytes", "seconds", "total", "ratio", "info", "timestamp_seconds", "bytes_per_second", "state"}
	metricThings = []string{"objects", "chunks", "connections", "requests", "runs", "flights", "readers", "waiters", "drives", "files", "publishers", "hosts", "origins", "minutes", "deliveries"}

	// metricParts are packages whose metrics have another name than they.
	metricParts = map[string]string{
		"caretaker": "tls", // what people look for: the state of HTTPS
	}

	// sleepers may call time.Sleep outside a synctest bubble; each with why.
	sleepers = map[string]string{}

	// undurable may rename and write files without internal/sys/durable.
	undurable = map[string]string{
		"internal/node/accesslog/rotate.go": "a log put aside is not state: nothing is read from it after a crash",
	}
)

func importsPointDown(t *tree) (findings []string) {
	for _, f := range t.files {
		for p, spec := range f.imports() {
			to := local(p)
			if to == "" {
				continue
			}
			if spec.Name != nil && spec.Name.Name == "." {
				findings = append(findings, fmt.Sprintf("%s: %s needs a name of its own here", t.at(spec.Pos()), to))
			}
			if why := forbiddenImport(f.dir, to); why != "" {
				findings = append(findings, fmt.Sprintf("%s: %s may not import %s: %s", t.at(spec.Pos()), f.dir, to, why))
			}
		}
	}
	return findings
}

// forbiddenImport returns why a package may not import another, or "".
// lardertest is left to its own rule.
func forbiddenImport(from, to string) string {
	if !within(from, "internal") || within(to, "internal/lardertest") || from == to {
		return ""
	}
	if !within(to, "internal") {
		return "imports point down"
	}
	fromPart, fromStage := part(from)
	toPart, toStage := part(to)
	switch {
	case fromPart == "node" && toPart == "control", fromPart == "control" && toPart == "node":
		return toPart + ": node and control meet only in fleet"
	case fromPart == "node" && toPart == "node":
		if slices.Contains(stages, fromStage) && fromStage != toStage {
			if toStage == "" {
				return "imports point down"
			}
			return "stages do not know each other"
		}
		return ""
	case fromPart == toPart:
		return ""
	}
	if _, toIsLeaf := mayImport[toPart]; !toIsLeaf {
		return ""
	}
	if slices.Contains(mayImport[fromPart], toPart) {
		return ""
	}
	return "imports point down, and this is beside or above"
}

// part cuts internal/PART/STAGE/… into its two names.
func part(dir string) (name, stage string) {
	fields := strings.Split(dir, "/")
	name = fields[1]
	if len(fields) > 2 {
		stage = fields[2]
	}
	return name, stage
}

func lardertestIsForTests(t *tree) (findings []string) {
	for _, f := range t.files {
		if f.test || within(f.dir, "internal/lardertest") || within(f.dir, "bench") {
			continue
		}
		for p, spec := range f.imports() {
			if within(local(p), "internal/lardertest") {
				findings = append(findings, fmt.Sprintf("%s: internal/lardertest is for tests and bench", t.at(spec.Pos())))
			}
		}
	}
	return findings
}

func engineIsBehindFront(t *tree) (findings []string) {
	for _, f := range t.files {
		if within(f.dir, "internal/node/front") {
			continue
		}
		for p, spec := range f.imports() {
			if within(p, "github.com/valyala/fasthttp") {
				findings = append(findings, fmt.Sprintf("%s: only internal/node/front may import fasthttp", t.at(spec.Pos())))
			}
		}
	}
	return findings
}

func packagesAreNamed(t *tree) (findings []string) {
	for _, f := range t.files {
		name := strings.TrimSuffix(f.pkg(), "_test")
		if slices.Contains(badPackageNames, name) {
			findings = append(findings, fmt.Sprintf("%s: package %q: name it after its job", f.path, name))
		}
	}
	return findings
}

func packagesSayWhatFor(t *tree) (findings []string) {
	comments := make(map[string][]string) // by directory
	names := make(map[string]string)
	for _, f := range t.files {
		if f.test {
			continue
		}
		names[f.dir] = f.pkg()
		if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
			comments[f.dir] = append(comments[f.dir], f.ast.Doc.Text())
		}
	}
	for dir, name := range names {
		begin := "Package " + name + " "
		if name == "main" && !(len(comments[dir]) == 1 && strings.HasPrefix(comments[dir][0], begin)) {
			begin = "Command " + path.Base(dir) + " "
		}
		switch c := comments[dir]; {
		case len(c) == 0:
			findings = append(findings, fmt.Sprintf("%s: no package comment", dir))
		case len(c) > 1:
			findings = append(findings, fmt.Sprintf("%s: more than one file has a package comment", dir))
		case !strings.HasPrefix(c[0], begin):
			findings = append(findings, fmt.Sprintf("%s: the package comment should begin %q", dir, begin))
		default:
			sentence := new(doc.Package).Synopsis(c[0])
			if !strings.HasSuffix(sentence, ".") || len(strings.Fields(sentence)) < 5 {
				findings = append(findings, fmt.Sprintf("%s: the package comment should be a full sentence, not %q", dir, sentence))
			}
		}
	}
	return findings
}

func forbiddenNames(t *tree) (findings []string) {
	seen := make(map[string]bool)
	for _, f := range t.files {
		seen[f.path] = true
		say := func(why string) func(token.Pos, string) {
			return func(pos token.Pos, name string) {
				findings = append(findings, fmt.Sprintf("%s: %s: %s", t.at(pos), name, why))
			}
		}
		f.mentions("net/http", []string{"DefaultClient"}, say("it has no time-out and is everybody's; make a client"))
		if !f.test {
			f.mentions("net/http", []string{"Get", "Head", "Post", "PostForm"}, say("it uses the default client, which has no time-out; make a client"))
		}
		if !f.test && f.dir != "internal/httpsrv" {
			f.mentions("net/http", []string{"ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS"}, say("use httpsrv.Serve: it bounds slow clients and ends with its context"))
		}
		if !f.test && f.dir != "internal/sys/durable" && !within(f.dir, "bench") && undurable[f.path] == "" {
			f.mentions("os", []string{"WriteFile", "Rename"}, say("use internal/sys/durable: a crash would leave half a file"))
		}
		// A file with synctest bubbles sleeps by their clock, in helpers too.
		if _, bubbles := f.imports()["testing/synctest"]; sleepers[f.path] == "" && !(f.test && bubbles) {
			f.mentions("time", []string{"Sleep"}, say("wait for what you wait for: a channel, a timer with a context, or a synctest bubble"))
		}
	}
	// An exception that outlives its file would wait for another of its name.
	for path := range undurable {
		if seen["repo_test.go"] && !seen[path] {
			findings = append(findings, path+": an exception for a file that is not there")
		}
	}
	for path := range sleepers {
		if seen["repo_test.go"] && !seen[path] {
			findings = append(findings, path+": an exception for a file that is not there")
		}
	}
	return findings
}

func nothingHappensAtImport(t *tree) (findings []string) {
	for _, f := range t.files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				findings = append(findings, fmt.Sprintf("%s: init: what a package needs is built by its caller", t.at(fn.Pos())))
			}
		}
		for p, spec := range f.imports() {
			if path.Base(p) == "promauto" {
				findings = append(findings, fmt.Sprintf("%s: promauto registers globally; take a prometheus.Registerer", t.at(spec.Pos())))
			}
		}
	}
	return findings
}

var (
	requireLine    = regexp.MustCompile(`^\s*(?:require\s+)?([a-z0-9.-]+\.[a-z]+/\S+)\s+v\S+\s*(// indirect)?$`)
	dependencyLine = regexp.MustCompile("^\\| `([^`]+)` \\|")
)

func dependenciesAreRecorded(t *tree) (findings []string) {
	const record = "docs/decisions/dependencies.md"
	direct, known := make(map[string]bool), make(map[string]bool)
	for line := range strings.Lines(t.text["go.mod"]) {
		if m := requireLine.FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
			known[m[1]] = true
			direct[m[1]] = m[2] == ""
		}
	}
	testOnly := make(map[string]bool) // recorded modules; true: for tests and bench
	for line := range strings.Lines(t.text[record]) {
		m := dependencyLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		by := strings.FieldsFunc(cells[len(cells)-1], func(r rune) bool { return r == ',' || r == ' ' })
		testOnly[m[1]] = !slices.ContainsFunc(by, func(s string) bool { return s != "tests" && s != "bench" })
		if !known[m[1]] {
			findings = append(findings, fmt.Sprintf("%s: %s is not in go.mod", record, m[1]))
		}
	}
	for module := range direct {
		if _, ok := testOnly[module]; direct[module] && !ok {
			findings = append(findings, fmt.Sprintf("go.mod: %s has no line in %s", module, record))
		}
	}
	for _, f := range t.files {
		if f.test || within(f.dir, "bench") || within(f.dir, "internal/lardertest") {
			continue
		}
		for p, spec := range f.imports() {
			for module, only := range testOnly {
				if only && within(p, module) {
					findings = append(findings, fmt.Sprintf("%s: %s is recorded for tests and bench only", t.at(spec.Pos()), module))
				}
			}
		}
	}
	return findings
}

var metricName = regexp.MustCompile(`^larder_[a-z0-9_]+$`)

func metricsAreNamed(t *tree) (findings []string) {
	for _, f := range t.files {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Namespace" || key.Name == "Subsystem") && f.imports()["github.com/prometheus/client_golang/prometheus"] != nil {
					findings = append(findings, fmt.Sprintf("%s: write the metric's name whole in Name, so that it can be searched for", t.at(n.Pos())))
				}
			case *ast.BasicLit:
				name, err := strconv.Unquote(n.Value)
				if n.Kind != token.STRING || err != nil || !metricName.MatchString(name) {
					return true
				}
				part := cmp.Or(metricParts[f.pkg()], f.pkg())
				what, ok := strings.CutPrefix(name, "larder_"+part+"_")
				ends := func(u string) bool { return strings.HasSuffix(what, "_"+u) }
				switch {
				case !ok || slices.Contains(metricUnits, what):
					findings = append(findings, fmt.Sprintf("%s: %s should begin larder_%s_ and say what it measures before its unit", t.at(n.Pos()), name, part))
				case !slices.Contains(metricThings, what) && !slices.ContainsFunc(metricUnits, ends) && !slices.ContainsFunc(metricThings, ends):
					findings = append(findings, fmt.Sprintf("%s: %s should end in a unit (%s) or in what it counts (%s)", t.at(n.Pos()), name, strings.Join(metricUnits, ", "), strings.Join(metricThings, ", ")))
				}
			}
			return true
		})
	}
	return findings
}
