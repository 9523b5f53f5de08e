// Package clock asks the system whether something keeps its clock right.
package clock

// Synchronised reports whether the system believes that its clock is kept
// right, by NTP, PTP or the host of a virtual machine. Where nobody can say,
// the error is errors.ErrUnsupported, or the system's for a process that may
// not ask.
func Synchronised() (bool, error) { return synchronised() }
