package winservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

// restarts is how long Windows waits before it starts a service again that
// ended by itself, for the first time, the second, and each later one within a
// day.
var restarts = [...]time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute}

const restartsForgotten = 24 * time.Hour

// stopPatience is how long a service may take to stop.
const stopPatience = 45 * time.Second

// Install makes the service or changes the one there is. It does not start it.
func Install(o Options) error {
	made, err := prepare(o)
	if err != nil {
		return err
	}
	var gotRight string
	if made.account.Right {
		if gotRight, err = grantLogon(made.account); err != nil {
			return fmt.Errorf("letting %s log on as a service: %w", made.account.Start, err)
		}
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer m.Disconnect()
	config := mgr.Config{
		ServiceType:      windows.SERVICE_WIN32_OWN_PROCESS,
		StartType:        mgr.StartAutomatic,
		ErrorControl:     mgr.ErrorNormal,
		BinaryPathName:   made.commandLine,
		ServiceStartName: made.account.Start,
		Password:         o.Password,
		DisplayName:      o.DisplayName,
		Description:      o.Description,
	}
	s, err := m.OpenService(o.Name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		s, err = m.CreateService(o.Name, o.Exe, config, o.Args...)
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", o.Name, err)
	}
	defer s.Close()
	if gotRight != "" {
		if err := noteGranted(o.Name, gotRight); err != nil {
			return fmt.Errorf("service %s: noting whom it let log on: %w", o.Name, err)
		}
	}
	// Also what was just made: CreateService quotes the program only if it has to be.
	if err := configure(s, config); err != nil {
		return fmt.Errorf("service %s: its configuration: %w", o.Name, err)
	}
	if err := startAgain(s); err != nil {
		return fmt.Errorf("service %s: how it is started again: %w", o.Name, err)
	}
	// The source of events may be there from before.
	const kinds = eventlog.Info | eventlog.Warning | eventlog.Error
	_ = eventlog.Remove(o.Name)
	if err := eventlog.InstallAsEventCreate(o.Name, kinds); err != nil {
		return fmt.Errorf("service %s: source of events: %w", o.Name, err)
	}
	return nil
}

// configure is UpdateConfig of a part: that one also sets what older systems
// and Wine do not know.
func configure(s *mgr.Service, c mgr.Config) error {
	var texts [4]*uint16
	for i, text := range []string{c.BinaryPathName, c.ServiceStartName, c.Password, c.DisplayName} {
		if text == "" {
			continue // and stays as it is
		}
		var err error
		if texts[i], err = windows.UTF16PtrFromString(text); err != nil {
			return err
		}
	}
	if err := windows.ChangeServiceConfig(s.Handle, c.ServiceType, c.StartType, c.ErrorControl, texts[0], nil, nil, nil, texts[1], texts[2], texts[3]); err != nil {
		return err
	}
	text, err := windows.UTF16PtrFromString(c.Description)
	if err != nil {
		return err
	}
	description := windows.SERVICE_DESCRIPTION{Description: text}
	return windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_DESCRIPTION, (*byte)(unsafe.Pointer(&description)))
}

// startAgain has Windows start the service again, also when it ended by itself
// with an error rather than a crash.
func startAgain(s *mgr.Service) error {
	var actions []mgr.RecoveryAction
	for _, after := range restarts {
		actions = append(actions, mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: after})
	}
	for _, err := range []error{
		s.SetRecoveryActions(actions, uint32(restartsForgotten/time.Second)),
		s.SetRecoveryActionsOnNonCrashFailures(true),
	} {
		// Wine knows no such thing. A service that is not started again is better than none.
		if err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) {
			return err
		}
	}
	return nil
}

// open finds a service; none is fs.ErrNotExist.
func open(name string) (*mgr.Mgr, *mgr.Service, error) {
	m, err := mgr.Connect()
	if err != nil {
		return nil, nil, fmt.Errorf("service manager: %w", err)
	}
	s, err := m.OpenService(name)
	if err != nil {
		m.Disconnect()
		if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
			err = fs.ErrNotExist
		}
		return nil, nil, fmt.Errorf("service %s: %w", name, err)
	}
	return m, s, nil
}

// Start starts the service and waits until it runs.
func Start(ctx context.Context, name string) error {
	m, s, err := open(name)
	if err != nil {
		return err
	}
	defer m.Disconnect()
	defer s.Close()
	if err := s.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return fmt.Errorf("starting service %s: %w", name, err)
	}
	return waitFor(ctx, s, svc.Running)
}

// Uninstall stops the service, waits until it has, and removes it. Accounts
// that could log on as a service only because of it no longer can. That there
// is none is fs.ErrNotExist.
func Uninstall(ctx context.Context, name string) error {
	m, s, err := open(name)
	if err != nil {
		return err
	}
	defer m.Disconnect()
	defer s.Close()
	if _, err := s.Control(svc.Stop); err == nil || errors.Is(err, windows.ERROR_SERVICE_CANNOT_ACCEPT_CTRL) {
		if err := waitFor(ctx, s, svc.Stopped); err != nil {
			return err
		}
	} else if !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stopping service %s: %w", name, err)
	}
	accounts := granted(name) // which goes with the service
	if err := s.Delete(); err != nil {
		return fmt.Errorf("removing service %s: %w", name, err)
	}
	_ = eventlog.Remove(name) // its events stay readable
	var failed []error
	for _, a := range accounts {
		if err := takeLogon(a); err != nil {
			failed = append(failed, fmt.Errorf("taking the right to log on as a service (%s) from %s: %w", LogonRight, a, err))
		}
	}
	return errors.Join(failed...)
}

func waitFor(ctx context.Context, s *mgr.Service, state svc.State) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := s.Query()
		switch {
		case err != nil:
			return fmt.Errorf("asking service %s how it is: %w", s.Name, err)
		case status.State == state:
			return nil
		case state == svc.Running && status.State == svc.Stopped:
			return fmt.Errorf("service %s ended at once with code %d; next: look at its events, Get-WinEvent -ProviderName %s", s.Name, max(status.Win32ExitCode, status.ServiceSpecificExitCode), s.Name)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for service %s: %w", s.Name, ctx.Err())
		}
	}
}

// Run runs serve, and tells it whether the service manager started this
// process. If so, the context ends when the manager says stop.
func Run(ctx context.Context, name string, serve func(ctx context.Context, service bool) error) error {
	h := &handler{ctx: ctx, serve: serve}
	// Asked of the manager itself rather than guessed from the parent process.
	switch err := svc.Run(name, h); {
	case errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT):
		return serve(ctx, false)
	case err != nil:
		return fmt.Errorf("service %s: %w", name, err)
	}
	return h.err
}

// handler is one run of the service.
type handler struct {
	ctx   context.Context // the caller's of Run
	serve func(ctx context.Context, service bool) error
	err   error // written before Execute ends
}

// Execute implements svc.Handler.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (specific bool, code uint32) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.serve(ctx, true) }()
	running := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	changes <- running
	for {
		select {
		case h.err = <-done:
			if h.err != nil {
				return true, 1 // an exit code, so that it is started again
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				changes <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				changes <- svc.Status{State: svc.StopPending, WaitHint: uint32(stopPatience / time.Millisecond)}
				cancel()
			}
		}
	}
}

// Log is a writer for slog's JSON handler whose lines become events of Windows'
// application log.
func Log(name string) (io.WriteCloser, error) {
	l, err := eventlog.Open(name)
	if err != nil {
		return nil, err
	}
	return &eventWriter{l}, nil
}

type eventWriter struct{ log *eventlog.Log }

func (w *eventWriter) Write(line []byte) (int, error) {
	report := w.log.Info
	switch severityOf(line) {
	case warning:
		report = w.log.Warning
	case failure:
		report = w.log.Error
	}
	return len(line), report(1, string(line))
}

func (w *eventWriter) Close() error { return w.log.Close() }
