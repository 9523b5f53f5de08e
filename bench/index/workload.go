package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// absent is added to an object's number to get a key that no object has.
const absent = uint64(1) << 40

// object is what the index holds for one stored object.
type object struct {
	ID      uint64 // grows by one per insertion, from 1
	Size    int64  // bytes on the drive: what eviction adds up
	Key     []byte // about 120 bytes
	Meta    []byte // about 400 bytes
	Segment []byte // checksums and presence of up to 256 chunks: about 1 KB for 1 object in 10, 8 bytes for the others
}

// engine is one candidate. Load and update calls are batches: what is
// acknowledged survives the death of the process.
type engine interface {
	Load(batch []object) error
	Update(batch []object) error                                        // ID and Segment only
	Lookup(key []byte) (o object, found bool, err error)                // everything of one object
	Scan(after uint64, limit int) (ids []uint64, size int64, err error) // in order of insertion
	Close() error
}

// mix is the finaliser of SplitMix64: it makes numbers look random and stays reproducible.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// key is the catalogue's key of object n, shaped like a Windows Update path.
func key(n uint64) []byte {
	a, b := mix(n), mix(n^0xabcdef)
	return fmt.Appendf(nil, "windows-update\n/filestreamingservice/files/%08x-%04x-%04x-%012x/pieces/%016x/package-%07d.esd",
		uint32(a), uint16(a>>32), uint16(a>>48), b>>16, b^a, n%10_000_000)
}

func meta(n uint64) []byte {
	a, b := mix(n^0x1234), mix(n^0x98765)
	return fmt.Appendf(nil, `{"u":"http://tlu.dl.delivery.mp.microsoft.com/filestreamingservice/files/%016x","p":"windows-update","t":"updates","s":200,"n":%d,`+
		`"e":"\"%016x%016x\"","m":"Tue, 04 Aug 2026 11:%02d:%02d GMT","q":%d,"r":%d,"h":[["Content-Type","application/octet-stream"],["X-CID","%x"],`+
		`["X-CCC","US"],["Accept-Ranges","bytes"],["Cache-Control","public, max-age=17280000"]]}`,
		a, b%(8<<30), b, a^b, a%60, b%60, 1795000000+a%1000000, 1795000000+a%1000000, b)
}

func segment(n, version uint64) []byte {
	size := 8
	if n%10 == 0 {
		size = 1072 // 256 CRC-32C, a bitmap of presence, an epoch
	}
	out := make([]byte, size)
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(out[i:], mix(n^version<<48^uint64(i)))
	}
	return out
}

func newObject(n uint64) object {
	return object{ID: n, Size: int64(mix(n) % (64 << 20)), Key: key(n), Meta: meta(n), Segment: segment(n, 0)}
}

// loadBatch makes objects from..from+len-1.
func loadBatch(from uint64, n int) []object {
	batch := make([]object, n)
	for i := range batch {
		batch[i] = newObject(from + uint64(i))
	}
	return batch
}

// updateBatch gives new segments to n random objects out of total.
func updateBatch(r *rand.Rand, total, n int) []object {
	batch := make([]object, n)
	for i := range batch {
		id := r.Uint64N(uint64(total)) + 1
		batch[i] = object{ID: id, Segment: segment(id, r.Uint64N(1<<15))}
	}
	return batch
}

// hash128 is what the engines without secondary indexes use for a key: two keys never share it by chance.
func hash128(key []byte) []byte {
	h := fnv.New128a()
	h.Write(key)
	return h.Sum(nil)
}

func hash64(key []byte) uint64 {
	h := fnv.New64a()
	h.Write(key)
	return mix(h.Sum64())
}
