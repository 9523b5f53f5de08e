package node

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"larder/internal/byterange"
	"larder/internal/node/catalog"
	"larder/internal/node/fill"
	"larder/internal/node/freshness"
	"larder/internal/node/front"
	"larder/internal/node/store"
)

// answer evaluates conditions and ranges against what was found and sends it.
// False: the content went away before its first byte; nothing was sent.
func (j *job) answer() bool {
	x, m := j.x, j.meta
	content := m.Status == http.StatusOK // conditions and ranges are of content (RFC 9110, 13.2.1 and 14.2)
	if content {
		switch freshness.Evaluate(j.conditions(), m.ETag, m.LastModified, j.date()) {
		case freshness.NotModified:
			j.came(0)
			j.fields(http.StatusNotModified)
			x.Head(http.StatusNotModified, -1)
			return true
		case freshness.PreconditionFailed:
			j.refuse(http.StatusPreconditionFailed, "The content is not the one that the request's conditions name.")
			return true
		}
	}
	size := m.Size
	if j.content != nil {
		size = j.content.Size()
	}
	if size < 0 {
		if j.content == nil {
			if !j.attach() {
				return false
			}
		}
		return j.answerGrowing()
	}
	status, length := m.Status, size
	if status == http.StatusNoContent {
		j.fields(status)
		x.Head(status, -1)
		return true
	}
	j.one[0] = part{r: byterange.Range{End: size}}
	j.parts = j.one[:]
	if v := x.Get("Range"); v != "" && content && j.method == http.MethodGet {
		if ir := x.Get("If-Range"); ir == "" || freshness.IfRange(ir, m.ETag, j.strongDate()) {
			var ok bool
			if status, length, ok = j.ranges(v, size); !ok {
				return true
			}
		}
	}
	if j.method == http.MethodHead {
		j.fields(status)
		x.Head(status, length)
		return true
	}
	j.came(j.parts[0].r.Start)
	if ok, done := j.prime(); !ok {
		return done
	}
	j.fields(status)
	if len(j.parts) == 1 && status == http.StatusPartialContent {
		var b [64]byte
		x.AddBytes("Content-Range", j.parts[0].r.AppendContentRange(b[:0], size))
	}
	x.Send(status, length, j)
	return true
}

// date is what may stand in for the Last-Modified of an answer to a standard
// publisher that has none: its Date (RFC 9111, 4.3.2).
func (j *job) date() string {
	if j.meta.LastModified != "" || j.match.Freshness != catalog.Standard || j.x.Get("If-Modified-Since") == "" {
		return ""
	}
	return j.stored().Header.Get("Date")
}

// strongDate is the Last-Modified that an If-Range may name: of a standard
// publisher's content, only one that tells two versions apart (RFC 9110, 8.8.2.2).
func (j *job) strongDate() string {
	if j.match.Freshness != catalog.Standard {
		return j.meta.LastModified
	}
	_, modified := freshness.StrongValidator(j.stored().Header)
	return modified
}

// ranges applies a Range field: one range is a 206, several are
// multipart/byteranges, none that lies inside is a 416. Overlapping ranges are
// sent once, so an answer is never larger than the content and its part heads.
func (j *job) ranges(v string, size int64) (status int, length int64, ok bool) {
	specs, valid := byterange.Parse(v)
	if !valid {
		return http.StatusOK, size, true // RFC 9110 14.2: ignored
	}
	rs := byterange.Resolve(specs, size)
	switch {
	case len(rs) == 0 || len(rs) > byterange.MaxSpecs:
		j.x.Add("Content-Range", byterange.Unsatisfied(size))
		j.refuse(http.StatusRequestedRangeNotSatisfiable, "No range asked for lies inside the content.")
		return 0, 0, false
	case len(rs) == 1:
		j.one[0] = part{r: rs[0]}
		j.parts = j.one[:]
		return http.StatusPartialContent, rs[0].Len(), true
	}
	boundary := newBoundary()
	kind := ""
	for _, f := range j.meta.Header {
		if f.Name == "Content-Type" {
			kind = "Content-Type: " + f.Value + "\r\n"
		}
	}
	j.parts = make([]part, len(rs))
	for i, r := range rs {
		lead := "\r\n--"
		if i == 0 {
			lead = "--"
		}
		head := lead + boundary + "\r\n" + kind + "Content-Range: " + r.ContentRange(size) + "\r\n\r\n"
		j.parts[i] = part{head: []byte(head), r: r}
		length += int64(len(head)) + r.Len()
	}
	j.closing = []byte("\r\n--" + boundary + "--\r\n")
	j.mime = "multipart/byteranges; boundary=" + boundary
	return http.StatusPartialContent, length + int64(len(j.closing)), true
}

// newBoundary returns what separates the parts of one answer. It must not
// occur in them, so it cannot be guessed by who wrote them.
func newBoundary() string {
	var b [18]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// prime makes sure that the first byte is there before the head goes out, so
// that trouble upstream is still a status. done: the request was answered.
func (j *job) prime() (ok, done bool) {
	if j.content == nil {
		if j.all(j.obj.Has) {
			return true, false
		}
		if !j.attach() {
			return false, false
		}
		if j.how == hit && !j.obj.Complete() && !j.all(j.content.Here) {
			j.how = partial
		}
	}
	if len(j.parts) == 1 && j.parts[0].r.Len() == 0 {
		return true, false
	}
	j.headed = true // the part's head is put back below
	p, err := j.next()
	j.headed = false
	if errors.Is(err, fill.ErrChanged) || errors.Is(err, store.ErrGone) {
		return false, false
	}
	if err != nil && err != io.EOF {
		j.fail(err)
		return false, true
	}
	j.primed, j.first = true, p
	if p.File == nil && len(j.parts) > 1 {
		j.first.Bytes = append([]byte(nil), p.Bytes...)
	}
	return true, false
}

// attach makes of the stored object content whose missing chunks are fetched.
// False: they cannot be had, because nothing binds them to those that are there
// and nobody is bringing them; the beginning of an answer that broke off is dropped.
func (j *job) attach() bool {
	strong := strongStored(policy(j.match.Freshness), j.meta)
	if strong == "" && !j.n.filler.Coming(j.key, j.obj.Generation()) && !j.obj.Complete() {
		j.obj.Doom()
		return false
	}
	j.res = j.resource()
	j.content = j.n.filler.Attach(j.key, j.res, j.obj, j.obj.Meta().Size, strong)
	return true
}

// maxAtOnce is how many chunks are looked at before the first byte leaves: after
// an unclean stop each has to be read. Longer answers look as they go.
const maxAtOnce = 32

// all reports whether here holds for every chunk of every part, of answers that
// are not too long to find out.
func (j *job) all(here func(i int64) bool) bool {
	looked := 0
	for _, p := range j.parts {
		for i := p.r.Start / store.ChunkSize; i*store.ChunkSize < p.r.End; i++ {
			if looked++; looked > maxAtOnce || !here(i) {
				return false
			}
		}
	}
	return true
}

// Next returns the next piece of the answer's body.
func (j *job) Next() (front.Piece, error) {
	j.sent += max(j.current.Len, int64(len(j.current.Bytes)))
	p, err := j.nextPart()
	j.current = p
	return p, err
}

func (j *job) nextPart() (front.Piece, error) {
	for {
		if j.part == len(j.parts) {
			if c := j.closing; c != nil {
				j.closing = nil
				return front.Piece{Bytes: c}, nil
			}
			return front.Piece{}, io.EOF
		}
		if h := j.parts[j.part].head; h != nil && !j.headed {
			j.headed = true
			return front.Piece{Bytes: h}, nil
		}
		if j.primed {
			j.primed = false
			return j.first, nil
		}
		p, err := j.next()
		if err == io.EOF {
			j.endPart()
			continue
		}
		return p, err
	}
}

func (j *job) endPart() {
	if j.reader != nil {
		j.reader.Close()
		j.reader = nil
	}
	j.part++
	j.headed = false
}

// next returns the next piece of the current part.
func (j *job) next() (front.Piece, error) {
	r := &j.parts[j.part].r
	if j.content == nil {
		// Everything was there when the answer began, and the object's file
		// stays as long as it is held.
		if r.Start >= r.End {
			return front.Piece{}, io.EOF
		}
		f, err := j.obj.File()
		if err != nil {
			return front.Piece{}, err
		}
		p := front.Piece{File: f, Off: r.Start, Len: r.Len()}
		r.Start = r.End
		return p, nil
	}
	if j.reader == nil {
		j.reader = j.content.NewReader(j.res, *r)
	}
	if j.scratch == nil {
		j.scratch = scratches.Get().(*[]byte)
	}
	p, err := j.reader.Next(j.n.ctx, *j.scratch)
	if err != nil {
		return front.Piece{}, err
	}
	if p.Missed {
		j.missed += p.Len
	}
	if !p.Stored {
		return front.Piece{Bytes: (*j.scratch)[:p.Len]}, nil
	}
	f, err := j.obj.File()
	if err != nil {
		return front.Piece{}, err
	}
	return front.Piece{File: f, Off: p.Off, Len: p.Len}, nil
}

// answerGrowing answers with content whose length the origin has not told.
// What is over soon gets a Content-Length after all. Of the rest, whole answers
// of standard publishers leave in chunks. All others wait for the length: a
// range must get a 206 that says it, because clients append what they get; and
// one kind of client dies of a body without a length that is cut
// (docs/protocol.md).
func (j *job) answerGrowing() bool {
	x := j.x
	patience := growingWait
	must := x.Get("Range") != "" && j.meta.Status == http.StatusOK && j.method == http.MethodGet || j.match.Freshness != catalog.Standard
	if must {
		patience = j.n.cfg.Upstream.SilenceTimeout
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	want := j.content.NewReader(j.res, byterange.Range{End: -1}) // the fetch goes on for us
	size := j.content.WaitSize(j.n.ctx, deadline.C)
	defer want.Close()
	if size >= 0 {
		if j.obj != nil {
			j.meta = j.obj.Meta()
		} else {
			m := *j.meta
			m.Size = size
			j.meta = &m
		}
		return j.answer()
	}
	if must {
		j.err = errNoLength
		x.Add("Retry-After", "5")
		j.refuse(http.StatusServiceUnavailable, "The origin "+j.match.Origin.Host+" has not told the length of this content yet.")
		return true
	}
	if j.method == http.MethodHead {
		j.fields(j.meta.Status)
		x.Head(j.meta.Status, -1)
		return true
	}
	j.one[0] = part{r: byterange.Range{End: -1}}
	j.parts = j.one[:]
	if ok, done := j.prime(); !ok {
		return done
	}
	j.fields(j.meta.Status)
	x.Send(j.meta.Status, -1, j)
	return true
}

var errNoLength = errors.New("the length of the content is not known yet")

// growingWait is how long an answer waits for content of unknown length to end,
// so that it can say its length: clients show no progress without it.
const growingWait = time.Second

// fields adds what every answer with content has.
func (j *job) fields(status int) {
	x, m := j.x, j.meta
	dated, age, via := false, time.Duration(0), j.n.via
	for i := range m.Header {
		f := &m.Header[i]
		switch f.Name {
		case "Age":
			age = freshness.ParseAge(f.Value)
			continue
		case "Via":
			via = f.Value + ", " + via
			continue
		case "Date":
			dated = true
		case "Content-Type":
			if len(j.parts) > 1 {
				continue // each part has it
			}
		case "Content-Range":
			if status == http.StatusPartialContent {
				continue // this answer has its own
			}
		}
		x.Add(f.Name, f.Value)
	}
	if len(j.parts) > 1 {
		x.Add("Content-Type", j.mime)
	}
	switch {
	case dated:
	case j.match.Freshness == catalog.Standard:
		x.Add("Date", m.ResponseTime.UTC().Format(http.TimeFormat)) // RFC 9110, 6.6.1
	default:
		x.Add("Date", front.HTTPDate())
	}
	if m.Status == http.StatusOK {
		x.Add("Accept-Ranges", "bytes")
	}
	if j.match.Freshness == catalog.Standard {
		age = j.stored().Age(time.Now())
	} else {
		// Of what does not change, the exact age is worth no look at its header.
		age += max(0, x.Start.Sub(m.ResponseTime))
	}
	var b [24]byte
	x.AddBytes("Age", strconv.AppendInt(b[:0], int64(age/time.Second), 10))
	x.Add("Via", via)
	x.Add("Cache-Status", j.cacheStatus())
}

// came tells the store of a request for what is stored, from a byte on.
func (j *job) came(from int64) {
	if j.obj != nil && from < store.ChunkSize {
		j.obj.Ask()
	}
}

// cacheStatus says what the cache did (RFC 9211). A member is a hit or went
// forward, never both (section 2.2).
func (j *job) cacheStatus() string {
	switch j.how {
	case hit:
		if j.match.Freshness == catalog.Immutable {
			return "Larder; hit"
		}
		return "Larder; hit; ttl=" + strconv.FormatInt(int64(j.ttl/time.Second), 10)
	case refused, failed:
		return "Larder; detail=" + string(j.how)
	}
	c := freshness.CacheStatus{Forward: cmp.Or(j.fwd, freshness.ForwardMiss), Collapsed: j.shared}
	switch j.how {
	case partial:
		c.Forward, c.Stored = freshness.ForwardPartial, true
	case revalidated:
		c.ForwardStatus, c.Detail = http.StatusNotModified, "revalidated"
	case stale:
		c.Detail = "origin-unavailable"
	case passed:
		if c.Forward != freshness.ForwardMethod {
			c.Forward = freshness.ForwardBypass
		}
	default:
		c.Stored = j.obj != nil
	}
	return string(c.Append(nil))
}

// refuse answers with one plain sentence.
func (j *job) refuse(status int, sentence string) {
	if j.err != nil {
		j.how = failed
	} else {
		j.how = refused
	}
	j.x.Text(status, sentence)
	j.x.Add("Via", j.n.via)
	j.x.Add("Cache-Status", j.cacheStatus())
}
