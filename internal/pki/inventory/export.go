package inventory

import (
	"encoding/csv"
	"io"
	"strings"
	"time"
)

// columns are the head line of the CSV form; the names are those of the JSON
// form.
var columns = []string{
	"name", "state", "reason", "detail", "revoked", "since", "subject", "sans", "issuer", "notBefore", "notAfter", "sha1", "sha256", "serial",
	"keyType", "source", "file", "keyFile", "added", "activated", "deactivated", "removed",
}

// WriteCSV writes the inventory as RFC 4180 has it, a line for each
// certificate. Times are RFC 3339 in UTC; names are separated by blanks. What
// a spreadsheet would take for a formula is quoted with an apostrophe.
func (inv *Inventory) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	if err := c.Write(columns); err != nil {
		return err
	}
	for i := range inv.Entries {
		e := &inv.Entries[i]
		since := e.Since()
		record := []string{
			e.Name, string(e.State), string(e.Reason), e.Detail, e.Revoked, timeText(&since), e.Subject, strings.Join(e.SANs, " "), e.Issuer,
			timeText(&e.NotBefore), timeText(&e.NotAfter), e.SHA1, e.SHA256, e.Serial, e.KeyType, e.Source, e.File, e.KeyFile,
			timeText(&e.Added), timeText(e.Activated), timeText(e.Deactivated), timeText(e.Removed),
		}
		for i, cell := range record {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				record[i] = "'" + cell
			}
		}
		if err := c.Write(record); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func timeText(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
