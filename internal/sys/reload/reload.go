// Package reload says which signal asks a process to read its files again.
package reload
