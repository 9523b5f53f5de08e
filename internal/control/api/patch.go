package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"larder/internal/control/route"
)

// field is a field of a merge patch: missing, null, or a value.
type field[T any] struct {
	Set   bool
	Value *T // nil: null
}

// UnmarshalJSON is only called for fields that are there.
func (f *field[T]) UnmarshalJSON(data []byte) error {
	f.Set = true
	return json.Unmarshal(data, &f.Value)
}

func (f field[T]) value() T {
	if f.Value == nil {
		var zero T
		return zero
	}
	return *f.Value
}

// mistakes are all that is wrong with a body.
type mistakes []route.Detail

func (m *mistakes) add(at, format string, args ...any) {
	*m = append(*m, route.Detail{Code: "InvalidParameter", Target: at, Message: at + ": " + fmt.Sprintf(format, args...)})
}

// err is nil, or an error with all of them, the first in front.
func (m mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	e := &route.Error{Status: http.StatusBadRequest, Code: m[0].Code, Target: m[0].Target, Message: m[0].Message}
	if len(m) > 1 {
		e.Message += fmt.Sprintf(" (and %d more)", len(m)-1)
		e.Details = m
	}
	return e
}
