package durable

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

func syncDir(string) error { return nil }

// renamePatience is how long a file may be in the way of its successor.
const renamePatience = 2 * time.Second

// rename replaces a file that others may be reading just now: Windows refuses
// that while they have it open, which here is for a moment.
func rename(from, to string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := os.Rename(from, to)
		inUse := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !inUse || time.Since(began) > renamePatience {
			return err
		}
	}
}
