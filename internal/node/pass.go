package node

import (
	"errors"
	"io"
	"net/http"
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
}

// pass sends the request on and the answer back, keeping nothing: for requests
// whose answers are the asker's own, and for methods that change something.
func (j *job) pass() {
	n, x := j.n, j.x
	h := http.Header{}
	drop := map[string]bool{}
	for _, name := range strings.Split(x.Get("Connection"), ",") {
		drop[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
	}
	x.Fields(func(name, value string) {
		name = http.CanonicalHeaderKey(name)
		if !hopByHop[name] && !drop[name] {
			h.Add(name, value)
		}
	})
	body, length := x.Body()
	resp, err := n.origin.Do(n.ctx, &origin.Request{
		Endpoint: endpoint(j.match.Origin), Method: j.method, Target: j.asked.target(),
		Header: h, Body: body, ContentLength: length,
	})
	if err != nil {
		j.fail(err)
		return
	}
	j.relay(&fill.Reply{
		Status: resp.Status, Header: resp.Header, Size: resp.ContentLength,
		Body: &counted{ReadCloser: resp.Body, add: n.stats.upstream(j.match.Publisher.ContentType)},
	})
}

// relay sends an upstream answer that is not kept.
func (j *job) relay(rep *fill.Reply) {
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
	length := rep.Size
	if rep.Status == http.StatusPartialContent {
		length = rep.Range.Len()
	}
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
	x.Send(rep.Status, length, &relayBody{j: j, r: rep.Body})
}

// relayBody is an upstream body on its way to one client.
type relayBody struct {
	j *job
	r io.Reader
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
