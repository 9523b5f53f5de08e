// Package packaging holds what Larder is installed with: units, scripts and
// the recipes for packages of Linux and Windows.
package packaging
