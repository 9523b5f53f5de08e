package main

// defaultConfig is where the installer puts the node's configuration.
const defaultConfig = `C:\ProgramData\Larder\node.yaml`

// defaultControlConfig is where the control plane's is.
const defaultControlConfig = `C:\ProgramData\Larder\control.yaml`
