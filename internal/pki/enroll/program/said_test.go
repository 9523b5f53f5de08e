package program

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestKeysAreTakenOutOfWords(t *testing.T) {
	t.Parallel()
	key := "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat(strings.Repeat("S", 64)+"\n", 120) + "-----END RSA PRIVATE KEY-----\n"
	noise := strings.Repeat("noise\n", 50_000)
	for name, text := range map[string]string{
		"whole":               "before\n" + key + "after",
		"without its end":     "before\n" + key[:len(key)-50],
		"on one line":         `{"key":"` + strings.ReplaceAll(key, "\n", `\n`) + `"}`,
		"longer than a tail":  key + key + key,
		"cut at its begin":    noise[:2*keptWords-4000] + key + noise[:keptWords-4000],
		"encrypted":           strings.ReplaceAll(key, "RSA PRIVATE", "ENCRYPTED PRIVATE"),
		"before a long noise": key + noise,
		"after a long noise":  noise + key,
	} {
		for _, chunk := range []int{1 << 20, 1000, 7} {
			said := &tail{max: 16 * lastWords}
			for part := range slices.Chunk([]byte(text), chunk) {
				if n, err := said.Write(part); n != len(part) || err != nil {
					t.Fatal(n, err)
				}
			}
			got := said.words()
			if strings.Contains(got, "SSSS") {
				t.Errorf("%s in chunks of %d: the key is in %q", name, chunk, got)
			}
			if len(got) > lastWords+len("…") {
				t.Errorf("%s: %d bytes", name, len(got))
			}
		}
	}
}

func TestWordsAreFitForALog(t *testing.T) {
	t.Parallel()
	said := &tail{max: 100}
	fmt.Fprint(said, "\x1b[31mred\x1b[0m \xff\tend\r\n\n")
	if got := said.words(); got != "[31mred[0m ?\tend" {
		t.Errorf("%q", got)
	}
}

func FuzzWords(f *testing.F) {
	f.Add("-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----", 7)
	f.Fuzz(func(t *testing.T, text string, chunk int) {
		said := &tail{max: 64}
		for part := range slices.Chunk([]byte(text), max(1, chunk)) {
			_, _ = said.Write(part)
		}
		if len(said.data) > 128 {
			t.Errorf("%d bytes kept", len(said.data))
		}
		_ = said.words()
	})
}
