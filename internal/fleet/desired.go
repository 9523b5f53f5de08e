package fleet

import "time"

// Desired is all that a node is to be, as one document with a number. A node
// keeps the last one that worked on its disk and starts with it when the
// control plane is not there.
//
// A part that is nil or empty leaves the node's own configuration file in
// charge of it.
type Desired struct {
	Protocol int    `json:"protocol"`
	Node     string `json:"node"` // cacheNodeId; a node refuses a document that is not its own
	// Number grows with every change of this node's document. 0: nothing is
	// desired yet.
	Number int64 `json:"number"`

	Drives      []Drive   `json:"drives,omitempty"`
	Proxy       *Proxy    `json:"proxy,omitempty"`
	Limit       *Limit    `json:"limit,omitempty"`
	Catalog     *Catalog  `json:"catalog,omitempty"`
	ClientNames []string  `json:"clientNames,omitempty"` // what clients are told to use, as in DOCacheHost
	Update      *Update   `json:"update,omitempty"`
	Prefill     []Prefill `json:"prefill,omitempty"`
	Purge       []Purge   `json:"purge,omitempty"`
	// Drain asks the node to finish what it serves and take itself out of
	// rotation: /readyz says no, content is still served to those who ask.
	Drain bool `json:"drain,omitempty"`
}

// Drive is a directory with a budget where objects lie.
type Drive struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes on disk
}

// Proxy says how origins are reached.
type Proxy struct {
	URL string `json:"url"`          // http://host:port; "": directly, whatever the environment says
	CA  string `json:"ca,omitempty"` // PEM of roots of a proxy that opens TLS; "" for none
}

// Limit is the most a node fetches from upstream, all origins together.
type Limit struct {
	Rate     int64    `json:"rate"` // bytes per second outside the windows; 0: no limit
	Schedule []Window `json:"schedule,omitempty"`
}

// Window is a part of the week, in the node's local time, with its own limit.
type Window struct {
	Days []time.Weekday `json:"days"` // 0 is Sunday
	From int            `json:"from"` // minutes since midnight
	To   int            `json:"to"`   // minutes since midnight, above From, at most 1440
	Rate int64          `json:"rate"` // bytes per second; 0: no limit
}

// Catalog says which publishers are served.
type Catalog struct {
	// Builtin names the built-in publishers. nil: all; empty: none.
	Builtin    []string    `json:"builtin"`
	Publishers []Publisher `json:"publishers,omitempty"`
}

// Publisher is one of the organisation's own publisher files.
type Publisher struct {
	Name string `json:"name"` // unique; [a-z0-9-]
	File string `json:"file"` // YAML, the format of docs/operating/node.md
}

// Update says when a node may be updated. Days count from 1, Monday.
type Update struct {
	Ring string `json:"ring"`           // Stable or Beta
	Week int    `json:"week,omitempty"` // of the month, 1 to 5; Stable only
	Day  int    `json:"day,omitempty"`  // of the week, 1 to 7; Stable only
	Time string `json:"time,omitempty"` // hh:mm UTC; Stable only
}

// Prefill asks a node to fetch what clients will want.
type Prefill struct {
	ID        string    `json:"id"`
	URLs      []string  `json:"urls"`
	NotBefore time.Time `json:"notBefore,omitzero"`
}

// Purge asks a node to drop objects. Exactly one of Key, Prefix and Publisher
// is set.
type Purge struct {
	ID        string `json:"id"`
	Key       string `json:"key,omitempty"`
	Prefix    string `json:"prefix,omitempty"`
	Publisher string `json:"publisher,omitempty"`
}
