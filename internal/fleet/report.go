package fleet

import "time"

// Delivery is what a node sends once a minute: how it is now, and the minutes
// that the control plane has not acknowledged yet, oldest first.
type Delivery struct {
	Protocol int `json:"protocol"`
	// Instance is random for each start of the node's process. Two that take
	// turns are two machines with one identity.
	Instance string    `json:"instance"`
	Sent     time.Time `json:"sent"` // the node's clock, to see how far it is off
	State    State     `json:"state"`
	Minutes  []Minute  `json:"minutes,omitempty"`
}

// MaxMinutes is how many minutes one delivery may hold.
const MaxMinutes = 240

// How many content types and origins one minute may tell apart. Nodes put the
// smallest of more into one, Others.
const (
	MaxContentTypes = 64
	MaxOrigins      = 256
	Others          = "others"
)

// Minute is what a node did in one span of about a minute. Its counts are of
// that span alone.
//
// Seq makes it unique within the node's line: it grows by one for each minute,
// across restarts. The control plane takes a minute once, by Seq above all it
// has taken.
type Minute struct {
	Seq     int64      `json:"seq"`
	Start   time.Time  `json:"start"`
	End     time.Time  `json:"end"`
	Traffic []Traffic  `json:"traffic,omitempty"`
	Origins []Upstream `json:"origins,omitempty"`
}

// Traffic is what went through a node in one minute, of one content type. All
// counts may be zero; a content type without any is left out.
type Traffic struct {
	ContentType string `json:"contentType"`
	Requests    int64  `json:"requests"`
	Hits        int64  `json:"hits"` // of Requests, answered from the store
	HitBytes    int64  `json:"hitBytes"`
	MissBytes   int64  `json:"missBytes"`
	Fetched     int64  `json:"fetchedBytes"` // from upstream
	// Outcomes are the Requests again, by what the cache did ("hit", "miss",
	// "refused", …) and the status class ("2xx").
	Outcomes []Outcome `json:"outcomes,omitempty"`
}

// Outcome counts requests that ended alike.
type Outcome struct {
	Outcome  string `json:"outcome"`
	Status   string `json:"status"`
	Requests int64  `json:"requests"`
}

// Upstream is how one origin did in one minute.
type Upstream struct {
	Host     string `json:"host"`
	OK       int64  `json:"ok"`
	Failures int64  `json:"failures"`
}

// Accepted answers a Delivery.
type Accepted struct {
	// Seq is the highest minute the control plane has taken of this line: the
	// node forgets all up to it, and continues above it.
	Seq int64 `json:"seq"`
	// Desired is the number of the node's document now.
	Desired int64     `json:"desired"`
	Time    time.Time `json:"time"` // the control plane's clock
	// Roots are those to trust the control plane by, when they are others than
	// the connection's; PEM.
	Roots string `json:"roots,omitempty"`
}

// State is how a node is at the time of a delivery.
type State struct {
	System   System    `json:"system"`
	Started  time.Time `json:"started"`
	HTTP     []string  `json:"http"`
	HTTPS    []string  `json:"https"`
	Ready    bool      `json:"ready"`
	Draining bool      `json:"draining,omitempty"`
	// Running is the number of the document the node runs. Refused is the
	// number of a later one that it could not apply, and Why says what of it.
	Running int64  `json:"running"`
	Refused int64  `json:"refused,omitempty"`
	Why     string `json:"why,omitempty"`
	// Replaced is when the node saw that another program lies where its own was
	// started from: an update that its next start takes. Zero: there is none.
	Replaced time.Time `json:"replaced,omitzero"`

	Drives       []DriveState  `json:"drives"`
	Origins      []OriginState `json:"origins,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	Issues       []Issue       `json:"issues,omitempty"`
	Jobs         []JobState    `json:"jobs,omitempty"`
	// Dropped is how many minutes the node threw away since its start because
	// they waited longer than its buffer holds.
	Dropped int64 `json:"dropped,omitempty"`
}

// DriveState is the state of one drive.
type DriveState struct {
	Path    string    `json:"path"`
	ID      string    `json:"id"`
	Budget  int64     `json:"budget"`
	Used    int64     `json:"used"`
	Free    int64     `json:"free"` // on the file system
	Objects int64     `json:"objects"`
	State   string    `json:"state"` // ok, read-only, failed or out
	Error   string    `json:"error,omitempty"`
	Since   time.Time `json:"since"`
}

// OriginState is how an origin has been since the node started.
type OriginState struct {
	Host        string    `json:"host"`
	OK          int64     `json:"ok"`
	Failures    int64     `json:"failures"`
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	LastOKAt    time.Time `json:"lastOkAt,omitzero"`
}

// Certificate is a serving certificate that a node has.
type Certificate struct {
	File      string    `json:"file"`
	Active    bool      `json:"active"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names"` // DNS names and addresses
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	SHA256    string    `json:"sha256"`
	SHA1      string    `json:"sha1"` // Windows shows it as the thumbprint
	KeyType   string    `json:"keyType"`
	Source    string    `json:"source,omitempty"` // csr, import, acme, est, scep, command
	// Action is what a person should do about it, "" for nothing.
	Action      string    `json:"action,omitempty"`
	Severity    string    `json:"severity,omitempty"` // of Action: info, warning or error
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	LastError   string    `json:"lastError,omitempty"` // of the last automatic renewal
}

// Issue is something that needs attention. Type is a short stable word, so that
// an issue that stays is the same one a minute later.
type Issue struct {
	Type    string    `json:"type"`
	Subject string    `json:"subject,omitempty"` // what it is about: a drive's path, a host
	Text    string    `json:"text"`
	Fix     string    `json:"fix,omitempty"`
	Since   time.Time `json:"since,omitzero"`
}

// JobState is how far a prefill or purge is.
type JobState struct {
	ID      string    `json:"id"`
	State   string    `json:"state"` // waiting, running, done or failed
	Detail  string    `json:"detail,omitempty"`
	Objects int       `json:"objects"`
	Bytes   int64     `json:"bytes"`
	Ended   time.Time `json:"ended,omitzero"`
}
