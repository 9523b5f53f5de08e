package lardertest

import (
	"fmt"
	"strconv"
	"strings"
)

// sumMetric finds a metric in the Prometheus text format and sums its series
// that have all the labels, name and value in turn.
func sumMetric(text, name string, labels ...string) (float64, error) {
	if len(labels)%2 != 0 {
		return 0, fmt.Errorf("metric %s: a label without a value: %q", name, labels)
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue // another metric whose name begins alike, or a comment
		}
		have := map[string]string{}
		if rest[0] == '{' {
			var err error
			if have, rest, err = parseLabels(rest); err != nil {
				return 0, fmt.Errorf("metric %s: %w", name, err)
			}
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0, fmt.Errorf("metric %s: no value in %q", name, line)
		}
		value, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		if hasAll(have, labels) {
			sum += value
		}
	}
	return sum, nil
}

func hasAll(have map[string]string, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if value, ok := have[labels[i]]; !ok || value != labels[i+1] {
			return false
		}
	}
	return true
}

// parseLabels reads {name="value",…} and returns what follows it.
func parseLabels(s string) (map[string]string, string, error) {
	labels := map[string]string{}
	s = s[1:]
	for {
		s = strings.TrimLeft(s, ", ")
		if rest, ok := strings.CutPrefix(s, "}"); ok {
			return labels, rest, nil
		}
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return nil, "", fmt.Errorf("bad labels %q", s)
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, "", fmt.Errorf("bad label value %q: %w", rest, err)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, "", fmt.Errorf("bad label value %q: %w", quoted, err)
		}
		labels[name], s = value, rest[len(quoted):]
	}
}
