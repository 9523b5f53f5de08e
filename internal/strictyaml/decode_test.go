package strictyaml_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"larder/internal/lardertest/golden"
	"larder/internal/strictyaml"
)

// verbs is a union as a caller writes one: "any" or a list.
type verbs []string

func (verbs) Expected() string { return "any or a list" }

func (v *verbs) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		if n.Value != "any" {
			return fmt.Errorf("found %q, expected any or a list", n.Value)
		}
		*v = nil
		return nil
	}
	return strictyaml.DecodeNode(n, (*[]string)(v))
}

type limit struct {
	Rate strictyaml.Rate `yaml:"rate"`
	Days []string        `yaml:"days"`
}

type common struct {
	Level string `yaml:"level"`
}

type config struct {
	Log    common                `yaml:",inline"`
	Name   string                `yaml:"name"`
	Hosts  []string              `yaml:"hosts"`
	Size   strictyaml.Bytes      `yaml:"size"`
	Every  strictyaml.Duration   `yaml:"every"`
	Wait   time.Duration         `yaml:"wait"`
	On     bool                  `yaml:"on"`
	Port   uint16                `yaml:"port"`
	Level8 int8                  `yaml:"level8"`
	Ratio  float64               `yaml:"ratio"`
	Limit  *limit                `yaml:"limit"`
	Limits map[string]limit      `yaml:"limits"`
	ByAddr map[netip.Addr]string `yaml:"by_addr"`
	Verbs  verbs                 `yaml:"verbs"`
	Addr   netip.AddrPort        `yaml:"addr"`
	Extra  any                   `yaml:"extra"`
}

func TestDecodeReadsEveryType(t *testing.T) {
	t.Parallel()
	const file = `# a comment
level: info
name: a
hosts: [b, "*.c"]
size: 1.5GB
every: 7d
wait: 1d12h
on: true
port: 8443
level8: -128
ratio: 1
limit: {rate: 200MBit, days: [mon]}
limits:
  a.b: {rate: 25MB/s}
by_addr: {10.0.0.1: x}
verbs: [GET, HEAD]
addr: "[::1]:80"
extra: [1, {a: b}]
`
	var got config
	doc, err := strictyaml.Decode("f.yaml", []byte(file), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Log: common{Level: "info"}, Name: "a", Hosts: []string{"b", "*.c"}, Size: 1_500_000_000,
		Every: strictyaml.Duration(7 * 24 * time.Hour), Wait: 36 * time.Hour, On: true, Port: 8443, Level8: -128, Ratio: 1,
		Limit:  &limit{Rate: 25_000_000, Days: []string{"mon"}},
		Limits: map[string]limit{"a.b": {Rate: 25_000_000}},
		ByAddr: map[netip.Addr]string{netip.MustParseAddr("10.0.0.1"): "x"},
		Verbs:  verbs{"GET", "HEAD"},
		Addr:   netip.MustParseAddrPort("[::1]:80"),
		Extra:  []any{1, map[string]any{"a": "b"}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("Decode (-want +got):\n%s", diff)
	}
	for field, line := range map[string]int{
		"hosts": 4, "hosts[1]": 4, "limit.rate": 12, "limit.nothing": 12, `limits["a.b"]`: 14, `limits["a.b"].rate`: 14, "absent": 2, "": 2,
	} {
		if got := doc.Line(field); got != line {
			t.Errorf("Line(%q) = %d, want %d", field, got, line)
		}
	}
	if !doc.Has("limit.rate") || doc.Has("limit.nothing") {
		t.Error("Has does not tell what the file sets")
	}
}

// TestMistakes decodes each file of testdata/bad; beside it lies what must be said.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d files (%v), expected the fixtures", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c config
			doc, err := strictyaml.Decode(filepath.Base(file), data, &c)
			if doc == nil {
				t.Fatal("no document")
			}
			var m strictyaml.Mistakes
			if !errors.As(err, &m) {
				t.Fatalf("error is %v, want Mistakes", err)
			}
			golden.Check(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func TestBytesThatAreNotText(t *testing.T) {
	t.Parallel()
	deep := "extra: " + strings.Repeat("[", 200) + strings.Repeat("]", 200)
	deeper := "extra: " + strings.Repeat("[", 20000)
	for name, c := range map[string]struct{ data, want string }{
		"empty":        {"", `f: the file is empty; expected fields such as "name: value"`},
		"comment only": {"# nothing\n", `f: the file is empty; expected fields such as "name: value"`},
		"marker only":  {"---\n", `f: the file is empty; expected fields such as "name: value"`},
		"null":         {"~\n", "f:1: is empty; expected a mapping (fields below it), or remove the line"},
		"not utf-8":    {"name: a\nhosts: [\xff]\n", "f:2: is not UTF-8 text; save the file as UTF-8"},
		"utf-16":       {"\xff\xfen\x00a\x00", "f:1: is not UTF-8 text; save the file as UTF-8"},
		"control":      {"name: a\n\x00", "f:2: holds the control character U+0000; remove it"},
		"deep":         {deep, "f:1: lists and mappings lie more than 32 deep in one another"},
		"deeper":       {deeper, "f:1: lists and mappings lie more than 32 deep in one another"},
		"two":          {"name: a\n---\nname: b\n", "f:2: a second document starts here; keep one document per file (remove the --- line)"},
		"two, broken":  {"name: a\n---\n]\n", "f:3: is not valid YAML: did not find expected node content"},
		"tab":          {"limit:\n\trate: 1\n", "f:2: indentation must be spaces, not tabs, and text with special characters must be in quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := strictyaml.Decode("f", []byte(c.data), &config{})
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			// A file that could not be read has no fields to complain about.
			doc.Add("name", "must be set")
			if name != "null" && len(doc.Mistakes()) != 1 {
				t.Errorf("mistakes after Add: %v", doc.Mistakes())
			}
		})
	}
}

func TestAddTellsTheLineAndSparesWhatIsWrongAlready(t *testing.T) {
	t.Parallel()
	const file = "name: a\nhosts: x\nlimt:\n  rate: 1\nextra:\n  - b\n  - c\nlimits:\n  x: {rate: 5}\n  xy: {rate: 0}\n"
	doc, _ := strictyaml.Decode("f", []byte(file), &config{})
	doc.Add("size", "must be set")
	doc.Add("hosts", "must be set")      // dropped: it is set, to the wrong thing
	doc.Add("limit.rate", "must be set") // dropped: limt was meant
	doc.Add("extra[1]", "is %s", "bad")
	doc.Add("limits.x", "must limit something") // dropped: it does, to something unreadable
	doc.Add("limits.xy", "must limit something")
	const want = `f:1: size: must be set
f:2: hosts: found the text "x", expected a list; put it in [brackets]
f:3: limt: unknown field; did you mean limit?
f:7: extra[1]: is bad
f:9: limits.x.rate: "5" has an unknown unit; expected a rate such as 200Mbit/s or 25MB/s
f:10: limits.xy: must limit something`
	if got := doc.Err().Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestMistakesAreSortedAcrossFiles(t *testing.T) {
	t.Parallel()
	m := strictyaml.Mistakes{{"b", 1, "", "x"}, {"a", 2, "f", "x"}, {"a", 1, "", "x"}, {"", 3, "", "x"}, {"c", 0, "f", "x"}}
	const want = "line 3: x\na:1: x\na:2: f: x\nb:1: x\nc: f: x"
	if got := m.Err().Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if err := (strictyaml.Mistakes{}).Err(); err != nil {
		t.Errorf("no mistakes give the error %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("extra: {a: [b, {c: 1.5}]}\n? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		doc, err := strictyaml.Decode("f", data, &c)
		lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) +
			bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029")) + 1
		for _, m := range doc.Mistakes() {
			if m.Line < 0 || m.Line > lines+1 {
				t.Errorf("line %d of %d: %v", m.Line, lines, m)
			}
			if m.Problem == "" || strings.ContainsAny(m.Field+m.Problem, "\n\x00") {
				t.Errorf("problem %q", m.Problem)
			}
		}
		if (err == nil) != (len(doc.Mistakes()) == 0) {
			t.Errorf("error %v with mistakes %v", err, doc.Mistakes())
		}
	})
}
