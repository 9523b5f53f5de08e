package acme_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"larder/internal/httpsrv"
	"larder/internal/lardertest"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pebbleOptions changes how a CA behaves. The zero value is a friendly one.
type pebbleOptions struct {
	config            map[string]any // besides the ports and names of files
	env               []string       // such as PEBBLE_WFE_NONCEREJECT=50
	httpPort, tlsPort int            // where it looks for answers; 0: where nothing listens
	address           string         // where it listens; "": anywhere
	slow              bool           // validations take their time
}

// pebble is a running CA.
type pebble struct {
	URL     string // of its directory
	Address string
	Manage  string // https://…
	Root    *lardertest.CA
	Zone    *zone

	out  *output
	stop func()
}

// newPebble starts Let's Encrypt's test CA as a process of its own. It asks
// its own DNS server, where every name has the address 127.0.0.1.
func newPebble(t *testing.T, o pebbleOptions) *pebble {
	t.Helper()
	program := lardertest.Tool(t, lardertest.Pebble)
	p := &pebble{Root: lardertest.NewCA(t), Zone: newZone(t)}
	dir := t.TempDir()
	pair := p.Root.Leaf(t, "localhost", "127.0.0.1")
	writeFile(t, filepath.Join(dir, "cert.pem"), pair.CertPEM)
	writeFile(t, filepath.Join(dir, "key.pem"), pair.KeyPEM)
	for attempt := 1; ; attempt++ {
		p.Address = o.address
		if p.Address == "" {
			p.Address = freeAddress(t)
		}
		manage := freeAddress(t)
		p.URL, p.Manage = "https://"+p.Address+"/dir", "https://"+manage
		config := map[string]any{
			"listenAddress": p.Address, "managementListenAddress": manage,
			"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
			"httpPort": portOr(t, o.httpPort), "tlsPort": portOr(t, o.tlsPort), "keyAlgorithm": "ecdsa",
		}
		for k, v := range o.config {
			config[k] = v
		}
		text, err := json.Marshal(map[string]any{"pebble": config})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "config.json"), text)
		cmd := exec.Command(program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", p.Zone.Address)
		cmd.Env = append(os.Environ(), "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
		if !o.slow {
			cmd.Env = append(cmd.Env, "PEBBLE_VA_NOSLEEP=1")
		}
		cmd.Env = append(cmd.Env, o.env...)
		var ok bool
		p.out, p.stop, ok = start(t, cmd, p.Address, p.Root.Pool())
		if ok {
			return p
		}
		if attempt == 3 {
			t.Fatalf("pebble does not start:\n%s", p.out)
		}
	}
}

// start runs a server until the test ends, or stop, and waits until it shakes
// hands at address. It is false if the server ended by itself.
func start(t *testing.T, cmd *exec.Cmd, address string, roots *x509.CertPool) (out *output, stop func(), ok bool) {
	t.Helper()
	out = new(output)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), out)
		}
	})
	gone := false
	lardertest.Eventually(t, "a server at "+address, func() bool {
		select {
		case <-ended:
			gone = true
			return true
		default:
		}
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return out, stop, !gone
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln := listen(t)
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func portOr(t *testing.T, port int) int {
	if port != 0 {
		return port
	}
	return portOf(t, freeAddress(t))
}

// zone is a DNS server over TCP. Every name has one address; the TXT records
// of a name are the files of a directory with its name.
type zone struct {
	Dir     string
	Address string
}

func newZone(t *testing.T) *zone {
	t.Helper()
	ln := listen(t)
	z := &zone{Dir: t.TempDir(), Address: ln.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				for z.answer(conn) == nil {
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return z
}

// Resolver asks the zone.
func (z *zone) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", z.Address)
	}}
}

func (z *zone) answer(conn net.Conn) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	query := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return io.ErrUnexpectedEOF
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
	switch q.Type {
	case dnsmessage.TypeA:
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
	case dnsmessage.TypeTXT:
		for _, text := range z.TXT(strings.TrimSuffix(q.Name.String(), ".")) {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{text}}})
		}
	}
	reply, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...))
	return err
}

// TXT returns the records of a name.
func (z *zone) TXT(name string) (texts []string) {
	entries, _ := os.ReadDir(filepath.Join(z.Dir, name))
	for _, e := range entries {
		texts = append(texts, e.Name())
	}
	return texts
}

// front is what a node would be: servers of HTTP and TLS that ask a Memory.
type front struct {
	acme.Memory
	HTTPPort, TLSPort int
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := new(front)
	web, secure := listen(t), listen(t)
	f.HTTPPort, f.TLSPort = portOf(t, web.Addr().String()), portOf(t, secure.Addr().String())
	own := lardertest.NewCA(t).Leaf(t, "node.example").TLS
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.URL.Path, "/.well-known/acme-challenge/")
		answer, ok := f.HTTP(token)
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, answer)
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = httpsrv.Serve(ctx, web, h, nil) })
	running.Go(func() {
		_ = httpsrv.Serve(ctx, tls.NewListener(secure, &tls.Config{
			Certificates: []tls.Certificate{own}, NextProtos: []string{"http/1.1"}, GetConfigForClient: f.ConfigForClient,
		}), http.NotFoundHandler(), nil)
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return f
}

// ways answers challenges by f, in this order.
func (f *front) ways(kinds ...string) (ways []acme.Way) {
	for _, k := range kinds {
		ways = append(ways, acme.Way{Challenge: k, Solver: f})
	}
	return ways
}

func newSigner(t *testing.T, cfg acme.Config) *acme.Signer {
	t.Helper()
	if cfg.AccountKeyFile == "" {
		cfg.AccountKeyFile = filepath.Join(t.TempDir(), "credentials", "acme.key")
	}
	if cfg.Patience == 0 {
		cfg.Patience = 20 * time.Second
	}
	cfg.AgreeTerms = true
	s, err := acme.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// signerFor is a signer with f's ways, of the kinds given.
func signerFor(t *testing.T, p *pebble, f *front, kinds ...string) *acme.Signer {
	t.Helper()
	return newSigner(t, acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(kinds...)})
}

// request makes a key and a request for names, addresses where they are such.
func request(t *testing.T, names ...string) (csrDER []byte, key crypto.Signer) {
	t.Helper()
	key, err := keys.Generate(keys.EC, "")
	if err != nil {
		t.Fatal(err)
	}
	return requestFor(t, key, names...), key
}

func requestFor(t *testing.T, key crypto.Signer, names ...string) []byte {
	t.Helper()
	req := new(x509.CertificateRequest)
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			req.IPAddresses = append(req.IPAddresses, ip)
		} else {
			req.DNSNames = append(req.DNSNames, name)
		}
	}
	return create(t, req, key)
}

func create(t *testing.T, req *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// signed has a request for names signed and looks at what came.
func signed(t *testing.T, s *acme.Signer, names ...string) *signing.Current {
	t.Helper()
	csr, key := request(t, names...)
	return signedAgain(t, s, csr, key, nil, names...)
}

func signedAgain(t *testing.T, s *acme.Signer, csr []byte, key crypto.Signer, current *signing.Current, names ...string) *signing.Current {
	t.Helper()
	chain, err := s.Sign(t.Context(), csr, key, current)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	if len(chain) < 2 {
		t.Fatalf("a chain of %d; want the leaf and an intermediate", len(chain))
	}
	for _, name := range names {
		host := name
		if strings.HasPrefix(name, "*.") {
			host = "any" + name[1:]
		}
		if err := chain[0].VerifyHostname(host); err != nil {
			t.Errorf("the certificate does not cover %s: %v", name, err)
		}
	}
	if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
		t.Errorf("the chain does not hang together: %v", err)
	}
	if !keys.Same(chain[0].PublicKey, key.Public()) {
		t.Error("the certificate is for another key")
	}
	return &signing.Current{Chain: chain, Key: key}
}

// authority makes a root and an intermediate with its key, for CAs that want
// files.
func authority(t *testing.T) (root, intermediate *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	make := func(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		}
		if parent == nil {
			parent, signer = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	root, rootKey := make("Test root", nil, nil)
	intermediate, key = make("Test intermediate", root, rootKey)
	return root, intermediate, key
}
