package est

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

// TestRedirects: within its origin a server is followed, with everything;
// nothing goes anywhere else.
func TestRedirects(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	csr, key := request(t, keys.EC, host)
	for _, test := range []struct {
		name          string
		caCerts, post int
		elsewhere     bool
		words         []string // none: a certificate
		refused       bool
	}{
		{"found", http.StatusFound, 0, false, nil, false},
		{"see other", http.StatusSeeOther, 0, false, nil, false},
		{"temporary", http.StatusTemporaryRedirect, http.StatusTemporaryRedirect, false, nil, false},
		{"permanent", http.StatusMovedPermanently, http.StatusPermanentRedirect, false, nil, false},
		{"a POST that would be a GET", 0, http.StatusFound, false, []string{"EST simpleenroll", "302", "/new/simpleenroll", "307 or 308"}, false},
		{"elsewhere", 0, http.StatusTemporaryRedirect, true, []string{"EST simpleenroll", "307", "/new/simpleenroll", "another server"}, true},
		{"elsewhere at once", http.StatusFound, 0, true, []string{"EST cacerts", "302", "/new/cacerts", "another server"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			to := ""
			if test.elsewhere {
				to = listen(t, c.hierarchy, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another server was asked") }), nil)
			}
			move := func(operation string, status int, next http.HandlerFunc) http.HandlerFunc {
				if status == 0 {
					return next
				}
				return func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", to+"/new/"+operation)
					w.WriteHeader(status)
				}
			}
			caCerts := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(c.root.Raw) }
			enrol := func(w http.ResponseWriter, r *http.Request) {
				name, word, _ := r.BasicAuth()
				body, err := io.ReadAll(r.Body)
				if name != user || word != password || len(body) == 0 || err != nil || r.Header.Get("Content-Type") != "application/pkcs10" {
					t.Errorf("%q, %d bytes, %v, %v", name, len(body), err, r.Header)
				}
				_, _ = w.Write(c.leaf(t, parse(t, csr), nil).Raw)
			}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /.well-known/est/cacerts", move("cacerts", test.caCerts, caCerts))
			mux.HandleFunc("POST /.well-known/est/simpleenroll", move("simpleenroll", test.post, enrol))
			mux.HandleFunc("GET /new/cacerts", caCerts)
			mux.HandleFunc("POST /new/simpleenroll", enrol)
			chain, err := signer(t, Config{URL: listen(t, c.hierarchy, mux, nil), Roots: c.pool(), User: user, Password: password}).Sign(t.Context(), csr, key, nil)
			if test.words == nil {
				if err != nil || len(chain) == 0 {
					t.Error(err)
				}
				return
			}
			wantWords(t, err, test.words...)
			if signing.IsRefused(err) != test.refused {
				t.Errorf("%v: refused %v", err, !test.refused)
			}
		})
	}
}

func TestRedirectsEnd(t *testing.T) {
	t.Parallel()
	c := newHierarchy(t)
	asked := 0 // by one after the other
	url := listen(t, c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	}), nil)
	_, err := signer(t, Config{URL: url, Roots: c.pool()}).CACerts(t.Context())
	if err == nil || !strings.Contains(err.Error(), "307") || signing.IsRefused(err) || asked != mostRedirects+1 {
		t.Errorf("%v after %d questions", err, asked)
	}
}
