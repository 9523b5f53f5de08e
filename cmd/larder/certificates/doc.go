// Package certificates holds the tests of a certificate's life on the real binary: requests, imports, renewals and their real peers.
package certificates
