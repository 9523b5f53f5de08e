package httpsrv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
)

// Error is an error that knows its answer. The client reads Message, the log
// gets Err.
type Error struct {
	Status  int    // HTTP status, 400 to 599
	Message string // one plain sentence for the client; empty: the status's name
	Err     error  // the cause, for the log; may be nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%d %s: %v", e.Status, e.message(), e.Err)
	}
	return fmt.Sprintf("%d %s", e.Status, e.message())
}

func (e *Error) Unwrap() error { return e.Err }

func (e *Error) message() string {
	if e.Message == "" {
		return http.StatusText(e.Status)
	}
	return e.Message
}

// HandlerFunc answers a request, or says what stopped it.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Handle turns what h returns into an answer, and is the only place that does:
//
//   - an *Error anywhere in the chain decides status and words;
//   - a body over its http.MaxBytesReader is 413;
//   - a client that went away gets nothing and is not an error;
//   - everything else is 500 without details.
//
// The answer is JSON, {"error":{"code":"NotFound","message":"…"}}, for clients
// that ask for it with Accept, else text. Causes are logged: 5xx as errors,
// the others at debug level. When the head is already out the connection is
// cut, so that nobody takes the part for the whole. Panics are treated as by
// Recover. A nil log discards.
func Handle(log *slog.Logger, h HandlerFunc) http.Handler {
	log = orDiscard(log)
	return Recover(log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := record(w)
		err := h(rec, r)
		if err == nil {
			return
		}
		if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
			log.DebugContext(r.Context(), "client went away", "method", r.Method, "path", r.URL.Path)
			panic(http.ErrAbortHandler)
		}
		e := answer(err)
		level := slog.LevelDebug
		if e.Status >= 500 {
			level = slog.LevelError
		}
		log.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.URL.Path, "status", e.Status, "err", err)
		if rec.Status != 0 {
			panic(http.ErrAbortHandler) // the head is out: cut
		}
		writeError(rec, r, e)
	}))
}

func answer(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if e.Status < 400 || e.Status > 599 {
			return &Error{Status: http.StatusInternalServerError, Err: err}
		}
		return e
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Error{
			Status:  http.StatusRequestEntityTooLarge,
			Message: fmt.Sprintf("The body of the request is over %d bytes.", tooLarge.Limit),
			Err:     err,
		}
	}
	return &Error{Status: http.StatusInternalServerError, Err: err}
}

// Recover answers 500 when next panics, and logs what it was and where. If the
// head is out it cuts the connection instead. http.ErrAbortHandler passes.
func Recover(log *slog.Logger, next http.Handler) http.Handler {
	log = orDiscard(log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := record(w)
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler)
			}
			log.ErrorContext(r.Context(), "panic in a handler", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			if rec.Status != 0 {
				panic(http.ErrAbortHandler)
			}
			writeError(rec, r, &Error{Status: http.StatusInternalServerError})
		}()
		next.ServeHTTP(rec, r)
	})
}

func writeError(w http.ResponseWriter, r *http.Request, e *Error) {
	h := w.Header()
	// What was meant for the good answer must not describe this one.
	for _, name := range []string{"Content-Length", "Content-Encoding", "Content-Range", "Content-Disposition", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	var body []byte
	if wantsJSON(r.Header.Values("Accept")) {
		h.Set("Content-Type", "application/json")
		var v struct {
			Error struct {
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		}
		v.Error.Code = code(e.Status)
		v.Error.Message = e.message()
		body, _ = json.Marshal(v) // two strings: cannot fail
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(e.message())
	}
	w.WriteHeader(e.Status)
	// A client that does not read its error needs no second one.
	_, _ = w.Write(append(body, '\n'))
}

// code names a status the way machines compare it: 404 is NotFound.
func code(status int) string {
	name := strings.NewReplacer(" ", "", "-", "", "'", "").Replace(http.StatusText(status))
	if name == "" {
		return "Status" + strconv.Itoa(status)
	}
	return name
}

// wantsJSON reports whether a client names JSON in Accept (RFC 9110, 12.5.1),
// and likes it at least as much as text. */* alone is a person with curl.
func wantsJSON(accept []string) bool {
	var jsonQ, textQ float64
	for _, field := range accept {
		for item := range strings.SplitSeq(field, ",") {
			mediaType, params, _ := strings.Cut(item, ";")
			q := 1.0
			for param := range strings.SplitSeq(params, ";") {
				if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(param)), "q="); ok {
					if f, err := strconv.ParseFloat(v, 64); err == nil {
						q = f
					}
				}
			}
			switch mediaType = strings.ToLower(strings.TrimSpace(mediaType)); {
			case mediaType == "application/json", mediaType == "application/*",
				strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json"):
				jsonQ = max(jsonQ, q)
			case strings.HasPrefix(mediaType, "text/"):
				textQ = max(textQ, q)
			}
		}
	}
	return jsonQ > 0 && jsonQ >= textQ
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
