package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds how deep lists and mappings may lie in one another. No
// configuration comes near it; a file that does is an attack or an accident.
const maxDepth = 32

// parse turns the bytes into the one root node, or returns nil with the reason
// among the mistakes.
func (d *Document) parse(data []byte) *yaml.Node {
	fatal := func(line int, format string, args ...any) *yaml.Node {
		d.fatal = true
		d.wrong(line, "", format, args...)
		return nil
	}
	if line, problem := badText(data); problem != "" {
		return fatal(line, "%s", problem)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || (err == nil && (len(doc.Content) == 0 || isBareNull(doc.Content[0]))) {
		return fatal(0, "the file is empty; expected fields such as \"name: value\"")
	}
	if err != nil {
		line, problem := syntax(err, data)
		return fatal(line, "%s", problem)
	}
	switch err := dec.Decode(&next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		line, problem := syntax(err, data)
		return fatal(line, "%s", problem)
	default:
		return fatal(next.Line, "a second document starts here; keep one document per file (remove the --- line)")
	}
	root := doc.Content[0]
	if line, problem := tooDeep(root, 0); problem != "" {
		return fatal(line, "%s", problem)
	}
	return root
}

// isBareNull reports whether a document holds nothing at all, such as one
// that consists of comments.
func isBareNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && n.Value == ""
}

// badText finds what no text file holds: bytes that are not UTF-8, and control
// characters.
func badText(data []byte) (line int, problem string) {
	line = 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return line, "is not UTF-8 text; save the file as UTF-8"
		case r == '\n':
			line++
		case r < 0x20 && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85:
			return line, fmt.Sprintf("holds the control character U+%04X; remove it", r)
		}
		i += size
	}
	return 0, ""
}

// tooDeep returns the line where nesting passes maxDepth.
func tooDeep(n *yaml.Node, depth int) (line int, problem string) {
	if depth > maxDepth {
		return n.Line, fmt.Sprintf("lists and mappings lie more than %d deep in one another", maxDepth)
	}
	for _, c := range n.Content {
		if line, problem := tooDeep(c, depth+1); problem != "" {
			return line, problem
		}
	}
	return 0, ""
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntax turns an error of the YAML parser into a line and words that say
// what to do.
func syntax(err error, data []byte) (line int, problem string) {
	problem = strings.TrimPrefix(err.Error(), "yaml: ")
	line = 1
	if m := yamlLine.FindStringSubmatch(problem); m != nil {
		line, _ = strconv.Atoi(m[1])
		problem = problem[len(m[0]):]
		// The scanner counts from 1, the parser above it from 0.
		if parserProblem(problem) {
			line++
		}
	}
	switch {
	case strings.Contains(problem, "did not find expected alphabetic or numeric character"):
		return line, "text that begins with * or & must be in quotes, such as \"*.example.com\""
	case strings.HasPrefix(problem, "unknown anchor"):
		name, _, _ := strings.Cut(strings.TrimPrefix(problem, "unknown anchor '"), "'")
		if i := bytes.Index(data, []byte("*"+name)); i >= 0 {
			line = 1 + bytes.Count(data[:i], []byte("\n"))
		}
		return line, fmt.Sprintf("text that begins with * must be in quotes: \"*%s\"", name)
	case strings.Contains(problem, "exceeded max depth"):
		return line, fmt.Sprintf("lists and mappings lie more than %d deep in one another", maxDepth)
	case strings.Contains(problem, "cannot start any token") || strings.Contains(problem, "tab character"):
		return line, "indentation must be spaces, not tabs, and text with special characters must be in quotes"
	case strings.Contains(problem, "mapping values are not allowed"):
		return line, "unexpected \":\"; check the indentation, and put text that contains \": \" in quotes"
	}
	return line, "is not valid YAML: " + problem
}

// parserProblem reports whether a message comes from the YAML parser rather
// than from its scanner; the two count lines differently.
func parserProblem(problem string) bool {
	for _, p := range []string{
		"did not find expected <", "did not find expected node content", "did not find expected '-' indicator",
		"did not find expected key", "did not find expected ',' or", "found undefined tag handle",
		"found duplicate %", "found incompatible YAML document",
	} {
		if strings.HasPrefix(problem, p) {
			return true
		}
	}
	return false
}

// survey records where every field stands, and the mistakes that have nothing
// to do with types: anchors, tags, keys that are not text, keys given twice.
// It removes from the tree what must not be decoded.
func (d *Document) survey(n *yaml.Node, path string, line int) {
	if _, ok := d.lines[path]; !ok {
		d.lines[path] = line
	}
	switch {
	case n.Kind == yaml.AliasNode:
		d.wrong(n.Line, path, "anchors and aliases (&%s, *%s) are not supported; write the value out, or put text that begins with * in quotes", n.Value, n.Value)
		return
	case n.Anchor != "":
		d.wrong(n.Line, path, "anchors (&%s) are not supported; write the value out, or put text that begins with & in quotes", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		d.wrong(n.Line, path, "tags (%s) are not supported; put text that begins with ! in quotes", strings.Trim(strconv.Quote(n.Tag), `"`))
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, c := range n.Content {
			d.survey(c, join(path, "["+strconv.Itoa(i)+"]"), c.Line)
		}
	case yaml.MappingNode:
		n.Content = d.surveyFields(n.Content, path)
	}
}

// surveyFields surveys the pairs of a mapping and returns those worth decoding.
func (d *Document) surveyFields(pairs []*yaml.Node, path string) []*yaml.Node {
	kept := make([]*yaml.Node, 0, len(pairs))
	first := make(map[string]int, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		k, v := pairs[i], pairs[i+1]
		if k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 {
			d.wrong(k.Line, path, "a field name must be plain text, found %s", describe(k))
			continue
		}
		field := join(path, step(k.Value))
		if line, ok := first[k.Value]; ok {
			d.wrong(k.Line, field, "is given twice, first in line %d; keep one", line)
			continue
		}
		first[k.Value] = k.Line
		kept = append(kept, k, v)
		d.survey(v, field, k.Line)
	}
	return kept
}

// step is a field name as it stands in a path.
func step(name string) string {
	quoted := strconv.Quote(name)
	if name == "" || strings.ContainsAny(name, ".[] ") || quoted[1:len(quoted)-1] != name {
		return "[" + quoted + "]"
	}
	return name
}
