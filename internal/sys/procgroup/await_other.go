//go:build unix && !linux && !darwin

package procgroup

import "errors"

// awaitEnd cannot, so what a command leaves running is left running.
func awaitEnd(int) error { return errors.ErrUnsupported }
