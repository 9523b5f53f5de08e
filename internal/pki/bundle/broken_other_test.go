//go:build !linux

package bundle_test

import (
	"testing"

	"larder/internal/pki/bundle"
)

func readFile(t *testing.T, path string, o bundle.Options) (*bundle.Bundle, error) {
	t.Helper()
	return bundle.ReadFile(path, o)
}

func brokenByPermission(func(*testing.T, string)) []broken { return nil }
