package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"time"

	"larder/internal/pki/enroll/program"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// DNSCommand is a Solver of DNS01 that has an administrator's command write
// and remove TXT records. It is run as
//
//	COMMAND present NAME VALUE
//	COMMAND cleanup NAME VALUE
//
// where NAME is _acme-challenge.… and VALUE the text of the record. The
// environment has, besides what program.Inherited names of our own (what else a
// hook needs, such as a token, it reads from a file), LARDER_ACME_DOMAIN (the name to be proven,
// of a wildcard without "*."), LARDER_ACME_NAME and LARDER_ACME_VALUE, and as
// hooks for certbot expect, CERTBOT_DOMAIN and CERTBOT_VALIDATION. A name and
// its wildcard need two records at one NAME: present must add, not replace.
// Exit status 0 means that it is done. What it leaves running is ended with it.
type DNSCommand struct {
	// Command is the program and its first arguments, as package program
	// splits them.
	Command string

	Timeout time.Duration // of one run; 0: 2 min

	// Propagation is how long to wait until a resolver sees the record before
	// the CA is told to look. 0: not at all.
	Propagation time.Duration
	Resolver    *net.Resolver // nil: the system's
}

const (
	commandTime  = 2 * time.Minute
	lookupPause  = time.Second
	lookupAtMost = 10 * time.Second
)

// Check says whether the command can be run at all.
func (d *DNSCommand) Check() error {
	_, err := d.words()
	return err
}

func (d *DNSCommand) words() ([]string, error) {
	words, err := program.Split("command for "+DNS01, d.Command)
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(words[0]); err != nil {
		return nil, &problem.Problem{
			Field: "command for " + DNS01, Found: "no program " + words[0], Err: err,
			Expected: "a program that may be executed", Next: "give its whole path, and mode 0755",
		}
	}
	return words, nil
}

// Present has the record written.
func (d *DNSCommand) Present(ctx context.Context, c Challenge) error { return d.run(ctx, "present", c) }

// CleanUp has the record removed.
func (d *DNSCommand) CleanUp(ctx context.Context, c Challenge) error { return d.run(ctx, "cleanup", c) }

func (d *DNSCommand) run(ctx context.Context, what string, c Challenge) error {
	if c.Type != DNS01 {
		return fmt.Errorf("%s cannot be answered by a DNS record", c)
	}
	words, err := d.words()
	if err != nil {
		return &signing.Refused{Problem: err}
	}
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = commandTime
	}
	command := program.Command{
		Args: append(words, what, c.DNSName, c.DNSValue), Timeout: timeout,
		Env: append(program.Environment(),
			"LARDER_ACME_DOMAIN="+c.Identifier,
			"LARDER_ACME_NAME="+c.DNSName,
			"LARDER_ACME_VALUE="+c.DNSValue,
			"CERTBOT_DOMAIN="+c.Identifier,
			"CERTBOT_VALIDATION="+c.DNSValue,
		),
	}
	outcome, err := command.Run(ctx)
	said := "nothing"
	if outcome.Words != "" {
		said = fmt.Sprintf("%q", outcome.Words)
	}
	p := &problem.Problem{Field: "command for " + DNS01 + ": " + words[0] + " " + what + " " + c.DNSName}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, program.ErrTimeout):
		p.Found = fmt.Sprintf("no end after %s; it said %s", timeout, said)
		p.Expected, p.Next = "exit status 0", "find out what it waits for"
	default:
		p.Found, p.Err = "a failure that said "+said, err
		p.Expected, p.Next = "exit status 0", "run it by hand, as the account that runs Larder"
	}
	return p
}

// Wait returns when the resolver sees the record.
func (d *DNSCommand) Wait(ctx context.Context, c Challenge) error {
	if d.Propagation <= 0 {
		return nil
	}
	resolver := d.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	end := time.Now().Add(d.Propagation)
	for {
		asking, cancel := context.WithTimeout(ctx, lookupAtMost)
		// With the final dot no search domain is tried.
		seen, err := resolver.LookupTXT(asking, c.DNSName+".")
		cancel()
		if slices.Contains(seen, c.DNSValue) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := time.Until(end)
		if left <= 0 {
			return &problem.Problem{
				Field: "TXT record " + c.DNSName, Err: err,
				Found:    fmt.Sprintf("%d other records, %s after the command had written it", len(seen), d.Propagation),
				Expected: "the value that the command was given",
				Next:     "see that the command writes into the zone that is asked here, or wait longer",
			}
		}
		if err := sleep(ctx, min(lookupPause, left)); err != nil {
			return err
		}
	}
}
