package main

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A download is a request before its place in the trace is known.
type download struct {
	at         time.Duration // since the first Monday, 00:00
	object     int32
	first, end int32 // chunks
	pieces     int32
}

// generator draws a fleet's downloads.
type generator struct {
	fleet     fleet
	rand      *rand.Rand
	machines  float64
	objects   []object
	downloads []download
}

func newGenerator(f fleet, machines float64, seed uint64) *generator {
	return &generator{fleet: f, rand: rand.New(rand.NewPCG(seed, 0)), machines: machines}
}

// generate makes a trace of about so many requests. The same seed makes the same one.
func (f fleet) generate(requests int, seed uint64) *trace {
	g := newGenerator(f, max(10, float64(requests)/float64(f.PerHead)), seed)
	shares := 0.0
	for i, k := range f.Kinds {
		shares += k.Share
		if k.Every > 0 {
			g.batches(uint8(i))
		}
	}
	left := float64(requests - len(g.downloads))
	for i, k := range f.Kinds {
		if k.Share > 0 {
			g.publish(uint8(i), int(left*k.Share/shares))
		}
	}
	slices.SortStableFunc(g.downloads, func(a, b download) int { return cmp.Compare(a.at, b.at) })
	t := &trace{objects: g.objects, requests: make([]request, len(g.downloads))}
	for i, d := range g.downloads {
		t.requests[i] = request{object: d.object, first: d.first, end: d.end, pieces: d.pieces}
	}
	t.number()
	return t
}

func (g *generator) length() time.Duration { return time.Duration(g.fleet.Days) * day }

// batches publishes what comes by the calendar.
func (g *generator) batches(number uint8) {
	k := &g.fleet.Kinds[number]
	for at := k.First; at < g.length(); at += k.Every {
		for n := range k.Batch {
			audience := g.machines * k.Wanted / math.Pow(float64(n+1), k.Zipf)
			g.object(number, at, int(math.Ceil(audience)))
		}
	}
}

// publish publishes at any time, from well before the trace begins, until about
// so many downloads of it lie in the trace.
func (g *generator) publish(number uint8, downloads int) {
	k := &g.fleet.Kinds[number]
	before := 6 * k.HalfLife
	for until := len(g.downloads) + downloads; len(g.downloads) < until; {
		at := time.Duration(g.rand.Int64N(int64(before+g.length()))) - before
		audience := 1.0
		if g.rand.Float64() >= k.OneHit {
			// Sizes by rank^-s are those of a Pareto distribution of exponent 1/s.
			audience = math.Min(2*math.Pow(1-g.rand.Float64(), -k.Zipf), math.Max(2, g.machines*k.Wanted))
		}
		g.object(number, at, int(audience))
	}
}

// object publishes one object and lets its audience come. It is part of the
// trace only if somebody comes while that lasts.
func (g *generator) object(number uint8, at time.Duration, audience int) {
	k := &g.fleet.Kinds[number]
	size := math.Min(k.Median*math.Exp(k.Sigma*g.rand.NormFloat64()), k.Max)
	o := object{size: max(200, int64(size)), kind: number}
	had := len(g.downloads)
	for range audience {
		g.visit(k, o, at)
	}
	if len(g.downloads) > had {
		g.objects = append(g.objects, o)
	}
}

// visit lets one machine come for an object that was published at a time.
func (g *generator) visit(k *kind, o object, at time.Duration) {
	if k.Rings {
		at += g.ring()
	}
	wait := -math.Log2(1-g.rand.Float64()) * float64(k.HalfLife)
	if g.rand.Float64() < g.fleet.Late {
		wait *= 8
	}
	at = g.awake(k, at+time.Duration(wait))
	n := o.chunks()
	if g.rand.Float64() >= k.Partial || n == 1 {
		g.download(k, at, 0, n)
		return
	}
	cut := 1 + g.rand.Int32N(n-1)
	switch g.rand.IntN(3) {
	case 0: // given up
		g.download(k, at, 0, cut)
	case 1: // given up and taken up again
		g.download(k, at, 0, cut)
		later := time.Duration(g.rand.ExpFloat64() * float64(12*time.Hour))
		g.download(k, g.awake(k, at+later), cut, n)
	default: // what changed since the machine's own version
		g.download(k, at, cut, min(n, cut+1+g.rand.Int32N(n)))
	}
}

func (g *generator) ring() time.Duration {
	x := g.rand.Float64()
	for _, r := range rings {
		if x -= r.share; x < 0 {
			return r.after
		}
	}
	return rings[len(rings)-1].after
}

// awake returns the first time from at on that a machine does its downloads.
func (g *generator) awake(k *kind, at time.Duration) time.Duration {
	site := g.fleet.Sites[g.rand.IntN(len(g.fleet.Sites))]
	for g.rand.Float64() >= activity(k.Office, at+site) {
		at += time.Duration(g.rand.ExpFloat64() * float64(time.Hour))
	}
	return at
}

// activity is the part of the machines that are on, by the clock of their site.
func activity(office bool, local time.Duration) float64 {
	local = (local%week + week) % week
	hour := (local % day).Hours()
	switch {
	case !office:
		return 0.7 + 0.3*math.Sin((hour-9)/12*math.Pi) // most at 15:00
	case local >= 5*day:
		return 0.03
	case hour < 7 || hour >= 18:
		return 0.06
	default:
		return 0.6 + 0.4*math.Sin((hour-7)/11*math.Pi)
	}
}

func (g *generator) download(k *kind, at time.Duration, first, end int32) {
	if at < 0 || at >= g.length() {
		return
	}
	pieces := int32(1)
	if k.Pieces {
		pieces += end - first
	}
	g.downloads = append(g.downloads, download{at, int32(len(g.objects)), first, end, pieces})
}
