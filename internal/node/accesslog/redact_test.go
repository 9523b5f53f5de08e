package accesslog

import (
	"fmt"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 33)
	tests := []struct{ query, want string }{
		{"", ""},
		{"a=1&b=2", "a=1&b=2"},
		{"a&&b=;c", "a&&b=;c"},
		{"P1=1700000000&P2=404&P3=2&P4=abc%2bdef%3d%3d", "P1=…&P2=…&P3=…&P4=…"},
		{"cacheHostOrigin=2.tlu.dl.delivery.mp.microsoft.com&P1=1", "cacheHostOrigin=2.tlu.dl.delivery.mp.microsoft.com&P1=…"},
		{"cacheHostOrigin=" + long + "/token", "cacheHostOrigin=…"},
		{"Signature=a&sig=b&SIG=c&sauth=d&token=e&access_token=f&key=g", "Signature=…&sig=…&SIG=…&sauth=…&token=…&access_token=…&key=…"},
		{"X-Amz-Signature=a&X-Amz-Credential=b&X-Amz-Security-Token=c&X-Amz-Date=20261120T000000Z", "X-Amz-Signature=…&X-Amz-Credential=…&X-Amz-Security-Token=…&X-Amz-Date=20261120T000000Z"},
		{"hdnts=exp=1~acl=/*~hmac=ab&hdnea=x&__gda__=y&Policy=p&Key-Pair-Id=k&Password=q", "hdnts=…&hdnea=…&__gda__=…&Policy=…&Key-Pair-Id=…&Password=…"},
		{"a=" + long, "a=…"},
		{"a=" + long[1:], "a=" + long[1:]},
		{long, "…"},
		{long[1:], long[1:]},
		{long + long + "=1", "…"},
		// Ways round it.
		{"%73%69%67=a", "%73%69%67=…"},
		{"%2573ig=a", "%2573ig=…"},
		{"%2525252525252573ig=a", "…"},
		{"+sig%20=a", "+sig%20=…"},
		{"sig%3Da=b", "…"},
		{"sig%3Da", "…"},
		{"x%26sig=a", "…"},
		{"x=1%26sig%3Da", "x=…"},
		{"x=1?sig=a", "x=…"},
		{"u=http%3A%2F%2Fh%2F%3Fsig%3Da", "u=…"},
		{"sig=a;b&c=1", "sig=…&c=1"},
		{"sig=a;b", "sig=…"},
		{"x=1;sig=a;b=2&c=3", "x=1;sig=…&c=3"},
		{"sig=a=b", "sig=…"},
		{"=a", "=a"},
		{"%zz=%4", "%zz=%4"},
	}
	for _, tt := range tests {
		if got := Redact(tt.query); got != tt.want {
			t.Errorf("Redact(%q) = %q, want %q", tt.query, got, tt.want)
		}
	}
}

func TestErrorsAreRedacted(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"disk full", "disk full"},
		{`Get "https://h/p?P1=secret&a=1": dial tcp 192.0.2.1:443: refused`, `Get "https://h/p?P1=…&a=1": dial tcp 192.0.2.1:443: refused`},
		{"proxy http://user:secret@proxy:3128 refused", "proxy http://…@proxy:3128 refused"},
		{"proxy http://user:sec@ret@proxy refused?", "proxy http://…@proxy refused?"},
		{"http://h/@x http://h:80/?sig=a b", "http://h/@x http://h:80/?sig=… b"},
		{"why? because: token=1", "why? because: token=1"},
	}
	for _, tt := range tests {
		if got := string(appendRedactedText(nil, tt.text)); got != tt.want {
			t.Errorf("redacting %q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

var secrets = []string{
	"P1", "P2", "P3", "P4", "Signature", "Sig", "sig", "sauth", "token", "access_token", "key", "X-Amz-Signature",
	"X-Amz-Credential", "X-Amz-Security-Token", "hdnts", "hdnea", "__gda__", "Policy", "Key-Pair-Id", "password",
}

// However a secret's name is written, and whatever its value is, nothing of
// the value is left, and nothing else is lost.
func FuzzNoSecretSurvives(f *testing.F) {
	f.Add("abc", uint8(0), uint64(0), uint64(0))
	f.Add("ab;c=%26", uint8(11), ^uint64(0), uint64(0x5555))
	f.Add("?%", uint8(17), uint64(3), ^uint64(0))
	f.Fuzz(func(t *testing.T, value string, which uint8, encode, swap uint64) {
		value = strings.ReplaceAll(value, "&", "%26")
		var name strings.Builder
		for i, c := range []byte(secrets[int(which)%len(secrets)]) {
			if swap>>i&1 == 1 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
				c ^= 0x20
			}
			if encode>>(2*i)&1 == 0 {
				name.WriteByte(c)
			} else if encode>>(2*i)&2 == 0 {
				fmt.Fprintf(&name, "%%%02x", c)
			} else {
				fmt.Fprintf(&name, "%%25%02X", c)
			}
		}
		got := Redact("a=1&" + name.String() + "=" + value + "&b=2")
		if got != "a=1&"+name.String()+"=…&b=2" && !(name.Len() > maxName && got == "a=1&…&b=2") {
			t.Errorf("%s=%q: got %q", name.String(), value, got)
		}
		text := string(appendRedactedText(nil, "asking https://u:"+strings.Repeat("p", 8)+"@h/?"+name.String()+"=x failed"))
		if strings.Contains(text, "ppp") || !strings.HasSuffix(text, "… failed") {
			t.Errorf("message: got %q", text)
		}
	})
}

func FuzzRedact(f *testing.F) {
	f.Add("P1=1&P2=2;x")
	f.Add("a=%25%32%35&" + strings.Repeat("%25", 30))
	f.Fuzz(func(t *testing.T, query string) {
		got := Redact(query)
		if again := Redact(got); again != got {
			t.Errorf("Redact(%q) = %q, and again %q", query, got, again)
		}
		for _, item := range strings.FieldsFunc(got, func(r rune) bool { return r == '&' || r == ';' }) {
			name, value, ok := strings.Cut(item, "=")
			if ok && len(value) > maxValue && !strings.EqualFold(name, "cacheHostOrigin") && !strings.Contains(name, "%") && strings.Trim(name, " +\t\r\n\v\f") == name {
				t.Errorf("Redact(%q) = %q: a long value survived", query, got)
			}
			if strings.ContainsAny(value, "=?") {
				t.Errorf("Redact(%q) = %q: a query within a value survived", query, got)
			}
		}
	})
}
