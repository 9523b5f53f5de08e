package alert

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// The table of rules in the manual is the table of rules here.
func TestTheManualHasEveryRule(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	for _, r := range rules {
		var numbers []string
		for _, k := range slices.Sorted(maps.Keys(r.Limits)) {
			numbers = append(numbers, fmt.Sprintf("%s %g", k, r.Limits[k]))
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", r.Name, r.Severity, r.Does, strings.Join(numbers, ", "))
	}
	text, err := os.ReadFile("../../../docs/operating/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/operating/alerts.md has another table than:\n%s", want.String())
	}
}
