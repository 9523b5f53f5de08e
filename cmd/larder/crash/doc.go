// Package crash is for proving that a node survives what happens to its disks:
// its tests kill the real process in the middle of its work, fill, damage and
// take away its drives, and compare every byte it serves with the origin's.
package crash
