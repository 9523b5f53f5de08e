// Package hostile asks a node of the real binary what attackers ask: requests
// that are to poison what others get, to fish for what others got, to be taken
// for two, or to take all there is of something.
package hostile
