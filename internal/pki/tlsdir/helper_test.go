package tlsdir

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/lardertest"
	"larder/internal/pki/livecert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is a TLS directory and an authority.
type lab struct {
	*Dir
	ca *lardertest.CA
}

func newLab(t *testing.T) *lab {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "tls"), "tester")
	if err != nil {
		t.Fatal(err)
	}
	return &lab{Dir: d, ca: lardertest.NewCA(t)}
}

// options are those of an administrator who gives the authority's root.
func (l *lab) options() ImportOptions {
	return ImportOptions{Standards: Standards{Given: []*x509.Certificate{l.ca.Cert}}}
}

// drop writes a certificate with its key in one file, as a PEM that somebody
// exported, and returns its path.
func (l *lab) drop(t *testing.T, name string, p lardertest.Pair) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, append(p.CertPEM, p.KeyPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (l *lab) mustImport(t *testing.T, name string) *Imported {
	t.Helper()
	done, err := l.Import(t.Context(), l.drop(t, name+".pem", l.ca.Leaf(t, "cache.example", "127.0.0.1")), l.options())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// run serves the directory as a node does, until the test ends.
func (l *lab) run(t *testing.T) *runner {
	t.Helper()
	cert, err := livecert.Open(l.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := l.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{cert: cert, serving: serving}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = cert.Run(ctx) })
	r.follow()
	wg.Go(func() {
		for {
			changed := cert.Changed()
			r.follow()
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		r.stop()
		if err := serving.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// runner is as much of a node as this package needs: a TLS listener that is
// open while there is a certificate.
type runner struct {
	cert    *livecert.Cert
	serving *Serving

	mu  sync.Mutex
	srv *http.Server // guarded by mu
	ln  net.Listener // guarded by mu
}

func (r *runner) follow() {
	if open := r.addr() != ""; open == r.cert.Has() {
		r.say()
		return
	} else if open {
		r.stop()
		r.say()
		return
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", r.cert.TLSConfig(nil))
	if err != nil {
		panic(err)
	}
	srv := &http.Server{}
	r.mu.Lock()
	r.ln, r.srv = ln, srv
	r.mu.Unlock()
	go func() { _ = srv.Serve(ln) }() // ends with stop
	r.say()
}

func (r *runner) say() {
	w := Where{HTTPS: []string{}, Configured: []string{"127.0.0.1:0"}, Version: "test"}
	if a := r.addr(); a != "" {
		w.HTTPS = append(w.HTTPS, a)
	}
	if err := r.serving.Say(w); err != nil {
		panic(err)
	}
}

func (r *runner) addr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ln == nil {
		return ""
	}
	return r.ln.Addr().String()
}

func (r *runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.srv != nil {
		_ = r.srv.Close() // what was open is not missed
	}
	r.srv, r.ln = nil, nil
}

// files is what lies in the directory, but for what may change on a failure:
// locks, logs and the word of where the node is.
func (l *lab) files(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := fs.WalkDir(os.DirFS(l.path), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(p, "logs/") || p == servingFile {
			return err
		}
		data, err := os.ReadFile(filepath.Join(l.path, p))
		all[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// shownAt is the certificate that a client gets.
func shownAt(t *testing.T, addr string) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	chain, err := fetchChain(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	return chain[0]
}

type certificate = x509.Certificate

// chainOf is the chain in use.
func (l *lab) chainOf(t *testing.T) []*certificate {
	t.Helper()
	chain, _, _, err := l.Active()
	if err != nil {
		t.Fatal(err)
	}
	return chain
}
