// Package problem is how the parts of the PKI say what is wrong: which field,
// what was found there, what was expected, and what to do next.
package problem

import "fmt"

// Problem is one thing that is wrong, in the words of the person who has to
// mend it. Found never holds a secret: no key, no password.
type Problem struct {
	Field    string // what is wrong, such as a file, a flag or a part of a certificate
	Found    string
	Expected string // may be empty
	Next     string // what to do; may be empty where Expected says it
	Err      error  // the cause, if there is one
}

// Error is one line: field: found X (cause); expected Y; next: Z.
func (p *Problem) Error() string {
	text := p.Field + ": found " + p.Found
	if p.Err != nil {
		text += fmt.Sprintf(" (%v)", p.Err)
	}
	if p.Expected != "" {
		text += "; expected " + p.Expected
	}
	if p.Next != "" {
		text += "; next: " + p.Next
	}
	return text
}

func (p *Problem) Unwrap() error { return p.Err }
