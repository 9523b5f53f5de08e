package freshness

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelection(t *testing.T) {
	t.Parallel()
	request := func(fields map[string]string) *Request {
		return &Request{Method: "GET", Header: func(name string) string { return fields[name] }}
	}
	for _, c := range []struct {
		what string
		vary []string
		then map[string]string // what the first client sent
		want []Selecting
		same []map[string]string
		not  []map[string]string
	}{
		{"no Vary", nil, nil, nil, []map[string]string{{}, {"Foo": "1"}}, nil},
		{"one field", []string{"foo"}, map[string]string{"Foo": "1"}, []Selecting{{"Foo", "1"}}, []map[string]string{{"Foo": "1"}, {"Foo": " 1 ", "Bar": "2"}}, []map[string]string{{}, {"Foo": "2"}, {"Foo": "1,1"}}},
		{"a field that was not sent", []string{"Foo"}, nil, []Selecting{{"Foo", ""}}, []map[string]string{{}, {"Bar": "1"}}, []map[string]string{{"Foo": "1"}}},
		{"several, in any order", []string{"b, A", " ,c,a"}, map[string]string{"A": "1", "B": "2", "C": "3"}, []Selecting{{"A", "1"}, {"B", "2"}, {"C", "3"}},
			[]map[string]string{{"C": "3", "B": "2", "A": "1"}}, []map[string]string{{"A": "1", "B": "2"}, {"A": "1", "B": "3", "C": "2"}}},
		{"lists", []string{"Foo"}, map[string]string{"Foo": "1,2"}, []Selecting{{"Foo", "1,2"}}, []map[string]string{{"Foo": "1 ,\t2"}, {"Foo": " 1, 2,"}}, []map[string]string{{"Foo": "2, 1"}, {"Foo": "12"}, {"Foo": "1 2"}}},
		{"languages", []string{"Accept-Language"}, map[string]string{"Accept-Language": "en, de;q=0.50"}, []Selecting{{"Accept-Language", "en,de;q=0.5"}},
			[]map[string]string{{"Accept-Language": "DE ; q=0.5,En;q=1.0"}, {"Accept-Language": "en,en,de;q=.5"}}, []map[string]string{{"Accept-Language": "en, de"}, {"Accept-Language": "en"}, {"Accept-Language": "de, en;q=0.5"}}},
		{"languages of one weight", []string{"Accept-Language"}, map[string]string{"Accept-Language": "en, de"}, []Selecting{{"Accept-Language", "en,de"}},
			[]map[string]string{{"Accept-Language": "EN,de;q=1"}}, []map[string]string{{"Accept-Language": "de, en"}}},
		{"what has no lists", []string{"User-Agent"}, map[string]string{"User-Agent": "a (b, c)"}, []Selecting{{"User-Agent", "a (b, c)"}}, []map[string]string{{"User-Agent": "a (b, c)"}}, []map[string]string{{"User-Agent": "a (b,c)"}, {"User-Agent": "A (b, c)"}}},
		{"quoted strings", []string{"Foo"}, map[string]string{"Foo": `"a, b"`}, []Selecting{{"Foo", `"a, b"`}}, nil, []map[string]string{{"Foo": `"a,b"`}}},
		{"encodings", []string{"Accept-Encoding, foo"}, map[string]string{"Accept-Encoding": "gzip"}, []Selecting{{"Foo", ""}}, []map[string]string{{"Accept-Encoding": "br"}}, nil},
	} {
		h := http.Header{"Vary": c.vary}
		got, ok := Selection(h, request(c.then))
		if diff := cmp.Diff(c.want, got); !ok || diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
		for _, f := range append(c.same, c.then) {
			if !Selects(got, request(f)) {
				t.Errorf("%s: %v is another", c.what, f)
			}
			if diff := cmp.Diff(c.want, Reselect(got, request(f))); len(c.want) > 0 && diff != "" {
				t.Errorf("%s: %v is kept elsewhere: %s", c.what, f, diff)
			}
		}
		for _, f := range c.not {
			if Selects(got, request(f)) {
				t.Errorf("%s: %v is the same", c.what, f)
			}
		}
	}
	for _, star := range [][]string{{"*"}, {"*, *"}, {", *"}, {"", "*"}, {"*, Foo"}, {"Foo, *"}, {"Foo", "Accept-Encoding, *"}} {
		if s, ok := Selection(http.Header{"Vary": star}, request(nil)); ok || s != nil {
			t.Errorf("%q: got %v, want that nothing matches", star, s)
		}
	}
}
