package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Decode reads one YAML document into v, a pointer to a struct whose fields
// carry yaml tags ("name", ",inline", "-"). It is strict: unknown fields,
// fields given twice, values of the wrong type, anchors, tags and second
// documents are mistakes, and all of them are reported, not the first. What
// could be read is in v nevertheless, so that a validator can go on and Add its
// findings; the document is never nil, and the error is its Err().
//
// Fields may be strings, booleans, numbers, slices, maps with string keys,
// structs, pointers to those (nil when absent or empty), time.Duration (as
// Duration reads it), types with UnmarshalText (from any single value), and
// types with UnmarshalYAML(*yaml.Node) error, which may call DecodeNode: that is
// how "any | [GET, HEAD]" is read. A type may have Expected() string, which
// messages use to say what belongs there: "a size such as 500GB".
//
// Empty files are mistakes. Values are only quoted in messages where they are
// not likely to be secrets.
func Decode(file string, data []byte, v any) (*Document, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		panic(fmt.Sprintf("strictyaml: Decode needs a pointer, not %T", v))
	}
	d := &Document{file: file, lines: make(map[string]int), bad: make(map[string]bool)}
	if root := d.parse(data); root != nil {
		d.survey(root, "", root.Line)
		d.value(root, rv.Elem(), "")
	}
	return d, d.Err()
}

// DecodeNode reads one node as strictly as Decode. It is for UnmarshalYAML of
// types that take several shapes: the Mistakes it returns carry field paths
// relative to the node, and Decode puts the node's own path before them.
func DecodeNode(n *yaml.Node, v any) error {
	d := &Document{lines: make(map[string]int), bad: make(map[string]bool)}
	d.value(n, reflect.ValueOf(v).Elem(), "")
	return d.Err()
}

var durationType = reflect.TypeFor[time.Duration]()

// value decodes n into v, which is settable.
func (d *Document) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return // survey has said so
	}
	if v.Kind() == reflect.Pointer {
		if isNull(n) {
			v.SetZero()
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, v.Elem(), path)
		return
	}
	if isNull(n) && v.Kind() != reflect.Interface {
		d.wrong(n.Line, path, "is empty; expected %s, or remove the line", expected(v.Type()))
		return
	}
	switch u := v.Addr().Interface().(type) {
	case yaml.Unmarshaler:
		d.custom(n, path, u.UnmarshalYAML(n))
		return
	case encoding.TextUnmarshaler:
		if n.Kind != yaml.ScalarNode {
			d.mismatch(n, v.Type(), path)
		} else {
			d.custom(n, path, u.UnmarshalText([]byte(n.Value)))
		}
		return
	}
	if v.Type() == durationType {
		var t Duration
		if n.Kind != yaml.ScalarNode {
			d.mismatch(n, reflect.TypeFor[Duration](), path)
		} else {
			d.custom(n, path, t.UnmarshalText([]byte(n.Value)))
			v.SetInt(int64(t))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Interface:
		var x any
		if err := n.Decode(&x); err != nil {
			d.wrong(n.Line, path, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		} else if x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		d.scalar(n, v, path)
	}
}

// custom records the error of a type's own reading of n.
func (d *Document) custom(n *yaml.Node, path string, err error) {
	var inner Mistakes
	switch {
	case err == nil:
	case errors.As(err, &inner):
		for _, m := range inner {
			d.wrong(m.Line, join(path, m.Field), "%s", m.Problem)
		}
	default:
		d.wrong(n.Line, path, "%s", err)
	}
}

func (d *Document) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, v.Type(), path)
		return
	}
	fields := make(map[string]reflect.Value)
	var names []string
	collect(v, fields, &names)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		field := join(path, step(k.Value))
		if f, ok := fields[k.Value]; ok {
			d.value(c, f, field)
			continue
		}
		near := nearest(k.Value, names)
		if near == "" {
			d.wrong(k.Line, field, "unknown field; known here: %s", strings.Join(names, ", "))
			continue
		}
		d.wrong(k.Line, field, "unknown field; did you mean %s?", near)
		// What is meant is there, so nobody need say that it is missing.
		d.bad[join(path, near)] = true
	}
}

// collect gathers the fields of a struct by their names in the file.
func collect(v reflect.Value, fields map[string]reflect.Value, names *[]string) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, opt, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case slices.Contains(strings.Split(opt, ","), "inline"):
			collect(v.Field(i), fields, names)
		default:
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			fields[name] = v.Field(i)
			*names = append(*names, name)
		}
	}
}

func (d *Document) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.mismatch(n, v.Type(), path)
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		d.value(c, s.Index(i), join(path, "["+strconv.Itoa(i)+"]"))
	}
	v.Set(s)
}

func (d *Document) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, v.Type(), path)
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		field := join(path, step(k.Value))
		key := reflect.New(v.Type().Key()).Elem()
		if u, ok := key.Addr().Interface().(encoding.TextUnmarshaler); ok {
			if err := u.UnmarshalText([]byte(k.Value)); err != nil {
				d.wrong(k.Line, field, "%s", err)
				continue
			}
		} else {
			key.SetString(k.Value)
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(c, e, field)
		m.SetMapIndex(key, e)
	}
	v.Set(m)
}

func (d *Document) scalar(n *yaml.Node, v reflect.Value, path string) {
	tag := n.ShortTag()
	ok := false
	switch {
	case n.Kind != yaml.ScalarNode:
	case v.Kind() == reflect.String:
		// A date is text to us; a number is not, because what YAML makes of
		// 1.10 or 0x10 is not what was written.
		if ok = tag != "!!int" && tag != "!!float" && tag != "!!bool"; ok {
			v.SetString(n.Value)
		}
	case v.Kind() == reflect.Bool:
		var b bool
		if ok = tag == "!!bool" && n.Decode(&b) == nil; ok {
			v.SetBool(b)
		}
	case v.CanInt():
		var x int64
		if ok = tag == "!!int" && n.Decode(&x) == nil && !v.OverflowInt(x); ok {
			v.SetInt(x)
		}
	case v.CanUint():
		var x uint64
		if ok = tag == "!!int" && n.Decode(&x) == nil && !v.OverflowUint(x); ok {
			v.SetUint(x)
		}
	case v.CanFloat():
		var x float64
		if ok = (tag == "!!int" || tag == "!!float") && n.Decode(&x) == nil && !v.OverflowFloat(x); ok {
			v.SetFloat(x)
		}
	default:
		panic(fmt.Sprintf("strictyaml: cannot decode into %s", v.Type()))
	}
	if !ok {
		d.mismatch(n, v.Type(), path)
	}
}

// mismatch records that n has the wrong shape for t, and what to do.
func (d *Document) mismatch(n *yaml.Node, t reflect.Type, path string) {
	hint := ""
	switch {
	case n.Kind == yaml.ScalarNode && t.Kind() == reflect.String:
		hint = "; put it in quotes"
	case n.Kind == yaml.ScalarNode && t.Kind() == reflect.Slice:
		hint = "; put it in [brackets]"
	}
	d.wrong(n.Line, path, "found %s, expected %s%s", describe(n), expected(t), hint)
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// describe says in words what a node is. Text is quoted only when it is short
// and not likely to carry a password; numbers likewise.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping (fields below it)"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return n.Value
	case "!!int", "!!float":
		return "the number " + n.Value
	}
	if len(n.Value) > 40 || strings.ContainsAny(n.Value, "@=") {
		return "text"
	}
	return "the text " + strconv.Quote(n.Value)
}

// expected says in words what belongs into a type.
func expected(t reflect.Type) string {
	if t == durationType {
		t = reflect.TypeFor[Duration]()
	}
	p := reflect.New(t).Interface()
	if e, ok := p.(interface{ Expected() string }); ok {
		return e.Expected()
	}
	if _, ok := p.(encoding.TextUnmarshaler); ok {
		return "a single value"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct, reflect.Map:
		return "a mapping (fields below it)"
	case reflect.Slice:
		return "a list"
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int8, reflect.Int16, reflect.Int32:
		most := uint64(1)<<(t.Bits()-1) - 1
		return fmt.Sprintf("a whole number from -%d to %d", most+1, most)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<t.Bits()-1)
	case reflect.Uint, reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	}
	return "another value"
}
