package node

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"larder/internal/byterange"
	"larder/internal/node/accesslog"
	"larder/internal/node/catalog"
	"larder/internal/node/fill"
	"larder/internal/node/freshness"
	"larder/internal/node/front"
	"larder/internal/node/store"
)

// how says where an answer came from, for Cache-Status, counters and the log.
type how string

const (
	hit         how = "hit"
	miss        how = "miss"
	partial     how = "partial" // some of it was stored
	revalidated how = "revalidated"
	stale       how = "stale"
	passed      how = "pass"
	refused     how = "refused"
	failed      how = "error"
)

// A job is one request on its way through the node. It is its answer's body too.
type job struct {
	n      *Node
	x      *front.Exchange
	method string
	get    func(name string) string // x.Get; belongs to the job, not to the request
	target string
	asked  asked
	match  *catalog.Match // nil: not served
	key    string         // what is looked for is under; that of match, or of a variant

	obj     *store.Object // retained
	meta    *store.Meta
	content *fill.Content // to be closed; nil when everything is stored
	res     *resource     // what content was asked for with

	how  how
	fwd  string // why the origin was asked, one of freshness.Forward…; "": nothing was stored
	mime string // of an answer in several parts
	ttl  time.Duration
	err  error

	shared bool // the request upstream was another's, too

	request freshness.Request // see conditions

	// The body: one part, or several with their heads.
	parts   []part
	one     [1]part
	part    int
	headed  bool // the current part's own head has been sent
	reader  *fill.Reader
	scratch *[]byte // where bytes go that are not in the file yet
	primed  bool    // first holds the first piece
	first   front.Piece
	closing []byte

	sent    int64 // bytes of pieces before the current one
	current front.Piece
	missed  int64 // bytes of the body that were fetched for this request
	relayed io.ReadCloser
}

// A part is one range of an answer, with what stands before it.
type part struct {
	head []byte
	r    byterange.Range
}

var jobs = sync.Pool{New: func() any {
	j := new(job)
	j.get = func(name string) string { return j.x.Get(name) }
	return j
}}

// scratches hold bytes on their way from a fetch to a client.
var scratches = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// letGo releases what an attempt held.
func (j *job) letGo() {
	if j.reader != nil {
		j.reader.Close()
		j.reader = nil
	}
	if j.content != nil {
		j.content.Close()
		j.content = nil
	}
	if j.obj != nil {
		j.obj.Release()
		j.obj = nil
	}
	if j.scratch != nil {
		scratches.Put(j.scratch)
		j.scratch = nil
	}
	j.meta, j.res, j.parts, j.part, j.headed, j.primed, j.closing = nil, nil, nil, 0, false, false, nil
	j.how, j.mime, j.shared = "", "", false
}

// Close ends the body; what it held is kept until done.
func (j *job) Close() {
	if j.relayed != nil {
		j.relayed.Close()
		j.relayed = nil
	}
}

// done is told what became of the answer.
func (j *job) done(x *front.Exchange, out front.Outcome) {
	var pe *fs.PathError
	if errors.As(out.Err, &pe) && j.obj != nil && j.current.File != nil {
		// The drive could not give these bytes; they are fetched again.
		j.obj.Failed((j.current.Off+max(out.Bytes-j.sent, 0))/store.ChunkSize, out.Err)
	}
	if out.Err != nil && j.err == nil {
		j.err = out.Err
	}
	j.n.stats.answered(j, out)
	if j.n.access != nil {
		j.log(x, out)
	}
	j.letGo()
	*j = job{get: j.get}
	jobs.Put(j)
}

// log writes the access record.
func (j *job) log(x *front.Exchange, out front.Outcome) {
	path, query := j.asked.path, j.asked.query
	if path == "" {
		path, query, _ = strings.Cut(j.target, "?") // it could not be read as a target
	}
	rec := accesslog.Record{
		Time: x.Start, Remote: x.Remote().Addr(), Method: j.method, Scheme: j.asked.scheme, Host: j.asked.host,
		Path: path, Query: query, Status: out.Status, Bytes: out.Bytes, Duration: out.Duration, TTFB: out.FirstByte,
		CacheStatus: accesslog.CacheStatus(j.how), Upstream: j.missed, Range: x.Get("Range"), UserAgent: x.Get("User-Agent"),
	}
	if j.match != nil {
		rec.Publisher, rec.ContentType = j.match.Publisher.Name, j.match.Publisher.ContentType
	}
	if j.err != nil {
		rec.Err = j.err.Error()
	}
	j.n.access.Write(&rec)
}
