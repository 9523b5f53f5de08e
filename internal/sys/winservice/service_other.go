//go:build !windows

package winservice

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// errElsewhere is what systems other than Windows say.
var errElsewhere = fmt.Errorf("services of Windows: not on this system: %w", errors.ErrUnsupported)

// Install makes the service or changes the one there is. It does not start it.
func Install(o Options) error {
	if _, err := prepare(o); err != nil {
		return err
	}
	return errElsewhere
}

// Start starts the service and waits until it runs.
func Start(context.Context, string) error { return errElsewhere }

// Uninstall stops the service, waits until it has, and removes it. Accounts
// that could log on as a service only because of it no longer can. That there
// is none is fs.ErrNotExist.
func Uninstall(context.Context, string) error { return errElsewhere }

// Run runs serve, and tells it whether the service manager started this
// process. If so, the context ends when the manager says stop.
func Run(ctx context.Context, _ string, serve func(ctx context.Context, service bool) error) error {
	return serve(ctx, false)
}

// Log is a writer for slog's JSON handler whose lines become events of Windows'
// application log.
func Log(string) (io.WriteCloser, error) { return nil, errElsewhere }
