package arm

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/fleet"
)

// kept is how long history is kept after its end: as long as certificates are
// (facts, connected-cache 3.7).
const kept = 18 * 30 * 24 * time.Hour

// versionChange is the detail of a version.
type versionChange struct {
	Before string        `json:"before"`
	After  string        `json:"after"`
	Ring   *fleet.Update `json:"ring,omitempty"`
}

// entry is something that a node has for a while.
type entry struct{ kind, name string }

// Observer writes down what begins and what ends at nodes. It is for one replica
// at a time, and for one pass.
type Observer struct {
	s     *Service
	now   time.Time
	known map[string]map[entry]bool
}

// Observe begins a pass over all nodes, of which there is one a minute.
func (s *Service) Observe(ctx context.Context) (*Observer, error) {
	known, err := s.open(ctx)
	return &Observer{s, s.o.Now(), known}, err
}

// Node compares what a node said last with what is known of it.
func (o *Observer) Node(ctx context.Context, n *roster.Node) error {
	if n.LastSeen.IsZero() {
		return nil
	}
	if err := o.s.observe(ctx, n, o.known[n.NodeID], o.now); err != nil {
		return fmt.Errorf("history of node %s: %w", n.NodeID, err)
	}
	return nil
}

// open is what nodes have now, as far as it is written down.
func (s *Service) open(ctx context.Context) (map[string]map[entry]bool, error) {
	rows, err := s.o.DB.QueryContext(ctx, `SELECT node_id, kind, name FROM history WHERE ended = 0`)
	if err != nil {
		return nil, fmt.Errorf("reading history: %w", err)
	}
	defer rows.Close()
	all := map[string]map[entry]bool{}
	for rows.Next() {
		var id string
		var e entry
		if err := rows.Scan(&id, &e.kind, &e.name); err != nil {
			return nil, err
		}
		if all[id] == nil {
			all[id] = map[entry]bool{}
		}
		all[id][e] = true
	}
	return all, rows.Err()
}

// observe writes what is other than before, in most minutes nothing.
func (s *Service) observe(ctx context.Context, n *roster.Node, was map[entry]bool, now time.Time) error {
	is := map[entry]any{}
	for _, i := range n.State.Issues {
		is[entry{"issue", i.Type + " " + i.Subject}] = i
	}
	for _, c := range n.State.Certificates {
		is[entry{"certificate", c.SHA256}] = c
	}
	version := n.State.System.Version
	if version != "" {
		is[entry{"version", version}] = versionChange{After: version, Ring: n.Spec.Update}
	}
	before, same := "", len(is) == len(was)
	for e := range was {
		if e.kind == "version" {
			before = e.name
		}
		same = same && is[e] != nil
	}
	if same {
		return nil
	}
	return s.o.DB.Tx(ctx, func(tx *sql.Tx) error {
		for e := range was {
			if is[e] == nil {
				if _, err := tx.ExecContext(ctx, `UPDATE history SET ended = $1 WHERE node_id = $2 AND kind = $3 AND name = $4 AND ended = 0`, db.Micros(now), n.NodeID, e.kind, e.name); err != nil {
					return err
				}
			}
		}
		for e, detail := range is {
			if was[e] {
				continue
			}
			if v, ok := detail.(versionChange); ok {
				v.Before = before
				detail = v
			}
			text, err := json.Marshal(detail)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO history (node_id, kind, name, began, detail) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (node_id, kind, name, began) DO NOTHING`, n.NodeID, e.kind, e.name, db.Micros(now), string(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// event is a row of the history.
type event struct {
	name         string
	began, ended time.Time
	detail       []byte
}

// events are a node's of one kind, the latest first.
func (s *Service) events(ctx context.Context, node, kind string) ([]event, error) {
	rows, err := s.o.DB.QueryContext(ctx, `SELECT name, began, ended, detail FROM history WHERE node_id = $1 AND kind = $2 ORDER BY began DESC, name LIMIT 1000`, node, kind)
	if err != nil {
		return nil, fmt.Errorf("reading the history of node %s: %w", node, err)
	}
	defer rows.Close()
	var all []event
	for rows.Next() {
		var e event
		var began, ended int64
		if err := rows.Scan(&e.name, &began, &ended, &e.detail); err != nil {
			return nil, err
		}
		e.began, e.ended = db.Time(began), db.Time(ended)
		all = append(all, e)
	}
	return all, rows.Err()
}

func (s *Service) postIssueHistory(w http.ResponseWriter, r *http.Request) error {
	n, c, err := s.nodeAndCustomer(r)
	if err != nil {
		return err
	}
	es, err := s.events(r.Context(), n.NodeID, "issue")
	if err != nil {
		return err
	}
	out := IssueHistory{Resource: nodeResource(n), Properties: IssueHistoryProperties{c.CustomerID, n.NodeID, []Issue{}}}
	for _, e := range es {
		var i fleet.Issue
		if err := json.Unmarshal(e.detail, &i); err != nil {
			return err
		}
		out.Properties.MccIssueHistory = append(out.Properties.MccIssueHistory, Issue{
			MccIssueType: i.Type, ToastString: i.Text, DetailString: i.Fix, IssueStartDate: at(e.began), IssueEndDate: at(e.ended),
		})
	}
	return route.JSON(w, http.StatusOK, out)
}

func (s *Service) postTLSHistory(w http.ResponseWriter, r *http.Request) error {
	n, c, err := s.nodeAndCustomer(r)
	if err != nil {
		return err
	}
	es, err := s.events(r.Context(), n.NodeID, "certificate")
	if err != nil {
		return err
	}
	out := TLSCertificateHistory{Resource: nodeResource(n), Properties: TLSCertificateHistoryProperties{c.CustomerID, n.NodeID, []TLSCertificate{}}}
	for _, e := range es {
		var f fleet.Certificate
		if err := json.Unmarshal(e.detail, &f); err != nil {
			return err
		}
		for _, now := range n.State.Certificates { // its state changes while it is there
			if now.SHA256 == f.SHA256 {
				f = now
			}
		}
		out.Properties.TLSCertificateHistory = append(out.Properties.TLSCertificateHistory, certificateView(&f, version(r)))
	}
	return route.JSON(w, http.StatusOK, out)
}

func certificateView(f *fleet.Certificate, version string) TLSCertificate {
	c := TLSCertificate{
		ActionRequired: cmp.Or(f.Action, "None"), CertificateFileName: f.File, Thumbprint: f.SHA1, ExpiryDate: at(f.NotAfter), NotBeforeDate: at(f.NotBefore),
		Subject: f.Subject, SubjectAltName: strings.Join(f.Names, ","),
	}
	if version >= renamed {
		c.CertType = f.KeyType
	}
	return c
}

// ringNumbers are the rings as histories write them.
var ringNumbers = map[string]int{"Preview": 0, "Slow": 1, "Stable": 1, "Fast": 2, "Beta": 2}

func (s *Service) postUpdateHistory(w http.ResponseWriter, r *http.Request) error {
	n, c, err := s.nodeAndCustomer(r)
	if err != nil {
		return err
	}
	us, err := s.updates(r.Context(), n)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, AutoUpdateHistory{Resource: nodeResource(n), Properties: AutoUpdateHistoryProperties{c.CustomerID, n.NodeID, us}})
}

// updates are a node's changes of version. The first version it came with is no
// update.
func (s *Service) updates(ctx context.Context, n *roster.Node) ([]AutoUpdate, error) {
	es, err := s.events(ctx, n.NodeID, "version")
	if err != nil {
		return nil, err
	}
	us := []AutoUpdate{}
	for _, e := range es {
		var v versionChange
		if err := json.Unmarshal(e.detail, &v); err != nil {
			return nil, err
		}
		if v.Before == "" {
			continue
		}
		done := 1
		u := AutoUpdate{
			ImageURIBeforeUpdate: v.Before, ImageURITargeted: v.After, ImageURITerminal: v.After, MovedToTerminalState: at(e.began), Created: at(e.began),
			UpdatedRegistry: at(e.began), LastAppliedStatus: &done, LastAppliedStatusText: "Succeeded",
		}
		if v.Ring != nil {
			ring := ringNumbers[v.Ring.Ring]
			u.AutoUpdateRingType = &ring
			if v.Ring.Week != 0 {
				u.RuleRequestedWeek, u.RuleRequestedDay = &v.Ring.Week, &v.Ring.Day
				u.RuleRequestedHour, u.RuleRequestedMinute, _ = strings.Cut(v.Ring.Time, ":")
			}
		}
		us = append(us, u)
	}
	return us, nil
}
