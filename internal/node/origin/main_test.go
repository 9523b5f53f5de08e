package origin

import (
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the clients that the tests closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
