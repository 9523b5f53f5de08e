package strictyaml

import "strings"

// nearest returns the name a person most likely meant, or "" when none is
// near: the same letters but for case, hyphens and underscores, or a few slips
// of the keyboard away.
func nearest(got string, names []string) string {
	fold := strings.NewReplacer("-", "", "_", "", " ", "")
	g := strings.ToLower(fold.Replace(got))
	if len(g) > 64 {
		return "" // not a slip, and distance costs its square
	}
	best, least := "", len(g)/3+1
	for _, name := range names {
		if d := distance(g, strings.ToLower(fold.Replace(name))); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
