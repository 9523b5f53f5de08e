// Package controlplane is for proving that the control plane of the real binary
// is what Azure's own clients and real nodes expect.
package controlplane
