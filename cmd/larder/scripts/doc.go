// Package scripts holds the sessions at a terminal that the larder command must
// stand: text scripts in testdata, run against the real binary.
package scripts
