package front

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"larder/internal/sys/sendfile"
)

// Body is the bytes of an answer, in pieces.
type Body interface {
	// Next returns the next piece, io.EOF after the last one. It may wait. The
	// piece is used before the next call.
	Next() (Piece, error)
	// Close is called once, however the answer ended.
	Close()
}

// Trailing is a Body with fields after it (RFC 9110, section 6.5). They reach the
// client if the body is sent in chunks.
type Trailing interface {
	// Trailer calls add for each field; it is called once, after Next said
	// io.EOF. Names and values are proper ones.
	Trailer(add func(name, value string))
}

// A Piece is either bytes in memory or a part of a file.
type Piece struct {
	Bytes []byte
	File  *os.File
	Off   int64
	Len   int64
}

// size is how many bytes p has.
func (p *Piece) size() int64 {
	if p.File == nil {
		return int64(len(p.Bytes))
	}
	return p.Len
}

const (
	// smallPiece is the largest part of a file that is read rather than sent by
	// the system: below, one write of head and body is cheaper.
	smallPiece = 32 << 10
	// blockSize is how much is read, encrypted and written at once. Measured:
	// below 256 KiB the system calls are felt.
	blockSize = 256 << 10
	// step is how much leaves under one deadline.
	step = 1 << 20
	// maxLarge is how many answers may have blocks of that size at once. Who reads
	// slowly keeps them for long: the others get small ones, so that thousands
	// take little memory, at more system calls each.
	maxLarge = 256
)

var (
	errTooLong = errors.New("front: the body is longer than its Content-Length")
	errPanic   = errors.New("front: the body panicked")
)

// Memory of answers under way, and of their TLS records: those have room for
// what encryption adds.
var (
	smalls = sync.Pool{New: func() any { b := make([]byte, maxHead+smallPiece); return &b }}
	blocks = sync.Pool{New: func() any { b := make([]byte, maxHead+blockSize); return &b }}
	helds  = sync.Pool{New: func() any { b := make([]byte, 0, maxHead+blockSize+blockSize/128); return &b }}
	lights = sync.Pool{New: func() any { b := make([]byte, 0, maxHead+smallPiece+smallPiece/64); return &b }} // helds for small blocks
)

// A desk is the memory that a part of an answer is put together in.
type desk struct {
	s     *Server
	block *[]byte // nil: not wanted
	held  *[]byte // for TLS records; nil: there is nothing to gather
	most  int64   // bytes of content at once
	large bool
}

// desk returns memory for a part of n bytes; put gives it back. block says
// whether the part has to be read first.
func (x *Exchange) desk(n int64, block bool) desk {
	d := desk{s: x.s, most: smallPiece}
	gather := x.c.tls != nil && n > smallPiece
	if gather || block && n > smallPiece {
		if x.s.large.Add(1) <= maxLarge {
			d.large, d.most = true, blockSize
		} else {
			x.s.large.Add(-1)
		}
	}
	switch {
	case block && d.large:
		d.block = blocks.Get().(*[]byte)
	case block:
		d.block = smalls.Get().(*[]byte)
	}
	switch {
	case gather && d.large:
		d.held = helds.Get().(*[]byte)
	case gather:
		d.held = lights.Get().(*[]byte)
	}
	return d
}

func (d *desk) put() {
	switch {
	case d.block != nil && d.large:
		blocks.Put(d.block)
	case d.block != nil:
		smalls.Put(d.block)
	}
	switch {
	case d.held != nil && d.large:
		helds.Put(d.held)
	case d.held != nil:
		lights.Put(d.held)
	}
	if d.large {
		d.s.large.Add(-1)
	}
}

// A stream is an Exchange as the engine sees it: a body that writes itself.
type stream Exchange

// Read is never called: WriteTo is used instead.
func (s *stream) Read([]byte) (int, error) {
	return 0, errors.New("front: body was read instead of written")
}

// SupportsBodyWriteTo tells the engine that WriteTo may stand for Read.
func (s *stream) SupportsBodyWriteTo() bool { return true }

// Close is called by the engine when the answer has ended, whether or not
// WriteTo was called.
func (s *stream) Close() error {
	(*Exchange)(s).finish()
	return nil
}

// WriteTo writes the answer past the engine, whose own head is dropped.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	x := (*Exchange)(s)
	bw, ok := w.(*bufio.Writer)
	if !ok {
		return 0, errors.New("front: the engine's writer is not the one expected")
	}
	err := bw.Flush()
	x.c.dropping = false
	if err == nil {
		err = x.write()
	}
	x.out.Err = err
	if err != nil && !x.headed {
		// The client has got nothing yet, so it can still be told.
		x.closeBody()
		x.fields = x.fields[:0]
		x.Text(http.StatusBadGateway, "The content could not be read.")
		if werr := x.writeText(); werr == nil {
			err = nil
		}
	}
	if err != nil {
		x.c.cut, x.c.reset = true, x.length < 0 && x.http10
	}
	return 0, err
}

// write writes head and body.
func (x *Exchange) write() (err error) {
	defer func() {
		if r := recover(); r != nil {
			x.s.panicked("body", r)
			x.c.forget()
			err = errPanic
		}
	}()
	if x.body == nil || x.bodiless() {
		return x.writeText()
	}
	// The first piece decides how the head leaves: with small things in one
	// write, before large ones by itself.
	p, err := x.body.Next()
	if x.length < 0 && (err == nil || err == io.EOF) {
		return x.writeUnknown(p, err == io.EOF)
	}
	for err == nil {
		left := x.length - x.out.Bytes
		long := p.size() > left
		if long {
			p.Bytes = p.Bytes[:min(int64(len(p.Bytes)), left)]
			p.Len = left
		}
		var n int64
		n, err = x.piece(p)
		x.out.Bytes += n
		switch {
		case err != nil:
		case long:
			err = errTooLong
		case x.out.Bytes == x.length:
			return nil
		default:
			p, err = x.body.Next()
		}
	}
	if err != io.EOF {
		return err
	}
	if x.out.Bytes != x.length {
		return io.ErrUnexpectedEOF
	}
	return x.writeText() // an empty body
}

// send writes b, which begins with the head if that has not left yet. The
// records of TLS are gathered in *hp, if there is one.
func (x *Exchange) send(b []byte, hp *[]byte) (int, error) {
	now := time.Now()
	x.c.extend(now)
	if !x.headed {
		x.headed = true
		x.out.FirstByte = now.Sub(x.Start)
	}
	if hp == nil {
		return x.c.top.Write(b)
	}
	x.c.hold(*hp)
	n, err := x.c.top.Write(b)
	buf, werr := x.c.release()
	*hp = buf[:0]
	if err == nil {
		err = werr
	}
	return n, err
}

// writeText writes the head and what there is of a short body in memory.
func (x *Exchange) writeText() error {
	bp := smalls.Get().(*[]byte)
	defer smalls.Put(bp)
	b := x.appendHead((*bp)[:0])
	if !x.bodiless() {
		b = append(b, x.text...)
	}
	_, err := x.send(b, nil)
	if err == nil && !x.bodiless() {
		x.out.Bytes = int64(len(x.text))
	}
	return err
}

// piece writes one piece, the head before it if that has not left yet, and
// returns how many bytes of the piece it wrote.
func (x *Exchange) piece(p Piece) (int64, error) {
	if p.File == nil {
		return x.memory(p.Bytes)
	}
	if x.c.tcp != nil && x.c.tls == nil && p.Len > smallPiece {
		return x.sendfile(p)
	}
	return x.blocks(p)
}

// memory writes bytes that lie in memory.
func (x *Exchange) memory(b []byte) (int64, error) {
	d := x.desk(int64(len(b)), false)
	defer d.put()
	most, hp := step, d.held
	if hp != nil {
		most = int(d.most)
	}
	var n int64
	if !x.headed {
		bp := smalls.Get().(*[]byte)
		defer smalls.Put(bp)
		out := x.appendHead((*bp)[:0])
		lead := len(out)
		with := min(len(b), max(cap(out)-lead, 0))
		out = append(out, b[:with]...)
		k, err := x.send(out, hp)
		n = int64(max(k-lead, 0))
		if err != nil {
			return n, err
		}
		b = b[with:]
	}
	for len(b) > 0 {
		k, err := x.send(b[:min(len(b), most)], hp)
		n += int64(k)
		if err != nil {
			return n, err
		}
		b = b[k:]
	}
	return n, nil
}

// sendfile lets the system move a part of a file to a plain connection.
func (x *Exchange) sendfile(p Piece) (int64, error) {
	if !x.headed {
		if _, err := x.memory(nil); err != nil {
			return 0, err
		}
	}
	var n int64
	for n < p.Len {
		x.c.extend(time.Now())
		k, err := sendfile.Send(x.c.tcp, p.File, p.Off+n, min(p.Len-n, step))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// blocks reads a part of a file and writes it in large blocks, each with all
// its TLS records in one system call.
func (x *Exchange) blocks(p Piece) (int64, error) {
	d := x.desk(p.Len, true)
	defer d.put()
	bp, hp := d.block, d.held
	var n int64
	for n < p.Len {
		b := (*bp)[:0]
		if !x.headed {
			if b = x.appendHead(b); len(b) > maxHead {
				if _, err := x.send(b, hp); err != nil { // too large to share a block
					return 0, err
				}
				b = (*bp)[:0]
			}
		}
		lead := len(b)
		k := min(p.Len-n, int64(len(*bp)-maxHead))
		b = b[:lead+int(k)]
		if err := readFull(p.File, b[lead:], p.Off+n); err != nil {
			return n, err
		}
		w, err := x.send(b, hp)
		if err != nil {
			return n + int64(max(w-lead, 0)), err
		}
		n += k
	}
	return n, nil
}

// writeUnknown writes a body whose length is not known: in chunks (RFC 9112
// 7.1), or as it is when the end of the connection ends it.
func (x *Exchange) writeUnknown(p Piece, over bool) error {
	if _, err := x.memory(nil); err != nil {
		return err
	}
	d := x.desk(blockSize, true)
	defer d.put()
	bp, hp := d.block, d.held
	for !over {
		n := p.size()
		for off := int64(0); off < n; {
			k := min(n-off, d.most)
			b := (*bp)[:0]
			if !x.http10 {
				b = strconv.AppendInt(b, k, 16)
				b = append(b, '\r', '\n')
			}
			if p.File == nil {
				b = append(b, p.Bytes[off:off+k]...)
			} else {
				at := len(b)
				b = b[:at+int(k)]
				if err := readFull(p.File, b[at:], p.Off+off); err != nil {
					return err
				}
			}
			if !x.http10 {
				b = append(b, '\r', '\n')
			}
			if _, err := x.send(b, hp); err != nil {
				return err
			}
			off += k
			x.out.Bytes += k
		}
		var err error
		if p, err = x.body.Next(); err == io.EOF {
			over = true
		} else if err != nil {
			return err
		}
	}
	if x.http10 {
		return nil
	}
	end := []byte("0\r\n")
	if t, ok := x.body.(Trailing); ok {
		t.Trailer(func(name, value string) { end = append(end, name+": "+value+"\r\n"...) })
	}
	_, err := x.send(append(end, '\r', '\n'), nil)
	return err
}

// readFull reads len(b) bytes at off; a file that ends before is an error.
func readFull(f *os.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
