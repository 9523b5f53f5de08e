// Package cachetests runs the public suite of tests for HTTP caches
// (http-cache-tests on npm) against the real binary.
//
// What a test of the suite that fails is called, and why it may, stands in
// failing.txt; a test that is there and passes is taken out.
package cachetests
