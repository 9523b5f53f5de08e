package preflight

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

const whyVersion = "what this program sets up is done by the running node: it must be able to"

// versionCheck compares the running node with this program.
func versionCheck(o Options) Check {
	c := Check{ID: IDVersion, Title: "Version of the node", Result: OK, Why: whyVersion}
	n := o.Node
	if !n.Running {
		c.Result, c.Found = Info, "no node is running here that could be asked; this program is "+orUnknown(o.Version)
		c.Do = "start the node and look again: what it would serve and to whom can be seen only then"
		return c
	}
	order, comparable := compareVersions(n.Version, o.Version)
	least, known := compareVersions(n.Version, o.MinVersion)
	c.Found = "the node runs " + orUnknown(n.Version)
	switch {
	case o.MinVersion != "" && known && least < 0:
		c.Result = Failed
		c.Found += ", and HTTPS needs " + o.MinVersion
		c.Do = "update the node"
	case n.Version == "":
		c.Result = Warning
		c.Do = "ask it (larder node status), and restart it with the program that is installed"
	case n.Version == o.Version:
		c.Found += ", as does this program"
	case comparable && order < 0:
		c.Result = Warning
		c.Found += ", this program is newer: " + o.Version
		c.Do = "restart the node, so that it runs what is installed"
	case comparable && order > 0:
		c.Result = Warning
		c.Found += ", this program is older: " + orUnknown(o.Version)
		c.Do = "use the program that belongs to the node"
	case comparable:
		c.Found += ", this program " + o.Version
	default:
		c.Result = Warning
		c.Found += fmt.Sprintf(", this program is another build: %s", orUnknown(o.Version))
		c.Do = "restart the node, so that it runs what is installed"
	}
	return c
}

func orUnknown(version string) string {
	if version == "" {
		return "an unknown version"
	}
	return version
}

// compareVersions orders versions such as v1.2.3 and 1.3.0-rc.1 as Semantic
// Versioning 2.0.0 section 11 does. ok is false if one of them is something
// else, as builds between releases are.
func compareVersions(a, b string) (order int, ok bool) {
	numbersA, preA, okA := splitVersion(a)
	numbersB, preB, okB := splitVersion(b)
	if !okA || !okB {
		return 0, false
	}
	for i := range numbersA {
		if order = cmp.Compare(numbersA[i], numbersB[i]); order != 0 {
			return order, true
		}
	}
	switch {
	case preA == preB:
		return 0, true
	case preA == "":
		return 1, true
	case preB == "":
		return -1, true
	}
	partsA, partsB := strings.Split(preA, "."), strings.Split(preB, ".")
	for i := range min(len(partsA), len(partsB)) {
		if order = comparePart(partsA[i], partsB[i]); order != 0 {
			return order, true
		}
	}
	return cmp.Compare(len(partsA), len(partsB)), true
}

func comparePart(a, b string) int {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	switch {
	case errA == nil && errB == nil:
		return cmp.Compare(x, y)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	return strings.Compare(a, b)
}

func splitVersion(v string) (numbers [3]uint64, pre string, ok bool) {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "+")
	core, pre, _ := strings.Cut(v, "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(numbers) {
		return numbers, "", false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return numbers, "", false
		}
		numbers[i] = n
	}
	return numbers, pre, true
}
