package bundle_test

import "testing"

func brokenHere(t *testing.T, good func(*testing.T, string)) []broken {
	t.Helper()
	return brokenByPermission(good)
}
