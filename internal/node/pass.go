package node

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"larder/internal/node/fill"
	"larder/internal/node/front"
	"larder/internal/node/origin"
)

// hopByHop are the request fields that end at the node (RFC 9110 7.6.1).
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Host": true, "Content-Length": true, "Expect": true, "X-Forwarded-For": true, "Forwarded": true,
	"Proxy": true, // programs behind a gateway take it for an environment variable (CVE-2016-5385)
}

// pass sends the request on and the answer back, keeping nothing: for requests
// whose answers are the asker's own, and for methods that change something.
func (j *job) pass() {
	n, x := j.n, j.x
	h := j.endToEnd()
	if left := j.forwards(); left > 0 {
		h.Set("Max-Forwards", strconv.FormatInt(left-1, 10))
	}
	body, length := x.Body()
	waiting := &interims{x: x}
	defer waiting.end()
	resp, err := n.origin.Do(n.ctx, &origin.Request{
		Endpoint: endpoint(j.match.Origin), Method: j.method, Target: j.asked.target(),
		Header: h, Body: body, ContentLength: length, Interim: waiting.tell(),
	})
	if err != nil {
		j.fail(err)
		return
	}
	j.learn(resp)
	j.relay(&fill.Reply{
		Status: resp.Status, Header: resp.Header, Size: -1, // of the whole; nobody asks
		Body:    &counted{ReadCloser: resp.Body, add: n.stats.upstream(j.match.Publisher.ContentType)},
		Trailer: resp.Trailer,
	}, resp.ContentLength)
}

// forwards is how often an OPTIONS or TRACE may be forwarded yet (RFC 9110,
// 7.6.2); -1: as often as may be.
func (j *job) forwards() int64 {
	if j.method != http.MethodOptions && j.method != http.MethodTrace {
		return -1
	}
	n, err := strconv.ParseUint(j.x.Get("Max-Forwards"), 10, 63)
	if err != nil {
		return -1
	}
	return int64(n)
}

// lastRecipient answers what may go no further than this node. Nothing is told of
// the request to a TRACE: fields that an intermediary added are not the client's.
func (j *job) lastRecipient() {
	if j.method == http.MethodTrace {
		j.refuse(http.StatusMethodNotAllowed, "This node does not answer TRACE itself.")
		return
	}
	j.how = refused
	j.x.Add("Allow", "GET, HEAD, OPTIONS")
	j.x.Add("Via", j.n.via)
	j.x.Add("Cache-Status", j.cacheStatus())
	j.x.Head(http.StatusNoContent, -1)
}

// endToEnd are the request's fields but those of this hop.
func (j *job) endToEnd() http.Header {
	h := http.Header{}
	drop := map[string]bool{}
	for name := range strings.SplitSeq(j.x.Get("Connection"), ",") {
		drop[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
	}
	j.x.Fields(func(name, value string) {
		name = http.CanonicalHeaderKey(name)
		if !hopByHop[name] && !drop[name] {
			h.Add(name, value)
		}
	})
	return h
}

// relay sends an upstream answer that is not kept; its body is length bytes, -1:
// not known.
func (j *job) relay(rep *fill.Reply, length int64) {
	x := j.x
	j.how = passed
	for name, values := range rep.Header {
		if hopByHop[name] || name == requestTime {
			continue
		}
		for _, v := range values {
			if name == "Via" {
				v += ", " + j.n.via
			}
			x.Add(spelling(name), v)
		}
	}
	if rep.Header.Get("Via") == "" {
		x.Add("Via", j.n.via)
	}
	if rep.Header.Get("Date") == "" {
		x.Add("Date", front.HTTPDate())
	}
	x.Add("Cache-Status", j.cacheStatus())
	switch {
	case j.method == http.MethodHead:
		rep.Body.Close()
		x.Head(rep.Status, length)
		return
	case rep.Status == http.StatusNoContent || rep.Status == http.StatusNotModified:
		rep.Body.Close()
		x.Head(rep.Status, -1)
		return
	}
	j.relayed = rep.Body
	x.Send(rep.Status, length, &relayBody{j: j, r: rep.Body, trailer: rep.Trailer})
}

// relayBody is an upstream body on its way to one client.
type relayBody struct {
	j       *job
	r       io.Reader
	trailer func() http.Header // nil: none
}

// Trailer is for front.Trailing.
func (b *relayBody) Trailer(add func(name, value string)) {
	if b.trailer == nil {
		return
	}
	for name, values := range b.trailer() {
		for _, v := range values {
			add(spelling(name), v)
		}
	}
}

func (b *relayBody) Next() (front.Piece, error) {
	j := b.j
	if j.scratch == nil {
		j.scratch = scratches.Get().(*[]byte)
	}
	for {
		n, err := b.r.Read(*j.scratch)
		if n > 0 {
			j.missed += int64(n)
			return front.Piece{Bytes: (*j.scratch)[:n]}, nil
		}
		if err != nil {
			if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
				j.err = err
			}
			return front.Piece{}, err
		}
	}
}

func (b *relayBody) Close() { b.j.Close() }
