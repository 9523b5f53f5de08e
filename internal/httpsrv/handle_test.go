package httpsrv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"larder/internal/httpsrv"
)

func TestErrorsBecomeAnswers(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk on fire")
	tests := []struct {
		name   string
		err    error
		accept string
		status int
		body   string
		logged string // level and cause; empty: nothing at info or above
	}{
		{"typed", &httpsrv.Error{Status: 404, Message: "No such object.", Err: cause}, "", 404, "No such object.\n", ""},
		{"wrapped", fmt.Errorf("listing: %w", &httpsrv.Error{Status: 409, Message: "Busy."}), "*/*", 409, "Busy.\n", ""},
		{"no message", &httpsrv.Error{Status: 404}, "", 404, "Not Found\n", ""},
		{"unknown", cause, "", 500, "Internal Server Error\n", "level=ERROR msg=\"request failed\" method=GET path=/x status=500 err=\"disk on fire\""},
		{"5xx", &httpsrv.Error{Status: 503, Message: "Try later.", Err: cause}, "", 503, "Try later.\n", "503 Try later.: disk on fire"},
		{"status that is no error", &httpsrv.Error{Status: 200, Err: cause}, "", 500, "Internal Server Error\n", "disk on fire"},
		{"body too large", &http.MaxBytesError{Limit: 10}, "", 413, "The body of the request is over 10 bytes.\n", ""},
		{"json", &httpsrv.Error{Status: 404, Message: `No "x".`}, "application/json", 404, `{"error":{"code":"NotFound","message":"No \"x\"."}}` + "\n", ""},
		{"json by suffix", &httpsrv.Error{Status: 405}, "application/problem+json", 405, `{"error":{"code":"MethodNotAllowed","message":"Method Not Allowed"}}` + "\n", ""},
		{"json liked less", &httpsrv.Error{Status: 404}, "text/html, application/json;q=0.5", 404, "Not Found\n", ""},
		{"json refused", &httpsrv.Error{Status: 404}, "application/json; q=0", 404, "Not Found\n", ""},
		{"a status without a name", &httpsrv.Error{Status: 499}, "application/json", 499, `{"error":{"code":"Status499","message":""}}` + "\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			h := httpsrv.Handle(slog.New(slog.NewTextHandler(&logged, nil)), func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("Content-Length", "12345")
				w.Header().Set("ETag", `"of the good answer"`)
				return tt.err
			})
			r := httptest.NewRequest("GET", "/x", nil)
			r.Header.Set("Accept", tt.accept)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
			for _, name := range []string{"Content-Length", "ETag"} {
				if v := w.Header().Get(name); v != "" {
					t.Errorf("%s of the good answer left: %s", name, v)
				}
			}
			if tt.logged == "" && logged.Len() > 0 || !strings.Contains(logged.String(), tt.logged) {
				t.Errorf("logged %q, want %q", logged.String(), tt.logged)
			}
			if strings.Contains(w.Body.String(), "fire") {
				t.Error("the client was told the cause")
			}
		})
	}
}

func TestGoodAnswerIsUntouched(t *testing.T) {
	t.Parallel()
	h := httpsrv.Handle(nil, func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusCreated)
		_, err := io.WriteString(w, "made")
		return err
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("PUT", "/", nil))
	if w.Code != 201 || w.Body.String() != "made" {
		t.Errorf("got %d %q, want 201 made", w.Code, w.Body)
	}
}

// A part must never be taken for the whole: over the wire, trouble after the
// head is a broken connection, whatever stopped the handler.
func TestTroubleAfterTheHeadCuts(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func() error{
		"error": func() error { return errors.New("disk gone") },
		"panic": func() error { panic("bug") },
		"abort": func() error { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(httpsrv.Handle(nil, func(w http.ResponseWriter, r *http.Request) error {
				_, _ = io.WriteString(w, "half")
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Errorf("flush through the recorder: %v", err)
				}
				return stop()
			}))
			defer srv.Close()
			resp, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if string(body) != "half" || err == nil {
				t.Errorf("got %q and error %v, want half and a broken body", body, err)
			}
		})
	}
}

func TestPanicIs500WithLog(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	h := httpsrv.Recover(slog.New(slog.NewTextHandler(&logged, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("the bug")
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/there", nil))
	if w.Code != 500 || w.Body.String() != "Internal Server Error\n" {
		t.Errorf("got %d %q, want 500 without details", w.Code, w.Body)
	}
	for _, want := range []string{"the bug", "path=/there", "handle_test.go"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("log lacks %q: %s", want, logged.String())
		}
	}
}

func TestClientThatLeftIsNoError(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	h := httpsrv.Handle(slog.New(slog.NewTextHandler(&logged, nil)), func(w http.ResponseWriter, r *http.Request) error {
		return fmt.Errorf("reading: %w", r.Context().Err())
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("got panic %v, want http.ErrAbortHandler", v)
		}
		if logged.Len() > 0 || w.Body.Len() > 0 {
			t.Errorf("logged %q and answered %q, want nothing", logged.String(), w.Body)
		}
	}()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
}
