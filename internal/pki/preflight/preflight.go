// Package preflight looks, before anything is changed, whether HTTPS can work
// on this node: its version, its port, its names, what lies between it and a
// client, its clock, its files and its TLS.
package preflight

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Result is how a check came out.
type Result string

// The results. Failed means that HTTPS cannot work as things are, Warning that
// clients may be lost, now or later; Info and Skipped are no verdict.
const (
	OK      Result = "ok"
	Info    Result = "info"
	Skipped Result = "skipped"
	Warning Result = "warning"
	Failed  Result = "failed"
)

// worse is the graver of two results.
func worse(a, b Result) Result {
	order := []Result{OK, Skipped, Info, Warning, Failed}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// Check is one thing that was looked at. ID is its kind, one of the constants
// below; several checks may have the same, and Title tells them apart.
type Check struct {
	ID     string `json:"id"`
	Title  string `json:"title"`
	Result Result `json:"result"`
	Found  string `json:"found"` // what is so; may have several lines
	Why    string `json:"why"`   // why it matters
	Do     string `json:"do"`    // what to do, may have several lines; "" if nothing
}

// The kinds of checks, in the order of the report. There is one of each but
// IDPort, one for each listener, IDIntercept, one for each way that was tried,
// and IDTime, which is there if Options.TimeURL is.
const (
	IDVersion     = "version"
	IDPort        = "port"
	IDNames       = "names"
	IDIntercept   = "intercept"
	IDClient      = "client"
	IDClock       = "clock"
	IDTime        = "time"
	IDFiles       = "files"
	IDCertificate = "certificate"
	IDWaiting     = "waiting"
	IDChain       = "chain"
	IDTLS         = "tls"
)

// Options say what to look at. Only Dir must be set.
type Options struct {
	Dir   string    // the TLS directory
	HTTPS []string  // listen.https of the configuration, host:port each
	Names []string  // host names and addresses that clients are told to use
	Node  NodeState // what a running node says of itself

	Version    string // of this program
	MinVersion string // the least version of a node that can do HTTPS; "" any

	// Seen is what a client saw: a thumbprint (SHA-1 or SHA-256, spelt as any
	// program prints it), or text with a certificate in PEM. "": nobody looked.
	Seen string

	Connect []string // more host:port to look at as a client does
	Port    int      // the port that clients come to; 0: 443
	TimeURL string   // an HTTP server whose Date to compare the clock with; "": none

	Proxy    func(*url.URL) (*url.URL, error)           // nil: the environment's
	Resolver *net.Resolver                              // nil: the system's
	Holder   func(addr string) (text string, err error) // who holds a port; nil: nobody can tell
	Roots    *x509.CertPool                             // what clients trust; nil: the system's
	Now      func() time.Time                           // nil: time.Now

	machine *machine // tests; nil: ask the system
}

// NodeState is what a running node says of itself.
type NodeState struct {
	Running      bool
	Version      string
	HTTPS        []string // addresses that are really open
	ServedSHA256 string   // of the certificate that it shows; "" none
	Account      string   // that it runs under; "" unknown
}

// serves reports whether the node has a certificate in use.
func (n NodeState) serves() bool { return n.Running && (n.ServedSHA256 != "" || len(n.HTTPS) > 0) }

func (o Options) withDefaults() Options {
	if o.Port == 0 {
		o.Port = 443
	}
	if o.Proxy == nil {
		o.Proxy = func(u *url.URL) (*url.URL, error) { return http.ProxyFromEnvironment(&http.Request{URL: u}) }
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.machine == nil {
		o.machine = thisMachine()
	}
	return o
}

// Bounds of what waits for others.
const (
	lookupTime = 3 * time.Second  // one lookup of a name
	fetchTime  = 5 * time.Second  // one connection with its handshake
	allFetches = 15 * time.Second // all of them
	atOnce     = 16               // so many at the same time
)

// Run makes all checks and returns them in an order that does not change. It
// mostly takes less than a second, and some twenty at most. It leaves nothing
// behind. While it runs it holds the ports that are free, and if the node
// serves nothing yet, shows whoever comes to them a certificate that exists
// only for that time: so what lies between is seen before there is a real one.
func Run(ctx context.Context, o Options) []Check {
	o = o.withDefaults()
	ports, held := portChecks(ctx, o)
	defer held.close()

	var version, clock, clockByHTTP, files, certificate, waiting, chain []Check
	var active activePair
	var names []Name
	var wg sync.WaitGroup
	wg.Go(func() { names = findNames(ctx, o) })
	wg.Go(func() { clockByHTTP = timeChecks(ctx, o) })
	wg.Go(func() {
		version = []Check{versionCheck(o)}
		files = []Check{filesCheck(o)}
		active = readActive(o.Dir)
		certificate = []Check{certificateCheck(o, active)}
		waiting = []Check{waitingCheck(o)}
		chain = []Check{chainCheck(o, active)}
		clock = []Check{clockCheck(o, active)}
	})
	wg.Wait()

	var stack, client, intercept []Check
	var reached map[string]bool
	ctx, cancel := context.WithTimeout(ctx, allFetches)
	defer cancel()
	wg.Go(func() { stack = []Check{tlsCheck(ctx, o, ports)} })
	wg.Go(func() {
		ref := findReference(ctx, o, active, held)
		client = []Check{clientCheck(o, names, ref)}
		intercept, reached = interceptChecks(ctx, o, names, ref)
	})
	wg.Wait()
	return slices.Concat(version, checksOf(ports), []Check{namesCheck(names, reached)}, intercept, client, clock, clockByHTTP,
		files, certificate, waiting, chain, stack)
}

// someAtOnce calls do for 0 to n-1, and returns when all have returned.
func someAtOnce(n int, do func(i int)) {
	var wg sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			do(i)
			<-turns
		})
	}
	wg.Wait()
}
