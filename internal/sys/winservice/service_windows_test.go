package winservice

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"
)

// serviceVar is set to the name of a service when this binary may make one,
// which leaves traces on the machine: where the machine is there for that.
const serviceVar = "LARDER_TEST_SERVICE"

// TestMain is the service, when Windows starts this binary as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		// The argument is a file that says it runs, and that it was stopped.
		err := Run(context.Background(), "", func(ctx context.Context, service bool) error {
			if !service {
				return errors.New("nobody would say stop")
			}
			if err := os.WriteFile(os.Args[2], []byte("running"), 0o600); err != nil {
				return err
			}
			<-ctx.Done()
			return os.WriteFile(os.Args[2], []byte("stopped"), 0o600)
		})
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// What CommandLine puts together, Windows takes apart.
func TestWindowsReadsCommandLines(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		nil, {""}, {"a", "b c"}, {`C:\x y\`, `\\server\share\`}, {`"`, `\"`, `\\"x\\`, `""`}, {"grün", "tab\t"}, {"--config", `C:\ProgramData\Larder\node.yaml`},
	} {
		line := CommandLine(`C:\Program Files\Larder\larder.exe`, args)
		got, err := windows.DecomposeCommandLine(line)
		if err != nil || len(got) == 0 || !slices.Equal(got[1:], args) {
			t.Errorf("%q became %s, which Windows reads as %q, %v", args, line, got, err)
		}
	}
}

func TestNoSuchService(t *testing.T) {
	t.Parallel()
	const name = "larder-test-none"
	if err := Uninstall(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("uninstall: %v", err)
	}
	if err := Start(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("start: %v", err)
	}
}

func TestLogonRightForAnAccountThatIsNone(t *testing.T) {
	t.Parallel()
	if _, err := grantLogon(Account{Start: `.\nobody-of-that-name`, Right: true}); err == nil {
		t.Error("no error")
	}
}

// The life of a service, under the real service manager: made, changed,
// started, stopped, removed.
func TestLifeOfAService(t *testing.T) {
	name := os.Getenv(serviceVar)
	if name == "" {
		t.Skip(serviceVar + " is not set: this would make a service on this machine")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "winservice")
	if err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(dir, "two words.txt")
	o := Options{Name: name, DisplayName: "Larder test", Description: "made by a test", Exe: exe, Args: []string{"serve", "nowhere"}, Account: "LocalSystem"}
	if err := Install(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Uninstall(context.Background(), name) })
	o.Args = []string{"serve", said}
	if err := Install(o); err != nil {
		t.Fatal("a second time: ", err)
	}
	const account = "S-1-5-21-1-2-3-1001" // of nobody
	for range 2 {
		if err := noteGranted(name, account); err != nil {
			t.Fatal(err)
		}
	}
	if got := granted(name); !slices.Equal(got, []string{account}) {
		t.Errorf("noted %q, want %s once", got, account)
	}
	m, s, err := open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	// Not Config, which also asks what Wine does not know.
	buf := make([]byte, 4096)
	config, n := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buf[0])), uint32(0)
	if err := windows.QueryServiceConfig(s.Handle, config, uint32(len(buf)), &n); err != nil {
		t.Fatal(err)
	}
	line, runs := windows.UTF16PtrToString(config.BinaryPathName), windows.UTF16PtrToString(config.ServiceStartName)
	if line != CommandLine(exe, o.Args) || runs != "LocalSystem" || config.StartType != mgr.StartAutomatic {
		t.Errorf("%s as %s, start type %d; want %s", line, runs, config.StartType, CommandLine(exe, o.Args))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if err := Start(t.Context(), name); err != nil {
		t.Errorf("starting what runs: %v", err)
	}
	if err := Uninstall(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if got := granted(name); got != nil {
		t.Errorf("the service is gone, and its notes are not: %q", got)
	}
	if b, err := os.ReadFile(said); err != nil || string(b) != "stopped" {
		t.Errorf("the service left behind %q, %v", b, err)
	}
	if err := Uninstall(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removing what is gone: %v", err)
	}
}
