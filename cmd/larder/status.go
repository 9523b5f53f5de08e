package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"larder/internal/node"
	"larder/internal/node/link"
)

// statusTable prints a node's status for people: what needs attention first.
func statusTable(w io.Writer, s *node.Status) {
	state := "healthy"
	if s.Draining {
		state = "draining"
	} else if !s.Ready {
		state = "NOT READY"
	} else if len(s.Problems) > 0 {
		state = "degraded"
	}
	fmt.Fprintf(w, "Node\t%s  %s, version %s, up %s\n", s.ID, state, s.Version, since(s.Started))
	for _, p := range s.Problems {
		fmt.Fprintf(w, "!\t%s\n", p)
	}
	fmt.Fprintf(w, "Listens\thttp %s  https %s  admin %s\n", orNone(s.Addresses.HTTP), orNone(s.Addresses.HTTPS), s.Addresses.Admin)
	if c := s.Control; c != nil {
		fmt.Fprintf(w, "Control\t%s, %s\n", c.URL, controlText(c))
	}
	if c := s.Certificate; c != nil {
		fmt.Fprintf(w, "Certificate\t%s, %s, until %s (%d days left)\n", strings.Join(c.SANs, " "), c.KeyType,
			c.NotAfter.Format(time.DateOnly), int(time.Until(c.NotAfter).Hours()/24))
	} else {
		fmt.Fprintf(w, "Certificate\tnone: HTTP only\n")
	}
	fmt.Fprintf(w, "Catalogue\t%d publishers, loaded %s\n", s.Catalog.Publishers, s.Catalog.Loaded.Local().Format(time.DateTime))
	fmt.Fprintf(w, "Since start\t%d requests, %s sent, %s of it from the cache (%.1f %%), %s fetched\n",
		s.Lifetime.Requests, bytesText(s.Lifetime.EgressBytes), bytesText(s.Lifetime.HitBytes), 100*s.Lifetime.HitRatioBytes, bytesText(s.Lifetime.FetchedBytes))
	fmt.Fprintf(w, "Last 15 s\t%d requests, %s sent, %s fetched\n", s.Period.Requests, bytesText(s.Period.EgressBytes), bytesText(s.Period.FetchedBytes))

	fmt.Fprintln(w, "\nDRIVE\tSTATE\tOBJECTS\tUSED\tBUDGET\t\tFREE ON DISK")
	for _, d := range s.Drives {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", d.Path, d.State, d.Objects, bytesText(d.Used), bytesText(d.Budget), bar(d.Used, d.Budget), bytesText(d.Free))
	}
	if len(s.ByType) > 0 {
		fmt.Fprintln(w, "\nCONTENT TYPE\tREQUESTS\tSENT\tFROM CACHE\tHIT RATIO\tFETCHED")
		var names []string
		for name := range s.ByType {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int { return int(s.ByType[b].EgressBytes>>10 - s.ByType[a].EgressBytes>>10) })
		for _, name := range names {
			t := s.ByType[name]
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%.1f %%\t%s\n", name, t.Requests, bytesText(t.EgressBytes), bytesText(t.HitBytes), 100*t.HitRatioBytes, bytesText(t.FetchedBytes))
		}
	}
	if len(s.Origins) > 0 {
		fmt.Fprintln(w, "\nORIGIN\tANSWERED\tFAILED\tLAST TROUBLE")
		for _, o := range s.Origins {
			trouble := ""
			if o.LastError != "" {
				trouble = since(o.LastErrorAt) + " ago: " + o.LastError
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", o.Host, o.OK, o.Failures, trouble)
		}
	}
}

// controlText says how a node's tie to its control plane is.
func controlText(c *link.Status) string {
	words := []string{"connected"}
	if !c.Connected {
		words[0] = "NOT CONNECTED"
		if c.Error != "" {
			words[0] += ": " + c.Error
		}
	}
	words = append(words, fmt.Sprintf("document %d", c.Running))
	if c.Refused > c.Running {
		words = append(words, fmt.Sprintf("document %d REFUSED: %s", c.Refused, c.Why))
	}
	if c.Waiting > 1 {
		words = append(words, fmt.Sprintf("%d minutes wait to be reported", c.Waiting))
	}
	return strings.Join(append(words, "identity until "+c.NotAfter.Format(time.DateOnly)), ", ")
}

func orNone(addrs []string) string {
	if len(addrs) == 0 {
		return "none"
	}
	return strings.Join(addrs, " ")
}

// since writes a span for people: 3d4h, 5m, 12s.
func since(t time.Time) string {
	d := time.Since(t)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
