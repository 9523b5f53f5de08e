package alert

import (
	"fmt"
	"strings"
	"time"
)

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func spanText(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", max(0, d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

func namesText(names []string) string {
	switch {
	case len(names) == 0:
		return "no name"
	case len(names) > 5:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
	}
	return strings.Join(names, ", ")
}

func bytesText(n int64) string {
	f := float64(n)
	for _, u := range []string{"B", "kB", "MB", "GB", "TB"} {
		if f < 1000 || u == "TB" {
			return fmt.Sprintf("%.3g %s", f, u)
		}
		f /= 1000
	}
	panic("not reached")
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
