package reload

import "os"

// Notify does nothing: Windows has no such signal, and files are watched.
func Notify(chan<- os.Signal) {}
