package route

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"larder/internal/httpsrv"
)

// Error is an error that knows its answer, in ARM's words. The client reads all
// but Err, the log gets that.
type Error struct {
	Status  int
	Code    string // PascalCase, one that clients may decide on
	Message string
	Target  string // the field it is about: "properties.cacheNode.autoUpdateRingType"
	Details []Detail
	Err     error
}

// Detail is one of several mistakes.
type Detail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Target  string `json:"target,omitempty"`
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%d %s: %s: %v", e.Status, e.Code, e.Message, e.Err)
	}
	return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

// Envelope is how an error looks on the wire.
type Envelope struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody is ARM's description of an error.
type ErrorBody struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Target  string   `json:"target,omitempty"`
	Details []Detail `json:"details,omitempty"`
}

// Body is the description of e.
func (e *Error) Body() ErrorBody { return ErrorBody{e.Code, e.Message, e.Target, e.Details} }

// NotFound says that a resource is not there.
func NotFound(what string) *Error {
	return &Error{Status: http.StatusNotFound, Code: "ResourceNotFound", Message: what + " was not found."}
}

// Invalid says what is wrong with one field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: "InvalidParameter", Target: field, Message: field + ": " + fmt.Sprintf(format, args...)}
}

func statusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return http.StatusInternalServerError
}

// Handle turns what h returns into an answer: an *Error, or an *httpsrv.Error
// or a body that was too large, in ARM's envelope; what has no place there is
// 500 without its details, which are logged. Panics and clients that left are
// treated as httpsrv.Handle does.
func Handle(log *slog.Logger, h httpsrv.HandlerFunc) http.Handler {
	return httpsrv.Handle(log, func(w http.ResponseWriter, r *http.Request) error {
		err := h(w, r)
		if err == nil {
			return nil
		}
		var e *Error
		var he *httpsrv.Error
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &e):
		case errors.As(err, &large):
			e = &Error{Status: http.StatusRequestEntityTooLarge, Code: "RequestBodyTooLarge", Message: fmt.Sprintf("The body is larger than %d bytes.", large.Limit)}
		case errors.As(err, &he):
			e = &Error{Status: he.Status, Code: strings.ReplaceAll(http.StatusText(he.Status), " ", ""), Message: he.Message, Err: he.Err}
		default:
			return err
		}
		if rec, ok := w.(*httpsrv.Recorder); ok && rec.Status != 0 {
			return err // the head is out
		}
		if e.Status >= 500 {
			log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "status", e.Status, "err", err)
		} else {
			log.DebugContext(r.Context(), "request refused", "method", r.Method, "path", r.URL.Path, "status", e.Status, "err", err)
		}
		w.Header().Set("X-Ms-Error-Code", e.Code)
		return JSON(w, e.Status, Envelope{e.Body()})
	})
}

// JSON writes v as the answer.
func JSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_, err = w.Write(append(b, '\n'))
	return err
}

// MaxBody is the most that ReadJSON reads, in bytes.
const MaxBody = 1 << 20

// ReadJSON reads the body of a request into v. Fields that v does not have are
// an error if strict, and ignored otherwise.
func ReadJSON(w http.ResponseWriter, r *http.Request, v any, strict bool) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	if strict {
		d.DisallowUnknownFields()
	}
	err := d.Decode(v)
	if err == nil {
		_, err := d.Token()
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			return err
		case !errors.Is(err, io.EOF):
			return &Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body holds more than one JSON document."}
		}
		return nil
	}
	var large *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &large):
		return err
	case errors.As(err, &kind):
		return &Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Target: kind.Field,
			Message: fmt.Sprintf("%s: found a JSON %s, expected %s.", cmp.Or(kind.Field, "the body"), kind.Value, jsonName(kind.Type.Kind().String())), Err: err}
	case errors.Is(err, io.EOF):
		return &Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body is empty; a JSON object was expected.", Err: err}
	}
	return &Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body is not the JSON expected: " + strings.TrimPrefix(err.Error(), "json: ") + ".", Err: err}
}

// jsonName is the word for a Go kind that people who write JSON know.
func jsonName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "string":
		return "a string"
	case kind == "slice", kind == "array":
		return "an array"
	}
	return "an object"
}

func unescape(s string) (string, error) { return url.PathUnescape(s) }
