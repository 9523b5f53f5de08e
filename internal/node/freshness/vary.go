package freshness

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A Selecting is a request field that chose an answer among several for one
// URI, with the value it had, in its normal form: a part of the secondary key of
// RFC 9111, 4.1.
type Selecting struct{ Name, Value string }

// Selection is what of r chose the answer with the header h, by the names in
// its Vary, sorted; nil if nothing did. It is not ok if no other request can
// ever match (Vary: *). Accept-Encoding selects nothing: every request to an
// origin asks for identity.
func Selection(h http.Header, r *Request) (s []Selecting, ok bool) {
	names, ok := varying(h)
	for _, n := range names {
		s = append(s, Selecting{n, normal(n, r.Header(n))})
	}
	return s, ok
}

// Selects says whether r would have been given the answer that has the
// selection s.
func Selects(s []Selecting, r *Request) bool {
	for _, x := range s {
		if normal(x.Name, r.Header(x.Name)) != x.Value {
			return false
		}
	}
	return true
}

// Reselect is the selection of r by the names of s: where the answer for it
// would be kept.
func Reselect(s []Selecting, r *Request) []Selecting {
	other := make([]Selecting, len(s))
	for i, x := range s {
		other[i] = Selecting{x.Name, normal(x.Name, r.Header(x.Name))}
	}
	return other
}

// varying is the names in Vary, canonical, sorted and each once; not ok if one
// is "*".
func varying(h http.Header) (names []string, ok bool) {
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			switch name = http.CanonicalHeaderKey(trim(name)); name {
			case "*":
				return nil, false
			case "", "Accept-Encoding":
			default:
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// opaque are the fields whose syntax has no lists: a comma in them, and the
// space beside it, may mean anything.
var opaque = []string{"Authorization", "Cookie", "Referer", "User-Agent"}

// normal is a field's value without what makes no difference (RFC 9111, 4.1):
// whitespace beside commas, empty members of lists and, of the fields by which
// clients negotiate, the letters' case, whitespace beside semicolons, and the
// order; not that of languages of one weight, which some origins take for a
// preference (RFC 9110, 12.5.4).
func normal(name, value string) string {
	value = trim(value)
	if value == "" || slices.Contains(opaque, name) || strings.Contains(value, `"`) {
		return value
	}
	var members []string
	for m := range strings.SplitSeq(value, ",") {
		if m = trim(m); m != "" {
			members = append(members, m)
		}
	}
	switch name {
	case "Accept", "Accept-Charset", "Accept-Language":
		for i, m := range members {
			members[i] = preference(m)
		}
		if name == "Accept-Language" {
			slices.SortStableFunc(members, func(a, b string) int { return cmp.Compare(weight(b), weight(a)) })
		} else {
			slices.Sort(members)
		}
		members = slices.Compact(members)
	}
	return strings.Join(members, ",")
}

// weight is that of a preference.
func weight(preference string) float64 {
	_, v, found := strings.Cut(preference, ";q=")
	if q, err := strconv.ParseFloat(v, 64); found && err == nil {
		return q
	}
	return 1
}

// preference is a member of a negotiating field, its weight last and left out if
// it is 1 (RFC 9110, 12.4.2).
func preference(m string) string {
	parts := strings.Split(strings.ToLower(m), ";")
	weight := ""
	kept := parts[:0]
	for _, p := range parts {
		p = trim(p)
		if v, ok := strings.CutPrefix(p, "q="); ok {
			if q, err := strconv.ParseFloat(v, 64); err == nil && q >= 0 && q < 1 {
				weight = ";q=" + strconv.FormatFloat(q, 'f', -1, 64)
			}
			continue
		}
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, ";") + weight
}
