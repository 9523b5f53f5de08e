package tlsdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"larder/internal/sys/private"
)

// Journal writes logs/KIND_YYYYMMDD-HHMMSS.log, in local time as runbooks for
// Connected Cache look for it (facts/connected-cache.md, 3.6): a line for each
// fact. Whoever calls it keeps secrets out of them.
func (d *Dir) Journal(kind string, lines []string) error {
	now := time.Now()
	base := kind + "_" + now.Format("20060102-150405")
	name := d.file("logs", base+".log")
	for n := 2; ; n++ { // two in one second
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		name = d.file("logs", fmt.Sprintf("%s-%d.log", base, n))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s by %s in %s\n", now.Format(time.RFC3339), kind, d.by, d.path)
	for _, l := range lines {
		b.WriteString(strings.ReplaceAll(l, "\n", "\n  ") + "\n")
	}
	return private.WriteFile(name, []byte(b.String()))
}
