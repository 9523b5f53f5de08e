// Package registries holds the proof that real package managers install real
// packages through a node, and that the second machine costs nothing upstream.
//
// Its tests take the registries that apt, npm and go are configured for where
// they run, from the clients' own configuration. They skip, and say why, where
// there is none.
package registries
