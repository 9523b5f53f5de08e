//go:build !linux

package clock

import "errors"

func synchronised() (bool, error) { return false, errors.ErrUnsupported }
