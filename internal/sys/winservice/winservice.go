// Package winservice installs the node as a service of Windows, under an account of its own, and runs it as one.
package winservice

import (
	"errors"
	"fmt"
	"strings"
)

// Options say what the service is.
type Options struct {
	Name        string // as in "sc query NAME"
	DisplayName string // as the list of services shows it
	Description string
	Exe         string // the program, by its whole path
	Args        []string
	Account     string // see AccountOf; "" for DefaultAccount
	Password    string // of that account; only for users
}

// String leaves the password out.
func (o Options) String() string {
	return fmt.Sprintf("service %s (%s) as %s", o.Name, CommandLine(o.Exe, o.Args), o.Account)
}

// GoString leaves the password out, too: %#v prints what String hides.
func (o Options) GoString() string { return o.String() }

// Check returns every mistake in o that needs no Windows to be seen.
func (o Options) Check() error {
	_, err := prepare(o)
	return err
}

// service is what the service manager is told, ready made.
type service struct {
	commandLine string
	account     Account
}

// prepare checks o and finds out everything that needs no Windows for it.
func prepare(o Options) (service, error) {
	var mistakes []error
	if o.Name == "" || len(o.Name) > 256 || strings.ContainsAny(o.Name, `/\`) {
		mistakes = append(mistakes, fmt.Errorf("service name: found %q, expected up to 256 characters without slashes", o.Name))
	}
	if !wholePath(o.Exe) {
		mistakes = append(mistakes, fmt.Errorf(`program: found %q, expected a whole path such as C:\Program Files\Larder\larder.exe`, o.Exe))
	}
	for _, a := range append([]string{o.Exe}, o.Args...) {
		if strings.ContainsRune(a, 0) {
			mistakes = append(mistakes, fmt.Errorf("argument of the service: found %q, expected text without zero bytes", a))
		}
	}
	account := o.Account
	if strings.TrimSpace(account) == "" {
		account = DefaultAccount(o.Name)
	}
	a, err := AccountOf(account)
	if name, ok := strings.CutPrefix(strings.ToUpper(a.Start), virtual+`\`); ok && name != strings.ToUpper(o.Name) {
		err = fmt.Errorf("account: found %q, expected %s: Windows keeps one for each service, of its name", o.Account, DefaultAccount(o.Name))
	}
	if err == nil {
		err = a.check(o.Password != "")
	}
	if err != nil {
		mistakes = append(mistakes, err)
	}
	return service{CommandLine(o.Exe, o.Args), a}, errors.Join(mistakes...)
}

// wholePath is true for C:\x and \\server\x. A quotation mark cannot be part
// of a path, and would end it.
func wholePath(p string) bool {
	drive := len(p) > 3 && p[1] == ':' && (p[2] == '\\' || p[2] == '/')
	return (drive || strings.HasPrefix(p, `\\`)) && !strings.Contains(p, `"`)
}

// CommandLine is a program and its arguments as one text which CommandLineToArgvW
// takes apart again. The program is always quoted: Windows would try C:\Program.exe
// for C:\Program Files\x.exe.
func CommandLine(exe string, args []string) string {
	line := `"` + exe + `"`
	for _, a := range args {
		line += " " + quote(a)
	}
	return line
}

// quote is one argument. Backslashes count as themselves but before a
// quotation mark, where each needs another.
func quote(arg string) string {
	if arg != "" && !strings.ContainsAny(arg, " \t\n\v\"") {
		return arg
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for i := range len(arg) {
		switch c := arg[i]; c {
		case '\\':
			slashes++
		case '"':
			b.WriteString(strings.Repeat(`\`, slashes+1))
			slashes = 0
		default:
			slashes = 0
		}
		b.WriteByte(arg[i])
	}
	b.WriteString(strings.Repeat(`\`, slashes))
	b.WriteByte('"')
	return b.String()
}
