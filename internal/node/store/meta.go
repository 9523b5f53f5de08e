package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strings"
	"time"

	"larder/internal/node/store/index"
)

// Field is one header field as it is replayed to clients.
type Field struct{ Name, Value string }

// Meta is what is known of an object besides its bytes.
type Meta struct {
	Publisher, ContentType    string // the catalogue's words: who, and the report group
	URL                       string // "https://host/path?query-as-keyed": what people see; secrets are never in it
	Status                    int
	Size                      int64  // bytes; -1: not known yet
	ETag, LastModified        string // as received
	Header                    []Field
	Selecting                 []Field // the request's fields that chose this answer (Vary), in their normal form
	RequestTime, ResponseTime time.Time
	Pin                       bool // at Create: begin pinned
}

// The first byte of every encoded meta. The second version has Selecting; what
// has none is written in the first, which older programs read.
const (
	metaVersion        = 1
	metaVersionSelects = 2
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errRow     = errors.New("row does not make sense")
)

// record is what one row of the index says about an object.
type record struct {
	id      int64
	gen     uint64
	key     string
	pinned  bool
	created time.Time
	meta    Meta
}

// encodeMeta packs m. The checksum at its end also covers what binds m to its
// row, so that a damaged index cannot give one object the meta of another.
func encodeMeta(r *record) []byte {
	m := &r.meta
	b := make([]byte, 0, 256)
	version := byte(metaVersion)
	if len(m.Selecting) > 0 {
		version = metaVersionSelects
	}
	b = append(b, version)
	for _, s := range []string{m.Publisher, m.ContentType, m.URL, m.ETag, m.LastModified} {
		b = appendString(b, s)
	}
	b = binary.AppendVarint(b, int64(m.Status))
	b = binary.AppendVarint(b, m.Size)
	b = appendTime(b, m.RequestTime)
	b = appendTime(b, m.ResponseTime)
	b = appendFields(b, m.Header)
	if version == metaVersionSelects {
		b = appendFields(b, m.Selecting)
	}
	return binary.LittleEndian.AppendUint32(b, metaSum(b, r.id, int64(r.gen), r.key))
}

func metaSum(b []byte, id, gen int64, key string) uint32 {
	bind := make([]byte, 0, 16+len(key))
	bind = binary.LittleEndian.AppendUint64(bind, uint64(id))
	bind = binary.LittleEndian.AppendUint64(bind, uint64(gen))
	bind = append(bind, key...)
	return crc32.Update(crc32.Checksum(bind, castagnoli), castagnoli, b)
}

// decodeRow is the reverse of encodeMeta and of the row around it. Whatever the
// bytes are, it returns a sound record or errRow.
func decodeRow(row *index.Row) (record, error) {
	r := record{id: row.ID, gen: uint64(row.Gen), key: string(row.Key), pinned: row.Pinned, created: time.Unix(row.Created, 0)}
	b := row.Meta
	if len(b) < 5 || b[0] != metaVersion && b[0] != metaVersionSelects || row.ID < 1 {
		return r, errRow
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if sum != metaSum(body, row.ID, row.Gen, r.key) {
		return r, errRow
	}
	d := decoder{b: body[1:]}
	m := &r.meta
	for _, s := range []*string{&m.Publisher, &m.ContentType, &m.URL, &m.ETag, &m.LastModified} {
		*s = d.string()
	}
	m.Status = int(d.varint())
	m.Size = d.varint()
	m.RequestTime = d.time()
	m.ResponseTime = d.time()
	m.Header = d.fields()
	if b[0] == metaVersionSelects {
		m.Selecting = d.fields()
	}
	if d.bad || len(d.b) != 0 || m.Size < 0 || m.Size > maxSize || m.Size != row.Size {
		return r, errRow
	}
	return r, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendFields(b []byte, fs []Field) []byte {
	b = binary.AppendUvarint(b, uint64(len(fs)))
	for _, f := range fs {
		b = appendString(b, f.Name)
		b = appendString(b, f.Value)
	}
	return b
}

// appendTime keeps a time to the nanosecond; the zero time has a value of its own.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, math.MinInt64)
	}
	return binary.AppendVarint(b, t.UnixNano())
}

// decoder reads what the append functions wrote. After the first mistake it is
// bad, and everything it returns is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) fields() []Field {
	n := d.uvarint()
	if n > uint64(len(d.b))/2 { // a field takes two bytes at least
		d.b, d.bad = nil, true
	}
	if n == 0 || d.bad {
		return nil
	}
	fs := make([]Field, n)
	for i := range fs {
		fs[i] = Field{Name: d.string(), Value: d.string()}
	}
	return fs
}

func (d *decoder) time() time.Time {
	v := d.varint()
	if v == math.MinInt64 || d.bad {
		return time.Time{}
	}
	return time.Unix(0, v)
}

// withoutScheme is what prefixes of URLs are compared with: "host/path…".
func withoutScheme(u string) string {
	if _, rest, ok := strings.Cut(u, "://"); ok {
		return rest
	}
	return u
}
