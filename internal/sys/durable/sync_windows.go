package durable

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

func syncDir(string) error { return nil }

// patience is how long a file may be in the way of its successor, or its
// successor in the way of who reads it.
const patience = 2 * time.Second

// rename replaces a file that others may be reading just now: Windows refuses
// that while they have it open, which here is for a moment.
func rename(from, to string) error {
	return patiently(func() error { return os.Rename(from, to) })
}

// readFile reads a file that may be replaced just now, for which moment Windows
// does not open it.
func readFile(name string) (data []byte, err error) {
	err = patiently(func() error {
		data, err = os.ReadFile(name)
		return err
	})
	return data, err
}

// patiently does something with a file again while others have it in use.
func patiently(do func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := do()
		inUse := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !inUse || time.Since(began) > patience {
			return err
		}
	}
}
