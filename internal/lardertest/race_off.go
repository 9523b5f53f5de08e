//go:build !race

package lardertest

// raceEnabled says that the test was built with the race detector.
const raceEnabled = false
