package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/pki/caretaker"
	"larder/internal/pki/enroll"
	"larder/internal/pki/inventory"
	"larder/internal/pki/tlsdir"
	"larder/internal/pki/vet"
)

// certificateInfo is what show and list say of a certificate.
type certificateInfo struct {
	inventory.Entry
	Active   bool      `json:"active"`
	Since    time.Time `json:"since"` // it is active, or is not
	DaysLeft int       `json:"daysLeft"`
	Level    vet.Level `json:"level"` // how urgent its end is, if it is active
	Why      string    `json:"why,omitempty"`
	Note     string    `json:"note,omitempty"`
}

func infoOf(e *inventory.Entry, now time.Time) certificateInfo {
	c := certificateInfo{Entry: *e, Active: e.State == inventory.Active, Since: e.Since(), DaysLeft: int(e.NotAfter.Sub(now).Hours() / 24)}
	if c.Active {
		c.Level = vet.Left(e.NotBefore, e.NotAfter, now)
		return c
	}
	c.Why = string(e.Reason)
	if e.Detail != "" {
		c.Why += ": " + e.Detail
	}
	switch {
	case e.Removed != nil:
		c.Note = "its files were removed on " + dayText(*e.Removed)
	case e.Deactivated != nil:
		c.Note = "its files are kept until " + e.Deactivated.AddDate(0, inventory.RetentionMonths, 0).Format(time.DateOnly)
	}
	return c
}

func tlsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [NAME|THUMBPRINT]",
		Short: "Show the certificate in use, or another one",
		Long: `Shows everything about a certificate: the one in use, or the newest with this
name or this beginning of a thumbprint (8 digits or more, spaces ignored).`,
		Args: atMostOneArg("one name or thumbprint"),
	}
	env, show := tlsLookFlags(cmd), outputFlag(cmd)
	vendorAccountFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		inv, err := e.dir.Inventory(cmd.Context())
		if err != nil {
			return err
		}
		entry := shown(e.dir, inv)
		if len(args) == 1 {
			if entry = inv.Newest(args[0]); entry == nil {
				return &exitError{exitNotFound, fmt.Errorf("no certificate is called %q or has such a thumbprint; see larder tls list", args[0])}
			}
		}
		if entry == nil {
			return &exitError{exitNotFound, errors.New("there is no certificate, HTTPS is off; larder tls csr makes a request for one")}
		}
		info := infoOf(entry, time.Now())
		state := nodeTLS(cmd.Context(), e.dir)
		return show(struct {
			certificateInfo
			HTTPS *caretaker.Status `json:"https,omitempty"` // of the running node
		}{info, state}, func(w io.Writer) {
			certificateTable(w, &info)
			if len(args) == 0 {
				httpsTable(w, e.dir, state)
			}
		})
	}
	return cmd
}

// shown is the entry that "show" is about: the one in use, else the one that
// was in use last.
func shown(dir *tlsdir.Dir, inv *inventory.Inventory) *inventory.Entry {
	if e := inv.Current(); e != nil {
		return e
	}
	if _, e, _, err := dir.Standing(); err == nil && e != nil {
		return inv.Find(e.SHA256)
	}
	var newest *inventory.Entry
	for i := range inv.Entries {
		if newest == nil || inv.Entries[i].Since().After(newest.Since()) {
			newest = &inv.Entries[i]
		}
	}
	return newest
}

func certificateTable(w io.Writer, c *certificateInfo) {
	fmt.Fprintf(w, "Certificate\t%s\n", c.Name)
	if c.Active {
		fmt.Fprintf(w, "Active\tyes, since %s\n", dayText(c.Since))
	} else {
		fmt.Fprintf(w, "Active\tno, since %s: %s\n", dayText(c.Since), c.Why)
	}
	fmt.Fprintf(w, "Subject\t%s\n", c.Subject)
	fmt.Fprintf(w, "Names\t%s\n", strings.Join(c.SANs, ", "))
	fmt.Fprintf(w, "Issuer\t%s\n", c.Issuer)
	fmt.Fprintf(w, "From\t%s\n", dayText(c.NotBefore))
	left := daysLeft(c.NotAfter) + " left"
	if c.Level != vet.None {
		left += ", " + c.Level.String()
	}
	fmt.Fprintf(w, "To\t%s (%s)\n", dayText(c.NotAfter), left)
	fmt.Fprintf(w, "Thumbprint\t%s (SHA-1, as Windows shows it)\n\t%s (SHA-256)\n", c.SHA1, c.SHA256)
	fmt.Fprintf(w, "Serial number\t%s\n", c.Serial)
	fmt.Fprintf(w, "Kind of key\t%s\n", c.KeyType)
	fmt.Fprintf(w, "Came by\t%s, on %s\n", c.Source, dayText(c.Added))
	if c.File != "" {
		fmt.Fprintf(w, "File\t%s\n", c.File)
		fmt.Fprintf(w, "Key file\t%s\n", c.KeyFile)
	}
	if c.Note != "" {
		fmt.Fprintf(w, "Note\t%s\n", c.Note)
	}
}

// httpsTable says how HTTPS and its renewal stand.
func httpsTable(w io.Writer, dir *tlsdir.Dir, s *caretaker.Status) {
	if s == nil {
		fmt.Fprintf(w, "HTTPS\tno node runs with this directory\n")
		autoTable(w, autoWithoutNode(dir))
		return
	}
	if s.On {
		fmt.Fprintf(w, "HTTPS\ton\n")
	} else {
		fmt.Fprintf(w, "HTTPS\toff: %s\n", s.WhyOff)
	}
	if s.Warning != "" {
		fmt.Fprintf(w, "!\t%s\n", s.Warning)
	}
	if !s.AskedAt.IsZero() {
		text := s.Revocation.Status.String() + ", asked on " + dayText(s.AskedAt)
		if s.Revocation.Source != "" {
			text += ", " + s.Revocation.Source
		}
		if s.Certificate != nil && s.Certificate.Stapled {
			text += "; stapled"
		}
		fmt.Fprintf(w, "Revocation\t%s\n", text)
	}
	autoTable(w, s.Auto)
}

// autoTable says how renewal without hands stands.
func autoTable(w io.Writer, a *caretaker.Auto) {
	if a == nil {
		fmt.Fprintf(w, "Renewal\tby hand; larder tls auto sets up another way\n")
		return
	}
	switch {
	case a.Error != "":
		fmt.Fprintf(w, "Renewal\tnot possible: %s\n", a.Error)
	case a.Renewing:
		fmt.Fprintf(w, "Renewal\tby %s, under way\n", a.Method)
	case a.Off != "":
		fmt.Fprintf(w, "Renewal\tby %s, none planned: %s\n", a.Method, a.Off)
	default:
		fmt.Fprintf(w, "Renewal\tby %s, next attempt on %s (%s)\n", a.Method, dayText(a.NextAttempt), a.Why)
	}
	if !a.LastAttempt.IsZero() {
		text := "went well"
		if a.LastError != "" {
			text = fmt.Sprintf("failed, %s in a row: %s", count(a.Failures, "failure"), a.LastError)
		}
		fmt.Fprintf(w, "Last attempt\t%s, %s\n", dayText(a.LastAttempt), text)
	}
}

// nodeTLS asks the node that serves from the directory how its HTTPS stands;
// nil if there is none that answers.
func nodeTLS(ctx context.Context, dir *tlsdir.Dir) *caretaker.Status {
	where, running, err := dir.Running()
	if err != nil || !running || where.Admin == "" {
		return nil
	}
	var s caretaker.Status
	if newAdmin(where.Admin).call(ctx, http.MethodGet, node.PathTLS, nil, &s) != nil {
		return nil
	}
	return &s
}

// autoWithoutNode is how renewal stands, from the files alone.
func autoWithoutNode(dir *tlsdir.Dir) *caretaker.Auto {
	r := &enroll.Renewer{Dir: dir}
	if !r.Automatic() {
		return nil
	}
	plan, state, err := r.Plan(time.Now())
	a := &caretaker.Auto{State: state, Off: plan.Off}
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.NextAttempt, a.Why = plan.At, plan.Why
	if s, err := enroll.Load(dir.Path()); err == nil {
		a.Method = s.Method()
	}
	return a
}

func tlsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List every certificate the node ever had",
		Long: `Lists the certificates of the node: the one in use, and those that were, with
the reason why they are not any more. --output csv and json export the whole
inventory.`,
		Args: noArgs,
	}
	env := tlsLookFlags(cmd)
	var csvText func(w io.Writer) error
	show := outputFlagWith(cmd, "csv", func(w io.Writer) error { return csvText(w) })
	active := cmd.Flags().Bool("active", false, "only the one in use")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		inv, err := e.dir.Inventory(cmd.Context())
		if err != nil {
			return err
		}
		if *active {
			only := &inventory.Inventory{}
			if current := inv.Current(); current != nil {
				only.Entries = append(only.Entries, *current)
			}
			inv = only
		}
		csvText = inv.WriteCSV
		infos := []certificateInfo{}
		for i := range inv.Entries {
			infos = append(infos, infoOf(&inv.Entries[i], time.Now()))
		}
		return show(infos, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tSTATE\tSINCE\tNAMES\tTO\tLEFT\tKEY\tTHUMBPRINT (SHA-1)\tSOURCE")
			for i := range infos {
				c := &infos[i]
				state := "active"
				if !c.Active {
					state = string(c.Reason)
				}
				left := daysLeft(c.NotAfter)
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, state, c.Since.UTC().Format(time.DateOnly), shortList(hostsOf(c.SANs)),
					c.NotAfter.UTC().Format(time.DateOnly), left, c.KeyType, c.SHA1, c.Source)
			}
		})
	}
	return cmd
}

// shortList is a list that stays short.
func shortList(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], " "), len(names)-3)
	}
	return strings.Join(names, " ")
}

func tlsRetentionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retention",
		Short: "Remove the files of certificates that are long out of use",
		Long: fmt.Sprintf(`Certificates in use are kept while they are valid; those that expired, were
replaced, revoked or switched off, for %d months after that. Then their files
are removed, with a line in logs/audit.jsonl; the inventory keeps their entries
for good. A running node does this daily by itself.`, inventory.RetentionMonths),
		Args: noArgs,
	}
	env, show := tlsLookFlags(cmd), outputFlag(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "only say what would be removed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := env()
		if err != nil {
			return err
		}
		removed, err := e.dir.Retain(cmd.Context(), time.Now(), *dryRun)
		if err != nil {
			return err
		}
		if removed == nil {
			removed = []inventory.Entry{}
		}
		verb := "removed"
		if *dryRun {
			verb = "would remove"
		}
		return show(removed, func(w io.Writer) {
			for i := range removed {
				r := &removed[i]
				fmt.Fprintf(w, "%s %s (%s), %s since %s\n", verb, r.Name, r.Short(), r.Reason, dayText(r.Since()))
			}
			fmt.Fprintf(w, "%s the files of %s\n", verb, count(len(removed), "certificate"))
		})
	}
	return cmd
}
