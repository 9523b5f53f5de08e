package cachetests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// An edition is a state of the suite.
type edition struct {
	name              string
	failing           string // the file with the tests that may fail, and why
	engine            string // where its programs lie
	judge             string // what says what a result means
	required, optimal int    // how many must pass: no fewer than passed when this was written
}

// published is the newest one on npm.
var published = edition{"http-cache-tests@0.4.5", "failing.txt", ".", "./lib/display.mjs", 142, 77}

// newest is the state of github.com/http-tests/cache-tests of July 2026, which is
// not on npm.
var newest = edition{"http-tests/cache-tests", "failing-newest.txt", "test-engine", "./test-engine/lib/results.mjs", 159, 96}

func TestMain(m *testing.M) { lardertest.Main(m) }

// A test of the suite, with what became of it.
type outcome struct {
	Kind   string `json:"kind"`   // required, optimal or check
	Result string `json:"result"` // the suite's word: pass, fail, optional_fail, yes, no, …
	Name   string `json:"name"`
	Said   any    `json:"said"`
}

// TestSuite is a minute of mostly waiting: freshness is counted in seconds.
func TestSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the suite waits for a minute")
	}
	t.Parallel()
	needNode(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"name": "run", "private": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	install(t, dir, published.name)
	published.holds(t, filepath.Join(dir, "node_modules", "http-cache-tests"))
}

// TestNewestSuite is TestSuite with a clone of the suite's repository.
func TestNewestSuite(t *testing.T) {
	clone := os.Getenv("LARDER_CACHE_TESTS")
	if clone == "" {
		t.Skip("the newest state of the suite is not on npm; LARDER_CACHE_TESTS=DIR names a clone of github.com/http-tests/cache-tests")
	}
	t.Parallel()
	needNode(t)
	dir := filepath.Join(t.TempDir(), "suite")
	if err := os.CopyFS(dir, os.DirFS(clone)); err != nil {
		t.Fatal(err)
	}
	install(t, dir, "--omit=dev")
	newest.holds(t, dir)
}

func needNode(t *testing.T) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s on this machine to run the suite with", program)
		}
	}
}

// holds runs the suite that lies in dir against a node.
func (e *edition) holds(t *testing.T, dir string) {
	t.Helper()
	origin := e.serve(t, dir)
	n := lardertest.StartNode(t, lardertest.NodeConfig{Files: map[string]string{"catalog.d/suite.yaml": fmt.Sprintf(`
name: suite
default: true
freshness: standard
origin: {scheme: http, address: %q}
`, origin)}})
	out := run(t, dir, []string{"npm_config_base=http://" + n.HTTP, "npm_package_config_id="}, "node", "--no-warnings", e.engine+"/cli.mjs")
	results := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(results, out, 0o600); err != nil {
		t.Fatal(err)
	}
	judge := run(t, dir, nil, "node", "--no-warnings", "--input-type=module", "-e", strings.ReplaceAll(judgement, "$JUDGE", e.judge), results)
	all := map[string]outcome{}
	if err := json.Unmarshal(judge, &all); err != nil {
		t.Fatalf("%v in %s", err, judge)
	}
	listed := e.mayFail(t)
	passed, of := map[string]int{}, map[string]int{}
	for id, o := range all {
		of[o.Kind]++
		ok := o.Result == "pass" || o.Result == "yes"
		if ok {
			passed[o.Kind]++
		}
		switch {
		case o.Kind == "check": // a question, not a demand
		case ok && listed[id] != "":
			t.Errorf("%s passes: take it out of %s", id, e.failing)
		case !ok && listed[id] == "":
			t.Errorf("%s (%s): %s: %s, %v", id, o.Kind, o.Result, o.Name, o.Said)
		}
		delete(listed, id)
	}
	for id := range listed {
		t.Errorf("%s has %s, which is no test of %s", e.failing, id, e.name)
	}
	for _, k := range []string{"required", "optimal", "check"} {
		t.Logf("%s: %d of %d", k, passed[k], of[k])
	}
	if passed["required"] < e.required || passed["optimal"] < e.optimal {
		t.Errorf("expected at least %d required and %d optimal", e.required, e.optimal)
	}
}

// judgement has the suite itself say what the results mean.
const judgement = `
import fs from 'fs'
import tests from './tests/index.mjs'
import { determineTestResult } from '$JUDGE'
const results = JSON.parse(fs.readFileSync(process.argv[1]))
const words = { '✅': 'pass', '⛔️': 'fail', '⚠️': 'optional_fail', Y: 'yes', N: 'no', '🔹': 'setup_fail', '⁉️': 'harness_fail', '⚪️': 'dependency_fail', '↻': 'retry', '-': 'untested' }
const all = {}
for (const suite of tests) {
  for (const test of suite.tests) {
    if (test.browser_only) continue
    all[test.id] = { kind: test.kind || 'required', name: test.name, said: results[test.id], result: words[determineTestResult(tests, test.id, results)[2]] }
  }
}
console.log(JSON.stringify(all))
`

// mayFail reads the edition's list: ids with the reasons why they may fail.
func (e *edition) mayFail(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(e.failing)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, why, _ := strings.Cut(line, " ")
		if why = strings.TrimSpace(why); len(why) < 20 {
			t.Errorf("%s: %s has no reason", e.failing, id)
		}
		all[id] = why
	}
	return all
}

// install has npm fetch what packages name, from the registry it is configured for.
func install(t *testing.T, dir string, packages ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", append([]string{"install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"}, packages...)...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		for _, sign := range []string{"ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH", "E404", "E403"} {
			if bytes.Contains(out, []byte(sign)) {
				t.Skipf("%s could not be fetched: %.500s", packages, out)
			}
		}
		t.Fatalf("npm install %s: %v\n%s", packages, err, out)
	}
}

var listening = regexp.MustCompile(`Listening on http://.*:(\d+)/`)

// serve starts the suite's origin and returns its address.
func (e *edition) serve(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("node", "--no-warnings", e.engine+"/server/server.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "npm_config_protocol=http", "npm_config_port=0", "npm_config_pidfile="+filepath.Join(dir, "pid"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go func() { // until the process ends: nobody else reads what it says
				for lines.Scan() {
				}
			}()
			return "127.0.0.1:" + m[1]
		}
	}
	t.Fatalf("the suite's origin did not start: %v", lines.Err())
	return ""
}

// run runs a program of the suite and returns its output.
func run(t *testing.T, dir string, env []string, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, append(os.Environ(), env...), 5*time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args[0], err, stderr.Bytes())
	}
	return out
}
