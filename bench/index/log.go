package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// logEngine appends records to one file and finds them by tables in memory.
// The tables are written beside the log from time to time; a start reads the
// newest copy and the part of the log behind it. It reclaims nothing, which a
// real engine would have to.
type logEngine struct {
	dir     string
	f       *os.File
	end     int64 // of the log
	saved   int64 // length of the log that the saved tables cover
	durable bool

	slots    []uint64 // open addressing: high half a tag of the hash, low half the id; a power of two long
	count    uint64   // objects
	objects  []int64  // by id: where its record lies
	segments []int64  // by id: where its newest segment lies
	buf      []byte
}

const (
	logHead      = 4 + 4 + 1 + 8 // CRC-32C of what follows, length of the body, kind, id
	logSaveEvery = 256 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openLog(dir string, o options) (engine, error) {
	f, err := os.OpenFile(filepath.Join(dir, "index.log"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	e := &logEngine{dir: dir, f: f, durable: o.Durable, slots: make([]uint64, 1<<16), objects: make([]int64, 1), segments: make([]int64, 1)}
	if err := e.restore(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, f.Close())
	}
	if err := e.replay(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return e, nil
}

func (e *logEngine) put(kind byte, id uint64, body []byte) int64 {
	at := e.end + int64(len(e.buf))
	start := len(e.buf)
	e.buf = append(e.buf, 0, 0, 0, 0)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(len(body)))
	e.buf = append(e.buf, kind)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, id)
	e.buf = append(e.buf, body...)
	binary.LittleEndian.PutUint32(e.buf[start:], crc32.Checksum(e.buf[start+4:], castagnoli))
	return at
}

func (e *logEngine) flush() error {
	n, err := e.f.WriteAt(e.buf, e.end)
	if err != nil {
		return err
	}
	e.end += int64(n)
	e.buf = e.buf[:0]
	if e.durable {
		if err := e.f.Sync(); err != nil {
			return err
		}
	}
	if e.end-e.saved > logSaveEvery {
		return e.save()
	}
	return nil
}

func (e *logEngine) Load(batch []object) error {
	for i := range batch {
		o := &batch[i]
		e.noteObject(o.ID, hash64(o.Key), e.put('o', o.ID, appendRow(nil, o)))
		e.segments[o.ID] = e.put('s', o.ID, o.Segment)
	}
	return e.flush()
}

func (e *logEngine) Update(batch []object) error {
	for i := range batch {
		e.segments[batch[i].ID] = e.put('s', batch[i].ID, batch[i].Segment)
	}
	return e.flush()
}

func (e *logEngine) noteObject(id, hash uint64, at int64) {
	for uint64(len(e.objects)) <= id {
		e.objects, e.segments = append(e.objects, 0), append(e.segments, 0)
	}
	e.objects[id] = at
	if e.count++; e.count*4 > uint64(len(e.slots))*3 {
		e.grow()
	}
	e.insert(hash&^uint64(1<<32-1) | id)
}

// insert places a slot; the tag in it decides where it lies, so that growing needs no keys.
func (e *logEngine) insert(slot uint64) {
	mask := uint64(len(e.slots) - 1)
	i := mix(slot>>32) & mask
	for e.slots[i] != 0 {
		i = (i + 1) & mask
	}
	e.slots[i] = slot
}

func (e *logEngine) grow() {
	old := e.slots
	e.slots = make([]uint64, 2*len(old))
	for _, slot := range old {
		if slot != 0 {
			e.insert(slot)
		}
	}
}

func (e *logEngine) read(at int64) (id uint64, body []byte, err error) {
	b := make([]byte, 1200)
	n, err := e.f.ReadAt(b, at)
	if err != nil && !(errors.Is(err, io.EOF) && n >= logHead) {
		return 0, nil, err
	}
	size := int(binary.LittleEndian.Uint32(b[4:])) + logHead
	if size > n || crc32.Checksum(b[4:size], castagnoli) != binary.LittleEndian.Uint32(b) {
		return 0, nil, fmt.Errorf("record at %d: %w", at, errRow)
	}
	return binary.LittleEndian.Uint64(b[9:]), b[logHead:size], nil
}

func (e *logEngine) Lookup(key []byte) (object, bool, error) {
	tag := hash64(key) >> 32
	mask := uint64(len(e.slots) - 1)
	for i := mix(tag) & mask; e.slots[i] != 0; i = (i + 1) & mask {
		if e.slots[i]>>32 != tag {
			continue
		}
		id, row, err := e.read(e.objects[e.slots[i]&(1<<32-1)])
		if err != nil {
			return object{}, false, err
		}
		o, err := parseRow(id, row)
		if err != nil {
			return object{}, false, err
		}
		if !bytes.Equal(o.Key, key) {
			continue
		}
		_, o.Segment, err = e.read(e.segments[id])
		return o, err == nil, err
	}
	return object{}, false, nil
}

func (e *logEngine) Scan(after uint64, limit int) (ids []uint64, size int64, err error) {
	for id := after + 1; id < uint64(len(e.objects)) && len(ids) < limit; id++ {
		_, row, err := e.read(e.objects[id])
		if err != nil {
			return nil, 0, err
		}
		o, err := parseRow(id, row)
		if err != nil {
			return nil, 0, err
		}
		ids, size = append(ids, id), size+o.Size
	}
	return ids, size, nil
}

func (e *logEngine) tablesFile() string { return filepath.Join(e.dir, "tables") }

// save writes the tables so that either the old or the new copy is whole.
func (e *logEngine) save() error {
	f, err := os.Create(e.tablesFile() + ".new")
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(
		e.f.Sync(),
		binary.Write(w, binary.LittleEndian, []int64{e.end, int64(e.count), int64(len(e.slots)), int64(len(e.objects))}),
		binary.Write(w, binary.LittleEndian, e.slots),
		binary.Write(w, binary.LittleEndian, e.objects),
		binary.Write(w, binary.LittleEndian, e.segments),
		w.Flush(), f.Sync(), f.Close(),
	)
	if err != nil {
		return err
	}
	e.saved = e.end
	return os.Rename(f.Name(), e.tablesFile())
}

func (e *logEngine) restore() error {
	f, err := os.Open(e.tablesFile())
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var head [4]int64
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		return err
	}
	e.saved, e.end, e.count = head[0], head[0], uint64(head[1])
	e.slots, e.objects, e.segments = make([]uint64, head[2]), make([]int64, head[3]), make([]int64, head[3])
	return errors.Join(readTable(r, e.slots), readTable(r, e.objects), readTable(r, e.segments))
}

// readTable reads in small pieces: binary.Read of a whole table would hold it twice.
func readTable[T uint64 | int64](r io.Reader, table []T) error {
	var b [8192]byte
	for len(table) > 0 {
		n := min(len(table), len(b)/8)
		if _, err := io.ReadFull(r, b[:n*8]); err != nil {
			return err
		}
		for i := range n {
			table[i] = T(binary.LittleEndian.Uint64(b[i*8:]))
		}
		table = table[n:]
	}
	return nil
}

// replay reads the log behind the saved tables and cuts off a torn end.
func (e *logEngine) replay() error {
	info, err := e.f.Stat()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(e.f, e.end, info.Size()-e.end), 1<<20)
	head := make([]byte, logHead)
	var body []byte
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			break
		}
		n := int(binary.LittleEndian.Uint32(head[4:]))
		if int64(n) > info.Size()-e.end {
			break
		}
		if cap(body) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		if _, err := io.ReadFull(r, body); err != nil {
			break
		}
		if crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, body) != binary.LittleEndian.Uint32(head) {
			break
		}
		id := binary.LittleEndian.Uint64(head[9:])
		if head[8] == 's' {
			if id >= uint64(len(e.segments)) {
				return fmt.Errorf("segment of object %d: %w", id, errRow)
			}
			e.segments[id] = e.end
		} else {
			o, err := parseRow(id, body)
			if err != nil {
				return err
			}
			e.noteObject(id, hash64(o.Key), e.end)
		}
		e.end += int64(logHead + n)
	}
	return e.f.Truncate(e.end)
}

func (e *logEngine) Close() error { return errors.Join(e.save(), e.f.Close()) }
