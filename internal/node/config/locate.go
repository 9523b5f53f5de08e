package config

import (
	"errors"
	"os"
	"regexp"
	"strings"

	"larder/internal/strictyaml"
)

var findingOfField = regexp.MustCompile(`^([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*): (.+)$`)

// Locate gives findings about fields of a configuration, "drives[0].size: found
// …", the file and line of the field. Mistakes that have a place already, and
// what does not name a field, stay as they are.
func Locate(name string, err error) error {
	if err == nil {
		return nil
	}
	data, rerr := os.ReadFile(name)
	if rerr != nil {
		return err
	}
	doc, _ := strictyaml.Decode(name, data, &Config{})
	var all strictyaml.Mistakes
	var rest []error
	for _, e := range parts(err) {
		var ms strictyaml.Mistakes
		if errors.As(e, &ms) {
			all = append(all, ms...)
			continue
		}
		if m := findingOfField.FindStringSubmatch(e.Error()); m != nil && !strings.Contains(m[2], "\n") {
			all = append(all, strictyaml.Mistake{File: name, Line: doc.Line(m[1]), Field: m[1], Problem: m[2]})
			continue
		}
		rest = append(rest, e)
	}
	return errors.Join(append(rest, all.Err())...)
}

// parts takes joined errors apart.
func parts(err error) []error {
	j, ok := err.(interface{ Unwrap() []error })
	if _, placed := err.(strictyaml.Mistakes); !ok || placed {
		return []error{err}
	}
	var all []error
	for _, e := range j.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}
