package lardertest

import "time"

// Behaviour says how an Origin answers one request. The zero value is a good
// server: ranges, strong entity tag, Last-Modified, exact lengths, keep-alive.
// Fields can be combined as far as that has a meaning.
type Behaviour struct {
	// Before is called when the request is there and before anything is
	// answered. It may block (a gate), or change the origin: SetVersion takes
	// effect for this very answer.
	Before func(Recorded)

	Hang  bool          // read the request, never answer
	Reset bool          // cut the connection with RST instead of an answer
	Raw   []byte        // send this instead of an answer, then close
	Delay time.Duration // wait before the head

	Interim  []int    // 1xx answers to send first
	Status   int      // other than 200 and 206: a short text is the body
	Location string   // for redirects
	Header   []string // more header lines, "Name: value", as they are

	IgnoreRange  bool       // 200 and everything to whatever Range
	StrictRange  bool       // 416 to a range that ends past the end, instead of clamping it
	Validators   Validators // what is said about the version
	LowerCase    bool       // header names in lower case
	Gzip         bool       // Content-Encoding: gzip although nobody asked; the whole, never ranges
	Chunked      bool       // Transfer-Encoding: chunked, no Content-Length
	NoLength     bool       // neither: the end of the connection is the end of the body
	NoKeepAlive  bool       // Connection: close
	NoDate       bool       // no Date
	UnknownTotal bool       // "/*" in Content-Range

	LengthDelta int64 // added to the true Content-Length; the connection is closed after the true body
	StartDelta  int64 // added to both positions in Content-Range
	TotalDelta  int64 // added to the total in Content-Range

	Pace     int           // bytes per second of this body; 0: as fast as it goes
	Truncate bool          // close after After bytes of the body
	Stall    bool          // go silent after After bytes of the body
	After    int64         // bytes; 0: right after the head
	StallFor time.Duration // and go on after that; 0: silent until the other side leaves
}

// Validators is what an answer says about the version of the object.
type Validators int

// The kinds of validators.
const (
	StrongValidators Validators = iota // a strong ETag and Last-Modified
	NoValidators
	WeakETag     // a weak ETag, nothing else
	LastModified // nothing else
	StrongETag   // nothing else
)

// plan is what requests of one path meet: behaviours in order, the last one
// for ever.
type plan struct {
	steps []Behaviour
	used  int
}

func (p *plan) next() Behaviour {
	b := p.steps[min(p.used, len(p.steps)-1)]
	p.used++
	return b
}
