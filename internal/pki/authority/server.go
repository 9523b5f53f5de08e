package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/pki/enroll"
)

// Server keeps a server certificate of the authority fresh: its key is in
// memory alone, and it is signed anew at two thirds of its life, when another
// root signs, or when the names are others.
type Server struct {
	a     *Authority
	names func() []string
	life  time.Duration

	cur atomic.Pointer[serving]
	mu  sync.Mutex // held while a certificate is made
}

type serving struct {
	cert  *tls.Certificate
	root  []byte // DER
	names []string
	renew time.Time
}

// NewServer makes a Server for names, which may change. life 0 means
// ServerLife.
func NewServer(a *Authority, names func() []string, life time.Duration) *Server {
	if life == 0 {
		life = ServerLife
	}
	return &Server{a: a, names: names, life: life}
}

// GetCertificate is for tls.Config. It looks at the clock at each handshake, so
// that a machine that slept does not show a certificate that has expired.
func (s *Server) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.cur.Load(); s.fresh(c) {
		return c.cert, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cur.Load(); s.fresh(c) {
		return c.cert, nil
	}
	c, err := s.make()
	if err != nil {
		return nil, err
	}
	s.cur.Store(c)
	return c.cert, nil
}

func (s *Server) fresh(c *serving) bool {
	return c != nil && time.Now().Before(c.renew) && bytes.Equal(c.root, s.a.Roots()[0].Raw) && slices.Equal(c.names, s.names())
}

func (s *Server) make() (*serving, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	names := s.names()
	for {
		root := s.a.Roots()[0]
		issued, err := s.a.IssueServer(key.Public(), names, s.life, time.Now())
		if err != nil {
			return nil, err
		}
		if issued.Chain[0].CheckSignatureFrom(root) != nil {
			continue // another root took over in between
		}
		return &serving{
			cert: issued.TLSCertificate(key, root), root: root.Raw, names: slices.Clone(names),
			renew: enroll.RenewAt(issued.NotBefore, issued.NotAfter, issued.Serial),
		}, nil
	}
}
