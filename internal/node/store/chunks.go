package store

import (
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"
)

const (
	// ChunkSize is the unit of presence, checksum and waiting, in bytes.
	ChunkSize = 1 << 20

	segmentChunks = 256 // chunks in one segment: about 1 KiB of index for 256 MiB of object
	words         = segmentChunks / 64

	// maxSize keeps an origin that lies about lengths from filling memory with
	// chunk tables: 16 TiB.
	maxSize = 1 << 44

	segmentVersion = 1
)

// segment is the state of neighbouring chunks of one object. A set bit in
// verified is only ever seen when the bytes in the file match the checksum.
type segment struct {
	present  [words]atomic.Uint64 // there, says the index
	verified [words]atomic.Uint64 // there, and read back or written since the drive was opened; within present

	allocated [words]uint64 // guarded by Object.mu: the file has blocks there, which are counted; contains present
	sums      []uint32      // guarded by Object.mu: CRC-32C, by chunk
	dirty     bool          // guarded by Object.mu: differs from the index
}

// table is the chunk state of one object, by segments; nil where no chunk is.
type table []atomic.Pointer[segment]

// chunksOf returns how many chunks an object of size bytes has.
func chunksOf(size int64) int64 { return (size + ChunkSize - 1) / ChunkSize }

// chunkLen returns the length of chunk i of an object of size bytes.
func chunkLen(size, i int64) int64 { return min(ChunkSize, size-i*ChunkSize) }

func segmentsOf(chunks int64) int64 { return (chunks + segmentChunks - 1) / segmentChunks }

// at splits a chunk's number into those of its segment, word and bit.
func at(i int64) (seg int64, word int, bit uint64) {
	return i / segmentChunks, int(i % segmentChunks / 64), 1 << (i % 64)
}

// encodeSegment packs s; chunks verified count as such only in epoch. The
// caller holds the object's lock.
func encodeSegment(s *segment, id, number int64, epoch uint32) []byte {
	b := make([]byte, 0, 8+3*words*8+len(s.sums)*4+4)
	b = append(b, segmentVersion)
	b = binary.LittleEndian.AppendUint32(b, epoch)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s.sums)))
	for i := range words {
		b = binary.LittleEndian.AppendUint64(b, s.present[i].Load())
		b = binary.LittleEndian.AppendUint64(b, s.verified[i].Load())
		b = binary.LittleEndian.AppendUint64(b, s.allocated[i])
	}
	for _, sum := range s.sums {
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	return binary.LittleEndian.AppendUint32(b, segmentSum(b, id, number))
}

// segmentSum binds b to its place: a damaged index must not give one object
// the checksums of another.
func segmentSum(b []byte, id, number int64) uint32 {
	var bind [16]byte
	binary.LittleEndian.PutUint64(bind[:], uint64(id))
	binary.LittleEndian.PutUint64(bind[8:], uint64(number))
	return crc32.Update(crc32.Checksum(bind[:], castagnoli), castagnoli, b)
}

// decodeSegment unpacks a segment that must have room for chunks chunks.
// Verified bits of another epoch than the one given are cleared. Whatever the
// bytes are, it returns a sound segment or errRow.
func decodeSegment(b []byte, id, number int64, epoch uint32, chunks int64) (*segment, error) {
	const head = 1 + 4 + 2 + 3*words*8
	if len(b) < head+4 || b[0] != segmentVersion {
		return nil, errRow
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if sum != segmentSum(body, id, number) {
		return nil, errRow
	}
	n := int64(binary.LittleEndian.Uint16(body[5:]))
	if n != min(segmentChunks, chunks-number*segmentChunks) || int64(len(body)) != head+4*n {
		return nil, errRow
	}
	same := binary.LittleEndian.Uint32(body[1:]) == epoch
	s := &segment{sums: make([]uint32, n)}
	for i := range words {
		p := body[7+i*24:]
		present, verified, allocated := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:])
		valid := mask(n, i)
		if allocated&^valid != 0 || present&^allocated != 0 || verified&^present != 0 {
			return nil, errRow
		}
		s.present[i].Store(present)
		s.allocated[i] = allocated
		if same {
			s.verified[i].Store(verified)
		}
	}
	for i := range s.sums {
		s.sums[i] = binary.LittleEndian.Uint32(body[head+4*i:])
	}
	return s, nil
}

// mask returns the bits of word that n chunks use.
func mask(n int64, word int) uint64 {
	n -= int64(word) * 64
	switch {
	case n <= 0:
		return 0
	case n >= 64:
		return ^uint64(0)
	}
	return 1<<n - 1
}
