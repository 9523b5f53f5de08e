// Package strictyaml reads configuration files a person wrote and names every
// mistake in them at once, with file, line and field.
package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong in a file.
type Mistake struct {
	File string
	Line int // counted from 1; 0: the file as a whole

	// Field is the path of the field, such as "hosts[1]" or "origin.address";
	// empty when no field can be named.
	Field string

	// Problem says what was found, what was expected and, where that helps,
	// what to do. Lower case, no full stop.
	Problem string
}

// Error returns "file.yaml:12: hosts[1]: problem"; what is not known is left out.
func (m Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		if b.Len() == 0 {
			b.WriteString("line ")
		} else {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%d", m.Line)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if m.Field != "" {
		b.WriteString(m.Field + ": ")
	}
	b.WriteString(m.Problem)
	return b.String()
}

// Mistakes are the mistakes of one or more files. As an error they are one
// per line.
type Mistakes []Mistake

// Error returns one mistake per line, sorted by file and line.
func (m Mistakes) Error() string {
	sorted := m.sorted()
	lines := make([]string, len(sorted))
	for i := range sorted {
		lines[i] = sorted[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns the mistakes sorted by file and line as an error, or nil when
// there are none. (A nil Mistakes put into an error directly would not be nil.)
func (m Mistakes) Err() error {
	if len(m) == 0 {
		return nil
	}
	return m.sorted()
}

func (m Mistakes) sorted() Mistakes {
	s := slices.Clone(m)
	slices.SortStableFunc(s, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return s
}

// Document is a file that was read: its mistakes so far, and where each field
// stands. Validators Add to it what decoding cannot know.
type Document struct {
	file     string
	lines    map[string]int  // field path → line of its key or list item
	bad      map[string]bool // field paths that already have a mistake
	fatal    bool            // nothing could be read: no finding about a field is worth saying
	mistakes Mistakes
}

// Add records a validator's finding at a field path such as "hosts[1]" or
// "origin.address". A field that is not in the file gets the line of the
// nearest field around it. A finding about a field that could not be decoded
// is dropped, and one about a field with such a field in it: it would be about
// a value nobody wrote.
func (d *Document) Add(field, format string, args ...any) {
	if d.fatal {
		return
	}
	for p := field; p != ""; p = parent(p) {
		if d.bad[p] {
			return
		}
	}
	for bad := range d.bad {
		if rest, ok := strings.CutPrefix(bad, field); ok && field != "" && (rest[0] == '.' || rest[0] == '[') {
			return
		}
	}
	d.mistakes = append(d.mistakes, Mistake{d.file, d.Line(field), field, fmt.Sprintf(format, args...)})
}

// Has reports whether the file sets the field.
func (d *Document) Has(field string) bool {
	_, ok := d.lines[field]
	return ok
}

// Line returns the line of a field, or that of the nearest field around it
// when it is not in the file; 0 when there is none.
func (d *Document) Line(field string) int {
	for p := field; p != ""; p = parent(p) {
		if line, ok := d.lines[p]; ok {
			return line
		}
	}
	return d.lines[""]
}

// File returns the name the document was decoded under.
func (d *Document) File() string { return d.file }

// Mistakes returns what is wrong so far, sorted.
func (d *Document) Mistakes() Mistakes { return d.mistakes.sorted() }

// Err returns the Mistakes found so far, or nil.
func (d *Document) Err() error { return d.mistakes.Err() }

// wrong records a mistake of decoding.
func (d *Document) wrong(line int, field, format string, args ...any) {
	d.bad[field] = true
	d.mistakes = append(d.mistakes, Mistake{d.file, line, field, fmt.Sprintf(format, args...)})
}

// parent cuts the last step off a field path: "a.b[1]" → "a.b" → "a" → "".
func parent(field string) string {
	if i := strings.LastIndexAny(field, ".["); i >= 0 {
		return field[:i]
	}
	return ""
}

// join puts a path below another: join("origin", "ca"), join("rules", "[1]").
func join(path, step string) string {
	if path == "" || step == "" || step[0] == '[' {
		return path + step
	}
	return path + "." + step
}
