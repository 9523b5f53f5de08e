package enroll

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"larder/internal/sys/private"
)

// State is what came of the tries so far, for whoever asks: last attempt, next
// attempt, last error. It lies in auto-state.json of the TLS directory.
type State struct {
	Method      string    `json:"method"`
	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	LastError   string    `json:"lastError,omitempty"` // of the last attempt; "" if it went well
	Refused     bool      `json:"refused,omitempty"`   // somebody has to act before another try can go well
	Failures    int       `json:"failures"`            // in a row
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	Why         string    `json:"why,omitempty"` // why then

	// Settings tells the settings of the last attempt from others. Ready is the
	// SHA-256 of a certificate that was issued and could not be put in use.
	Settings string `json:"settings,omitempty"`
	Ready    string `json:"ready,omitempty"`

	// RenewFrom and RenewTo are the authority's wish (RFC 9773), to be asked
	// for again at AskAgain. For is the certificate it is about.
	RenewFrom time.Time `json:"renewFrom,omitzero"`
	RenewTo   time.Time `json:"renewTo,omitzero"`
	AskAgain  time.Time `json:"askAgain,omitzero"`
	For       string    `json:"for,omitempty"`
}

func stateFile(dir string) string { return filepath.Join(dir, "auto-state.json") }

// LoadState reads the state; none yet is the zero one.
func LoadState(dir string) (State, error) {
	var s State
	data, err := os.ReadFile(stateFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", stateFile(dir), err)
	}
	return s, nil
}

func (s State) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return private.WriteFile(stateFile(dir), append(data, '\n'))
}
