package origin

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxHosts    = 256
	maxRanges   = 4096
	rangesDecay = 24 * time.Hour
)

// HostStatus is how requests to one origin host went.
type HostStatus struct {
	Host      string    `json:"host"`
	OK        int64     `json:"ok"`       // requests answered below 500
	Failures  int64     `json:"failures"` // errors and answers from 500 up
	LastErr   string    `json:"last_error,omitempty"`
	LastErrAt time.Time `json:"last_error_at,omitzero"`
	LastOKAt  time.Time `json:"last_ok_at,omitzero"`
	Conns     int       `json:"connections"` // open now
}

type hostRecord struct {
	name  string
	conns atomic.Int64

	mu     sync.Mutex
	status HostStatus // guarded by mu
}

// hostLocked returns the record of a host. c.mu is held.
func (c *Client) hostLocked(name string) *hostRecord {
	h, ok := c.hosts.get(name)
	if !ok {
		h = &hostRecord{name: name, status: HostStatus{Host: name}}
		c.hosts.put(name, h)
		c.hosts.trim(nil)
	}
	return h
}

func (h *hostRecord) ok() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status.OK++
	h.status.LastOKAt = time.Now()
}

func (h *hostRecord) failed(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status.Failures++
	h.status.LastErr = text
	h.status.LastErrAt = time.Now()
}

// Hosts returns how the hosts asked last are doing, the last first, at most
// 256.
func (c *Client) Hosts() []HostStatus {
	c.mu.Lock()
	hosts := c.hosts.values()
	c.mu.Unlock()
	all := make([]HostStatus, len(hosts))
	for i, h := range hosts {
		h.mu.Lock()
		all[i] = h.status
		h.mu.Unlock()
		all[i].Conns = int(h.conns.Load())
	}
	return all
}

// Ranges is what is known about a host's answers to range requests.
type Ranges int

const (
	RangesUnknown Ranges = iota
	RangesYes
	RangesNo
)

func (r Ranges) String() string {
	switch r {
	case RangesYes:
		return "yes"
	case RangesNo:
		return "no"
	}
	return "unknown"
}

type learntRanges struct {
	ranges Ranges
	at     time.Time
}

// Ranges says whether a host answers range requests with ranges, as learnt in
// the last 24 hours.
func (c *Client) Ranges(host string) Ranges {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.ranges.get(host)
	if !ok {
		return RangesUnknown
	}
	if time.Since(l.at) >= rangesDecay {
		c.ranges.remove(host)
		return RangesUnknown
	}
	return l.ranges
}

// LearnRanges notes whether a host answered a range request with a range. The
// newest word counts.
func (c *Client) LearnRanges(host string, yes bool) {
	l := learntRanges{RangesNo, time.Now()}
	if yes {
		l.ranges = RangesYes
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ranges.put(host, l)
	c.ranges.trim(nil)
}
