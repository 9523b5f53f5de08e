// Package wine runs the binary for Windows under Wine, as far as Wine goes.
package wine
