package api

import (
	"os/exec"
	"strings"
	"testing"

	"larder/internal/fleet"
)

// Whatever a value holds, a shell hands it on and does nothing else with it.
func TestWordsAreWordsToAShell(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"/srv/cache,100", `D:\cache,100`, "/srv/my cache,100", "https://[fd00::1]:8440", "/srv/$(touch x),1", "/srv/`id`,1", `/srv/"a,1`, "/srv/it's,1", "a;b", "a\nb", `ends\`, "ä,1", ""} {
		w := word("v", v)
		out, err := exec.Command("sh", "-c", "printf %s "+w).Output()
		if err != nil || string(out) != "v="+v {
			t.Errorf("%q is written %s, which a shell reads as %q (%v)", v, w, out, err)
		}
	}
	if got := word("drivepathandsizeingb", drivesText([]fleet.Drive{{Path: "/srv/cache", Size: 100e9}, {Path: "/mnt/b", Size: 50e9}})); got != `drivepathandsizeingb="/srv/cache,100,/mnt/b,50"` {
		t.Errorf("got %s, not the vendor's spelling", got)
	}
	if got := word("drivepathandsizeingb", `D:\larder cache,100`); !strings.HasPrefix(got, `drivepathandsizeingb="D:\`) {
		t.Errorf("got %s, which cmd.exe does not read", got)
	}
}
