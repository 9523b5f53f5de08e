package alert

import (
	"fmt"
	"strings"
)

func namesText(names []string) string {
	switch {
	case len(names) == 0:
		return "no name"
	case len(names) > 5:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
	}
	return strings.Join(names, ", ")
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
