package config

import (
	"fmt"
	"log/slog"
	"strings"
)

// Level is a log level in the file's words. It is a slog.Leveler.
type Level slog.Level

// Expected says what belongs into a field of this type.
func (Level) Expected() string { return "debug, info, warn or error" }

// Level is for slog.HandlerOptions.
func (l Level) Level() slog.Level { return slog.Level(l) }

func (l Level) String() string { return strings.ToLower(slog.Level(l).String()) }

// MarshalText writes the level so that UnmarshalText reads the same.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a level.
func (l *Level) UnmarshalText(text []byte) error {
	for _, known := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if string(text) == Level(known).String() {
			*l = Level(known)
			return nil
		}
	}
	return fmt.Errorf("found %q, expected %s", clip(string(text)), l.Expected())
}

// clip keeps messages readable when a field holds a novel.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
