package origin

import "container/list"

// recent is a map that keeps the entries used last. It is not safe for use by
// several goroutines.
type recent[K comparable, V any] struct {
	max   int
	order *list.List // of entry[K, V], used last in front
	m     map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](max int) *recent[K, V] {
	return &recent[K, V]{max: max, order: list.New(), m: make(map[K]*list.Element)}
}

// get returns the entry and marks it used.
func (r *recent[K, V]) get(k K) (v V, ok bool) {
	el := r.m[k]
	if el == nil {
		return v, false
	}
	r.order.MoveToFront(el)
	return el.Value.(entry[K, V]).value, true
}

// put adds or replaces an entry. The caller trims.
func (r *recent[K, V]) put(k K, v V) {
	if el := r.m[k]; el != nil {
		el.Value = entry[K, V]{k, v}
		r.order.MoveToFront(el)
		return
	}
	r.m[k] = r.order.PushFront(entry[K, V]{k, v})
}

func (r *recent[K, V]) remove(k K) {
	if el := r.m[k]; el != nil {
		r.order.Remove(el)
		delete(r.m, k)
	}
}

// trim forgets the entries used longest ago, down to max, and returns them.
// Entries that busy names stay, even above max. A nil busy names none.
func (r *recent[K, V]) trim(busy func(V) bool) (gone []V) {
	for el := r.order.Back(); el != nil && r.order.Len() > r.max; {
		e, prev := el.Value.(entry[K, V]), el.Prev()
		if busy == nil || !busy(e.value) {
			r.order.Remove(el)
			delete(r.m, e.key)
			gone = append(gone, e.value)
		}
		el = prev
	}
	return gone
}

// values returns all values, used last first.
func (r *recent[K, V]) values() []V {
	vs := make([]V, 0, r.order.Len())
	for el := r.order.Front(); el != nil; el = el.Next() {
		vs = append(vs, el.Value.(entry[K, V]).value)
	}
	return vs
}
