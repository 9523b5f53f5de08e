package roster

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"larder/internal/fleet"
)

// Difference is one field in which two documents differ.
type Difference struct {
	Path    string          `json:"path"` // drives[0].size
	Running json.RawMessage `json:"running,omitempty"`
	Desired json.RawMessage `json:"desired,omitempty"`
}

// Diff says in which fields two documents differ, besides their number, in the
// order of the fields' paths. A field that only one has is missing in the other.
func Diff(running, desired *fleet.Desired) ([]Difference, error) {
	a, err := plain(running)
	if err != nil {
		return nil, err
	}
	b, err := plain(desired)
	if err != nil {
		return nil, err
	}
	for _, k := range []string{"number", "protocol"} {
		delete(a, k)
		delete(b, k)
	}
	ds := []Difference{}
	err = compare("", a, b, &ds)
	return ds, err
}

func plain(d *fleet.Desired) (map[string]any, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(text, &m)
}

func compare(path string, a, b any, ds *[]Difference) error {
	if reflect.DeepEqual(a, b) {
		return nil
	}
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		keys := maps.Clone(x)
		maps.Copy(keys, y)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			at := k
			if path != "" {
				at = path + "." + k
			}
			if err := compare(at, x[k], y[k], ds); err != nil {
				return err
			}
		}
		return nil
	case []any:
		y, ok := b.([]any)
		if !ok {
			break
		}
		for i := range max(len(x), len(y)) {
			if err := compare(fmt.Sprintf("%s[%d]", path, i), at(x, i), at(y, i), ds); err != nil {
				return err
			}
		}
		return nil
	}
	d := Difference{Path: path}
	var err error
	if a != nil {
		if d.Running, err = json.Marshal(a); err != nil {
			return err
		}
	}
	if b != nil {
		if d.Desired, err = json.Marshal(b); err != nil {
			return err
		}
	}
	*ds = append(*ds, d)
	return nil
}

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}
