package main

import (
	"fmt"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// A fleet is what the requests are drawn from: machines behind one cache, and
// what is published for them. Everything published has an audience, as many
// downloads as there are machines that want it, spread over the time after its
// publication. So popular things fade, new ones come, and much is asked for once.
type fleet struct {
	Days    int             // from a Monday, 00:00 by the first site's clock
	PerHead int             // requests that a machine makes in that time; with the number of requests it gives the machines
	Sites   []time.Duration // what each site's clock is ahead of the first one's
	Late    float64         // share of downloads that come eight times later than others: machines that were off, or set up anew
	Kinds   []kind
}

// A kind is content that is published and fetched alike.
type kind struct {
	Name string

	// Either so many objects are published at once, from First on, every so
	// often, or, with Every 0, as many at any time as make this share of the
	// requests that the others leave.
	Batch        int
	First, Every time.Duration
	Share        float64

	// Sizes are log-normal: e^Sigma is how much larger than the median one
	// standard deviation is. Bytes.
	Median, Max, Sigma float64

	// The n-th of a batch has an audience of Wanted/n^Zipf of the machines.
	// Without batches audiences are drawn so that the n-th most popular is
	// like that, but for OneHit of the objects, which one machine asks for
	// once. Machines that ask again count again, so Wanted may be above 1.
	Wanted, Zipf, OneHit float64

	HalfLife time.Duration // in which half the audience has come
	Rings    bool          // the audience comes in rings: pilot, broad, the rest
	Office   bool          // in working hours; otherwise round the clock
	Partial  float64       // share of downloads that fetch only a part, or in two sittings
	Pieces   bool          // fetched by ranges of 1 MiB after a probe, as Delivery Optimization does
}

// rings are the shares of the machines that a patch is offered to so long after its publication.
var rings = []struct {
	share float64
	after time.Duration
}{{0.1, 0}, {0.6, day}, {0.3, week}}

const (
	kB = 1e3
	mB = 1e6
	gB = 1e9
)

// patchday is what Windows machines under management fetch.
var patchday = []kind{
	{Name: "cumulative updates", Batch: 14, First: day + 18*time.Hour, Every: 4 * week, Median: 450 * mB, Sigma: 0.9, Max: 5 * gB,
		Wanted: 0.55, Zipf: 1, HalfLife: 5 * time.Hour, Rings: true, Office: true, Partial: 0.15, Pieces: true},
	{Name: "small updates", Batch: 60, First: day + 18*time.Hour, Every: 4 * week, Median: 8 * mB, Sigma: 1.5, Max: gB,
		Wanted: 0.7, Zipf: 0.8, HalfLife: 5 * time.Hour, Rings: true, Office: true, Partial: 0.05, Pieces: true},
	{Name: "drivers and upgrades", Share: 4, Median: 6 * mB, Sigma: 2.1, Max: 6 * gB,
		Wanted: 0.5, Zipf: 1, OneHit: 0.5, HalfLife: 10 * day, Office: true, Partial: 0.1, Pieces: true},
	{Name: "definitions", Batch: 4, First: 2 * time.Hour, Every: 6 * time.Hour, Median: 2 * mB, Sigma: 1.8, Max: 200 * mB,
		Wanted: 0.8, Zipf: 1.5, HalfLife: 3 * time.Hour, Office: true, Partial: 0.02, Pieces: true},
	{Name: "office", Share: 6, Median: 4 * mB, Sigma: 2.2, Max: 2.8 * gB,
		Wanted: 0.8, Zipf: 0.9, OneHit: 0.3, HalfLife: 4 * day, Office: true, Partial: 0.5, Pieces: true},
	{Name: "store apps", Share: 3, Median: 15 * mB, Sigma: 1.7, Max: 4 * gB,
		Wanted: 0.4, Zipf: 0.8, OneHit: 0.65, HalfLife: 12 * day, Office: true, Partial: 0.1, Pieces: true},
	{Name: "games", Share: 0.05, Median: 1.5 * gB, Sigma: 0.9, Max: 9 * gB,
		Wanted: 0.05, Zipf: 0.8, OneHit: 0.8, HalfLife: 12 * day, Partial: 0.3, Pieces: true},
	{Name: "win32 apps", Share: 1.5, Median: 40 * mB, Sigma: 1.6, Max: 4 * gB,
		Wanted: 0.9, Zipf: 0.9, OneHit: 0.3, HalfLife: 25 * day, Office: true, Partial: 0.05, Pieces: true},
}

// mirror is what Linux machines, and builds that set some up all day, fetch from a distribution.
var mirror = []kind{
	{Name: "package lists", Batch: 12, First: time.Hour, Every: 6 * time.Hour, Median: 900 * kB, Sigma: 1.2, Max: 60 * mB,
		Wanted: 0.12, Zipf: 0.6, HalfLife: 4 * time.Hour},
	{Name: "packages", Share: 45, Median: 60 * kB, Sigma: 1.8, Max: 600 * mB,
		Wanted: 3, Zipf: 0.9, OneHit: 0.55, HalfLife: 15 * day, Partial: 0.01},
}

func fleetOf(workload string) (fleet, error) {
	f := fleet{Days: 56, PerHead: 1000, Sites: []time.Duration{0, time.Hour, -6 * time.Hour}, Late: 0.08}
	switch workload {
	case "patchday":
		f.Kinds = patchday
	case "mirror":
		f.Kinds = mirror
	case "mixed":
		f.Kinds = append(append(f.Kinds, patchday...), mirror...)
	default:
		return fleet{}, fmt.Errorf("-workload %q: expected patchday, mirror or mixed", workload)
	}
	return f, nil
}
