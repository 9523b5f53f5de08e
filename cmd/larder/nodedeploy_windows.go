package main

import (
	"context"
	"errors"

	"golang.org/x/sys/windows"

	"larder/internal/sys/private"
)

const beAdministrator = "call it from a prompt that was opened as administrator"

func isAdministrator() bool { return windows.GetCurrentProcessToken().IsElevated() }

// onThisSystem fills in what only this system can say.
func (d *deployment) onThisSystem() { d.windows, d.accountThere = true, true }

// grantDir gives a directory to an account, in a form of its name that the
// service manager and the directory of accounts both know.
func grantDir(dir, account string) error { return private.GrantAccount(dir, account) }

// There are no units to add to, and no programs to run, on Windows.
func writeDropIn(string, string) error { return errors.ErrUnsupported }
func removeDropIn(string) error        { return errors.ErrUnsupported }
func runProgram(context.Context, string, ...string) error {
	return errors.ErrUnsupported
}
