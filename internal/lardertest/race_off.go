//go:build !race

package lardertest

// Race says that the test was built with the race detector, and so is what
// Binary builds: slower by far and larger in memory.
const Race = false
