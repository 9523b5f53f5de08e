package main

// defaultConfig is where the installer puts the node's configuration.
const defaultConfig = `C:\ProgramData\Larder\node.yaml`
