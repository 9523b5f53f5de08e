package program_test

import (
	"slices"
	"strings"
	"testing"

	"larder/internal/pki/enroll/program"
)

func TestWordsOfACommandLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		`sign`:                           {"sign"},
		"  /opt/pki/sign \t--ca  nodes ": {"/opt/pki/sign", "--ca", "nodes"},
		`sh -c 'cat > "$HOME/x" | y'`:    {"sh", "-c", `cat > "$HOME/x" | y`},
		`"C:\Program Files\PKI\sign.exe" -o C:\temp\ca.cer`: {`C:\Program Files\PKI\sign.exe`, "-o", `C:\temp\ca.cer`},
		`a "say \"no\" \n"`:          {"a", `say "no" \n`},
		`a'b c'd"e f" '' ""`:         {"ab cde f", "", ""},
		`a 'it'"'"'s'`:               {"a", "it's"},
		`a $HOME %PATH% *`:           {"a", "$HOME", "%PATH%", "*"},
		`'C:\dir with space\'`:       {`C:\dir with space\`},
		`hook "one two" 'three "4"'`: {"hook", "one two", `three "4"`},
		`hook --zone="a b"c ''`:      {"hook", "--zone=a bc", ""},
		"hook $HOME ; rm * `x`":      {"hook", "$HOME", ";", "rm", "*", "`x`"},
	} {
		if got, err := program.Split("--sign-command", line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
	for line, want := range map[string]string{
		"":              "--sign-command: found no command; expected a program and its arguments",
		" \t":           "--sign-command: found no command; expected a program and its arguments",
		"''":            "--sign-command: found no command; expected a program and its arguments",
		"a 'b":          "--sign-command: found a ' that nothing closes; expected pairs of quotation marks",
		`a "b`:          `--sign-command: found a " that nothing closes; expected pairs of quotation marks; before a closing one no backslash: write '…' then`,
		`a "C:\dir\"`:   `--sign-command: found a " that nothing closes; expected pairs of quotation marks; before a closing one no backslash: write '…' then`,
		"a\nb":          "--sign-command: found a line break or a NUL; expected one line",
		"a '\x00' b":    "--sign-command: found a line break or a NUL; expected one line",
		"a \"x\r\n\" b": "--sign-command: found a line break or a NUL; expected one line",
	} {
		if _, err := program.Split("--sign-command", line); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %s", line, err, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(`sh -c 'a b' "c \" d"`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := program.Split("x", line)
		if err != nil {
			return
		}
		// Written with quotation marks, they read the same.
		var quoted []string
		for i, w := range words {
			if i%2 == 1 && !strings.Contains(w, `\`) {
				quoted = append(quoted, `"`+strings.ReplaceAll(w, `"`, `\"`)+`"`)
			} else {
				quoted = append(quoted, `'`+strings.ReplaceAll(w, `'`, `'"'"'`)+`'`)
			}
		}
		if again, err := program.Split("x", strings.Join(quoted, " ")); err != nil || !slices.Equal(again, words) {
			t.Errorf("%q reads %q, %v", words, again, err)
		}
	})
}
