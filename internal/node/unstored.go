package node

import (
	"errors"
	"sync/atomic"

	"larder/internal/node/store"
)

// unstored stands in for a stored object when no drive takes one: its bytes
// go through memory to those who are reading, and nowhere else.
type unstored struct {
	generation uint64
	meta       store.Meta
}

// unstoredGenerations are far above those that drives give.
var unstoredGenerations atomic.Uint64

func newUnstored(m store.Meta) *unstored {
	return &unstored{1<<63 | unstoredGenerations.Add(1), m}
}

var errUnstored = errors.New("no drive takes objects at the moment")

func (u *unstored) Generation() uint64      { return u.generation }
func (u *unstored) Has(int64) bool          { return false }
func (u *unstored) Put(int64, []byte) error { return errUnstored }
func (u *unstored) SetSize(int64) error     { return nil }
func (u *unstored) Doom()                   {}
func (u *unstored) Doomed() bool            { return false }
func (u *unstored) Retain()                 {}
func (u *unstored) Release()                {}
