// Package larder is the root of the module: it holds no code, only the tests
// that guard the shape of the tree.
package larder
