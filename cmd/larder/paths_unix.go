//go:build unix

package main

// defaultConfig is where the packages put the node's configuration.
const defaultConfig = "/etc/larder/node.yaml"

// defaultControlConfig is where the control plane's is.
const defaultControlConfig = "/etc/larder/control.yaml"
