package winservice

import (
	"bytes"
	"encoding/json"
)

// severity is what an event is shown as.
type severity int

const (
	information severity = iota
	warning
	failure
)

// severityOf reads the level of a line that slog's JSON handler wrote. What is
// not one of those is worth a warning: nobody writes to a service's log by hand.
func severityOf(line []byte) severity {
	var of struct{ Level string }
	if json.Unmarshal(bytes.TrimSpace(line), &of) != nil {
		return warning
	}
	switch {
	case len(of.Level) >= 5 && of.Level[:5] == "ERROR":
		return failure
	case len(of.Level) >= 4 && of.Level[:4] == "WARN":
		return warning
	}
	return information
}
