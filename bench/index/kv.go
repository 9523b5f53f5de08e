package main

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The engines of plain key and value hold an object as id → value below and a
// key as 16 bytes of hash → id.

var errRow = errors.New("damaged row")

func appendID(b []byte, id uint64) []byte { return binary.BigEndian.AppendUint64(b, id) }

// appendRow writes size, key and meta.
func appendRow(b []byte, o *object) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(o.Size))
	b = binary.BigEndian.AppendUint16(b, uint16(len(o.Key)))
	b = append(b, o.Key...)
	return append(b, o.Meta...)
}

// parseRow copies, since the engines' values live only as long as their transaction.
func parseRow(id uint64, row []byte) (object, error) {
	if len(row) < 10 {
		return object{}, fmt.Errorf("object %d: %w", id, errRow)
	}
	n := int(binary.BigEndian.Uint16(row[8:])) + 10
	if len(row) < n {
		return object{}, fmt.Errorf("object %d: %w", id, errRow)
	}
	row = append([]byte(nil), row...)
	return object{ID: id, Size: int64(binary.BigEndian.Uint64(row)), Key: row[10:n], Meta: row[n:]}, nil
}
