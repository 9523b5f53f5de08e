package alert

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"larder/internal/control/words"
	"larder/internal/fleet"
)

func clockOff(_ *Facts, n *Node, l limits) []Finding {
	off := n.ClockOff.Round(time.Second)
	if off.Abs() <= l.duration("seconds", time.Second) {
		return nil
	}
	x := Finding{Title: fmt.Sprintf("The clock of %s is off", n.Name), Reason: fmt.Sprintf("It is %s %s the control plane's.", off.Abs(), map[bool]string{true: "ahead of", false: "behind"}[off > 0]),
		Fix: "Let the machine follow a time server (chrony, w32time): certificates and Range validators depend on it."}
	if off.Abs() > time.Hour {
		x.Severity = Error
	}
	return []Finding{x}
}

var driveWords = map[string]string{"failed": "has failed", "out": "is out of use"}

func drive(_ *Facts, n *Node, _ limits) []Finding {
	var all []Finding
	for _, d := range n.State.Drives {
		if d.State != "ok" {
			all = append(all, Finding{Subject: d.Path, Title: fmt.Sprintf("Drive %s of %s %s", d.Path, n.Name, cmp.Or(driveWords[d.State], "is "+d.State)), Reason: cmp.Or(d.Error, "No more is known."),
				Fix: "Mend or replace the disk; the node takes the drive back by itself."})
		}
	}
	return all
}

func driveSpace(_ *Facts, n *Node, l limits) []Finding {
	var all []Finding
	for _, d := range n.State.Drives {
		if d.State != "ok" || d.Budget <= 0 {
			continue
		}
		wants := max(0, d.Budget-d.Used) // what it may still fill
		reserve := int64(min(l["reserveGB"]*1e9, l["reservePercent"]/100*float64(d.Budget)))
		x := Finding{Subject: d.Path, Title: fmt.Sprintf("Drive %s of %s has no room", d.Path, n.Name),
			Fix: "Free space on that file system, or give the drive a smaller size: objects are dropped when they must be, but what else is there is not Larder's."}
		switch perDay := n.Yesterday.FetchedBytes; {
		case d.Free < reserve:
			x.Severity = Error
			x.Reason = fmt.Sprintf("%s are free on its file system.", words.Bytes(d.Free))
		case d.Free < wants && perDay > 0 && float64(d.Free)/float64(perDay) < l["days"]:
			x.Title = fmt.Sprintf("Drive %s of %s is full before its size is used", d.Path, n.Name)
			x.Reason = fmt.Sprintf("%s are free and %s of its size are not used yet; at yesterday's %s a day that is %.0f days.", words.Bytes(d.Free), words.Bytes(wants), words.Bytes(perDay), math.Ceil(float64(d.Free)/float64(perDay)))
		default:
			continue
		}
		all = append(all, x)
	}
	return all
}

// issueOf finds issues of one type that nodes report.
func issueOf(kind, title string) func(*Facts, *Node, limits) []Finding {
	return func(_ *Facts, n *Node, _ limits) []Finding {
		var all []Finding
		for _, i := range n.State.Issues {
			if i.Type == kind {
				t := fmt.Sprintf(title, n.Name)
				all = append(all, Finding{Subject: i.Subject, Title: strings.ToUpper(t[:1]) + t[1:], Reason: i.Text, Fix: i.Fix})
			}
		}
		return all
	}
}

func notReady(_ *Facts, n *Node, _ limits) []Finding {
	if n.State.Ready || n.State.Draining || slices.ContainsFunc(n.State.Drives, func(d fleet.DriveState) bool { return d.State != "ok" }) {
		return nil // the drive is the cause
	}
	reason := "It says no more."
	for _, i := range n.State.Issues {
		if i.Type == "unready" {
			reason = i.Text
		}
	}
	return []Finding{{Title: n.Name + " cannot serve", Reason: reason, Fix: "larder node status on the machine says more."}}
}

func documentRefused(_ *Facts, n *Node, _ limits) []Finding {
	if s := &n.State; s.Refused > s.Running && s.Refused == n.Desired {
		return []Finding{{Title: fmt.Sprintf("%s cannot apply document %d", n.Name, s.Refused), Reason: s.Why, Fix: "Correct the node's settings; until then it runs document " + fmt.Sprint(s.Running) + "."}}
	}
	return nil
}

func drift(f *Facts, n *Node, _ limits) []Finding {
	if s := &n.State; s.Running < n.Desired && s.Refused != n.Desired {
		return []Finding{{Title: n.Name + " does not run what is desired", Reason: fmt.Sprintf("It runs document %d; %d is desired since %s.", s.Running, n.Desired, words.Moment(n.DesiredAt)),
			Fix: "Look at the node's log: it should have fetched the document within a minute."}}
	}
	return nil
}

func dropped(_ *Facts, n *Node, _ limits) []Finding {
	if n.State.Dropped == 0 {
		return nil
	}
	return []Finding{{Title: n.Name + " lost reports", Reason: fmt.Sprintf("%d minutes waited longer than its buffer holds and were thrown away since it started.", n.State.Dropped),
		Fix: "Its figures of that time are missing for good; what was served is not concerned. The alert ends when the node starts anew."}}
}

func version(f *Facts, n *Node, _ limits) []Finding {
	if v := n.State.System.Version; v != "" && f.Version != "" && v != f.Version {
		return []Finding{{Subject: v, Title: fmt.Sprintf("%s runs Larder %s", n.Name, v), Reason: "The control plane runs " + f.Version + ".", Fix: "Update the node: versions one apart work together, more are not promised."}}
	}
	return nil
}

func updateWaits(_ *Facts, n *Node, _ limits) []Finding {
	if n.State.Replaced.IsZero() {
		return nil
	}
	return []Finding{{Title: "An update of " + n.Name + " waits for its restart", Reason: fmt.Sprintf("Another program was installed at %s; Larder %s still runs.", words.Moment(n.State.Replaced), n.State.System.Version),
		Fix: "Restart the node's service."}}
}

func foldVersion(subject string, of []Finding) Finding {
	return Finding{Title: fmt.Sprintf("%d nodes run Larder %s", len(of), subject), Reason: of[0].Reason, Fix: "Update the nodes: versions one apart work together, more are not promised."}
}

// spoken are the types of issues that other rules are about.
var spoken = map[string]bool{"certificate": true, "https-closed": true, "integrity": true, "catalog-invalid": true, "unready": true, "drive-failed": true, "drive-read-only": true, "drive-out": true}

func otherIssue(_ *Facts, n *Node, _ limits) []Finding {
	var all []Finding
	for _, i := range n.State.Issues {
		if !spoken[i.Type] {
			all = append(all, Finding{Subject: i.Type + " " + i.Subject, Title: n.Name + ": " + i.Type, Reason: i.Text, Fix: i.Fix})
		}
	}
	return all
}
