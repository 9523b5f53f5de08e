package alert

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"larder/internal/control/words"
)

func originFails(f *Facts, n *Node, l limits) []Finding {
	fix := func(why string) string {
		switch {
		case strings.Contains(why, "no such host"), strings.Contains(why, "server misbehaving"):
			return "Its name is not found: look at the DNS servers the node uses."
		case strings.Contains(why, "certificate"), strings.Contains(why, "x509"):
			return "Its certificate is not trusted: a proxy that opens TLS needs its root in the node's proxy settings."
		case strings.Contains(why, "proxyconnect"), strings.Contains(why, "Proxy Authentication"):
			return "The proxy refuses: look at the node's proxy settings."
		case strings.Contains(why, "refused"), strings.Contains(why, "timeout"), strings.Contains(why, "unreachable"):
			return "Nothing answers there: look at the uplink, and at the firewall's rules for this host."
		}
		return "Try to reach it from the node's machine; clients fetch from the origin themselves meanwhile."
	}
	var all []Finding
	down := map[string]bool{}
	for _, o := range n.State.Origins {
		// It failed lately, and has not answered since well before that.
		if o.LastErrorAt.IsZero() || f.Now.Add(n.ClockOff).Sub(o.LastErrorAt) > 15*time.Minute || o.LastErrorAt.Sub(o.LastOKAt) < l.duration("minutes", time.Minute) {
			continue
		}
		down[o.Host] = true
		since := "since the node started"
		if !o.LastOKAt.IsZero() {
			since = "since " + words.Moment(o.LastOKAt)
		}
		all = append(all, Finding{Subject: o.Host, Title: fmt.Sprintf("%s does not answer %s", o.Host, n.Name), Reason: fmt.Sprintf("No answer %s: %s", since, cmp.Or(o.LastError, "no more is known")), Fix: fix(o.LastError)})
	}
	for _, r := range n.Figures.Origins {
		if share := 100 * float64(r.Bad) / float64(r.Bad+r.Good); !down[r.Name] && share > l["percent"] {
			why := ""
			for _, o := range n.State.Origins {
				if o.Host == r.Name {
					why = o.LastError
				}
			}
			all = append(all, Finding{Subject: r.Name, Title: fmt.Sprintf("%s often fails for %s", r.Name, n.Name), Reason: fmt.Sprintf("%.0f %% of %d requests of the last half hour failed: %s", share, r.Bad+r.Good, cmp.Or(why, "no more is known")), Fix: fix(why)})
		}
	}
	return all
}

func foldOrigin(subject string, of []Finding) Finding {
	return Finding{Title: fmt.Sprintf("%s fails for %d nodes", subject, len(of)), Reason: "For example " + of[0].Members[0].Name + ": " + of[0].Reason,
		Fix: "It fails in several places, so it is most likely the origin itself, or what all of them share. Clients fetch from it themselves meanwhile."}
}

func refusedRequests(_ *Facts, n *Node, l limits) []Finding {
	var all []Finding
	for _, r := range n.Refused {
		if share := 100 * float64(r.Bad) / float64(r.Bad+r.Good); share > l["percent"] {
			all = append(all, Finding{Subject: r.Name, Title: fmt.Sprintf("Requests for %s at %s are refused", r.Name, n.Name), Reason: fmt.Sprintf("%.0f %% of %d requests of the last half hour ended with a 4xx.", share, r.Bad+r.Good),
				Fix: "The access log says which: a 403 of the origin is most often an expired signature, a 404 a client that asks for what is gone."})
		}
	}
	return all
}

func foldRefused(subject string, of []Finding) Finding {
	return Finding{Title: fmt.Sprintf("Requests for %s are refused at %d nodes", subject, len(of)), Reason: "For example " + of[0].Members[0].Name + ": " + of[0].Reason, Fix: of[0].Fix}
}

func hitRatio(_ *Facts, n *Node, l limits) []Finding {
	least := int64(l["leastGB"] * 1e9)
	if n.Yesterday.EgressBytes() < least || n.Week.EgressBytes() < least {
		return nil
	}
	was, is := 100*n.Week.HitRatio(), 100*n.Yesterday.HitRatio()
	if was-is <= l["points"] {
		return nil
	}
	return []Finding{{Title: fmt.Sprintf("%s answers less from its cache", n.Name), Reason: fmt.Sprintf("%.0f %% of yesterday's bytes, %.0f %% in the week before.", is, was),
		Fix: "A release of something new does this for a day. If it stays, look at the content types: a drive may be too small, or an origin may have changed its URLs."}}
}

func noTraffic(f *Facts, n *Node, l limits) []Finding {
	if n.LastDay.IsZero() || n.State.Draining || f.Now.Sub(n.LastDay.Add(24*time.Hour)) < l.duration("days", 24*time.Hour) {
		return nil
	}
	return []Finding{{Title: "Nobody asks " + n.Name + " for anything", Reason: "The last requests were on " + n.LastDay.Format("2006-01-02") + ".",
		Fix: "See that clients still have the policy DOCacheHost (Get-DeliveryOptimizationStatus on one of them), and that they reach the node."}}
}

func limitReached(_ *Facts, n *Node, l limits) []Finding {
	lim := n.Spec.Limit
	if lim == nil || lim.Rate == 0 {
		return nil
	}
	rate := lim.Rate
	for _, w := range lim.Schedule { // which of them holds now, only the node's clock knows
		if w.Rate == 0 {
			return nil
		}
		rate = max(rate, w.Rate)
	}
	if share := 100 * float64(n.Fetched) / float64(rate*quarter); share > l["percent"] {
		return []Finding{{Title: n.Name + " is at its limit", Reason: fmt.Sprintf("It fetched %s in a quarter of an hour, %.0f %% of what its limit of %.1f Mbit/s allows.", words.Bytes(n.Fetched), share, float64(rate)*8/1e6),
			Fix: "Raise the limit, give it hours with a higher one, or prefill at night what clients will want."}}
	}
	return nil
}
