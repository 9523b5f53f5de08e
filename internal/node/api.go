package node

import (
	"time"

	"larder/internal/node/origin"
	"larder/internal/node/store"
)

// The words of the admin calls. Names are camelCase in JSON, sizes are bytes.

// DriveInfo is the state of one drive.
type DriveInfo struct {
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

func driveInfos(ds []store.DriveStatus) []DriveInfo {
	out := make([]DriveInfo, len(ds))
	for i, d := range ds {
		out[i] = DriveInfo{d.Path, d.ID, d.Budget, d.Used, d.Free, d.Objects, d.State, d.Err, d.Since}
	}
	return out
}

// OriginInfo is how an origin has been lately.
type OriginInfo struct {
	Host        string    `json:"host"`
	OK          int64     `json:"ok"`       // requests answered below 500
	Failures    int64     `json:"failures"` // errors, and answers from 500 up
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	LastOKAt    time.Time `json:"lastOkAt,omitzero"`
	Connections int       `json:"connections"`
}

func originInfos(hs []origin.HostStatus) []OriginInfo {
	out := make([]OriginInfo, len(hs))
	for i, h := range hs {
		out[i] = OriginInfo{h.Host, h.OK, h.Failures, h.LastErr, h.LastErrAt, h.LastOKAt, h.Conns}
	}
	return out
}

// ObjectInfo is one stored object.
type ObjectInfo struct {
	Key           string    `json:"key"`
	URL           string    `json:"url"`
	Publisher     string    `json:"publisher"`
	ContentType   string    `json:"contentType"`
	Size          int64     `json:"size"`
	Stored        int64     `json:"stored"` // of it present
	Chunks        int64     `json:"chunks"`
	ChunksPresent int64     `json:"chunksPresent"`
	Pinned        bool      `json:"pinned"`
	ETag          string    `json:"etag,omitempty"`
	Created       time.Time `json:"created"`
	Drive         int       `json:"drive"` // number in the configuration
}

func objectInfos(is []store.Info) []ObjectInfo {
	out := make([]ObjectInfo, len(is))
	for i, x := range is {
		out[i] = ObjectInfo{x.Key, x.URL, x.Publisher, x.ContentType, x.Size, x.Stored, x.Chunks, x.ChunksPresent,
			x.Pinned, x.ETag, x.Created, x.Drive}
	}
	return out
}

// Selected says how much a purge or a pin was about.
type Selected struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	DryRun  bool  `json:"dryRun,omitempty"`
}

// Scrubbed says what reading stored chunks again came to.
type Scrubbed struct {
	Objects   int   `json:"objects"`
	Chunks    int64 `json:"chunks"`
	Bytes     int64 `json:"bytes"`
	BadChunks int64 `json:"badChunks"` // they are fetched again when they are asked for
}

// ScrubRequest says what to read again.
type ScrubRequest struct {
	Selection
	Rate int64 `json:"rate"` // bytes per second; 0: as fast as the drives go
}
