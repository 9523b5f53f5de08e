package main

import "container/heap"

// A ranking holds objects in a heap by a number; the one with the lowest is the first to go.
type ranking struct {
	heap []int32
	rank []float64 // by object
	at   []int32   // place in heap by object; none where it is not there
}

func newRanking(objects int) *ranking {
	k := &ranking{rank: make([]float64, objects), at: make([]int32, objects)}
	for i := range k.at {
		k.at[i] = none
	}
	return k
}

func (k *ranking) has(o int32) bool { return k.at[o] != none }

// set puts o at a rank, whether it is there or not.
func (k *ranking) set(o int32, rank float64) {
	k.rank[o] = rank
	if k.has(o) {
		heap.Fix(k, int(k.at[o]))
		return
	}
	heap.Push(k, o)
}

func (k *ranking) first() int32 { return k.heap[0] }

func (k *ranking) remove(o int32) { heap.Remove(k, int(k.at[o])) }

// Len, Less, Swap, Push and Pop are for container/heap.
func (k *ranking) Len() int { return len(k.heap) }

func (k *ranking) Less(i, j int) bool {
	a, b := k.heap[i], k.heap[j]
	if k.rank[a] != k.rank[b] {
		return k.rank[a] < k.rank[b]
	}
	return a < b // so that a run can be repeated
}

func (k *ranking) Swap(i, j int) {
	k.heap[i], k.heap[j] = k.heap[j], k.heap[i]
	k.at[k.heap[i]], k.at[k.heap[j]] = int32(i), int32(j)
}

func (k *ranking) Push(x any) {
	o := x.(int32)
	k.at[o] = int32(len(k.heap))
	k.heap = append(k.heap, o)
}

func (k *ranking) Pop() any {
	o := k.heap[len(k.heap)-1]
	k.heap = k.heap[:len(k.heap)-1]
	k.at[o] = none
	return o
}
