package api

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/fleet"
)

// Node is a node at a glance.
type Node struct {
	CacheNodeID string `json:"cacheNodeId"`
	ID          string `json:"id"` // ARM id
	Name        string `json:"name"`
	Site        string `json:"site,omitempty"`
	roster.Condition
	LastSeen   time.Time   `json:"lastSeen,omitzero"`
	Version    string      `json:"version,omitempty"`  // Larder's, on the node
	Protocol   int         `json:"protocol,omitempty"` // what the node speaks
	ClockOffMs int64       `json:"clockOffMs"`         // the node's clock minus ours
	Desired    int64       `json:"desired"`            // number of the document
	Running    int64       `json:"running"`
	Refused    int64       `json:"refused,omitempty"`
	Why        string      `json:"why,omitempty"`
	Enrolments int64       `json:"enrolments"`
	Report     fleet.State `json:"report"` // as the node said last
}

func (a *API) view(n *roster.Node) Node {
	return Node{
		CacheNodeID: n.NodeID, ID: n.Path, Name: n.Name, Site: n.Spec.Site, Condition: n.Condition(a.o.Now()), LastSeen: n.LastSeen,
		Version: n.State.System.Version, Protocol: n.Protocol, ClockOffMs: n.ClockOff.Milliseconds(),
		Desired: n.Desired, Running: n.State.Running, Refused: n.State.Refused, Why: n.State.Why, Enrolments: n.Line, Report: n.State,
	}
}

// Diff says in what the document that a node runs differs from the desired one.
type Diff struct {
	Running     int64               `json:"running"`
	Desired     int64               `json:"desired"`
	Differences []roster.Difference `json:"differences"`
	Refused     int64               `json:"refused,omitempty"`
	Why         string              `json:"why,omitempty"`
}

// Deployment is how a machine becomes the node.
type Deployment struct {
	Command string    `json:"command"` // for a shell; holds the registration key
	Expires time.Time `json:"expires"` // of the key
}

// Identity is a certificate that the node got.
type Identity struct {
	Serial    string    `json:"serial"`
	Enrolment int64     `json:"enrolment"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Used      time.Time `json:"used,omitzero"` // first
	Revoked   time.Time `json:"revoked,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// Reason says why something is done, for the audit.
type Reason struct {
	Reason string `json:"reason"`
}

func (a *API) nodeRoutes() []route.Route {
	at := prefix + "/nodes/{cacheNodeId}"
	of := func(method, path, name, does string, needs access.Action, r route.Route) route.Route {
		r.Method, r.Path, r.Name, r.Does, r.Needs, r.Scope = method, path, name, does, needs, a.nodeScope
		return r
	}
	return []route.Route{
		{Method: "GET", Path: prefix + "/nodes", Name: "Nodes_List", Does: "All nodes the caller may see, with their state and why", Needs: access.Read, Filtered: true,
			Query: []route.Query{{Name: "customer", Does: "only those of this ARM id"}, {Name: "site", Does: "only those of this site"}, {Name: "state", Does: "only those in this state"},
				{Name: "limit", Does: "at most so many, 1000 at most", Type: "integer"}, {Name: "after", Does: "continue after this ARM id"}},
			Answer: list[Node]{}, Handle: a.listNodes},
		of("GET", at, "Nodes_Get", "One node", access.Read, route.Route{Answer: Node{}, Handle: a.getNode}),
		of("GET", at+"/desired", "Nodes_Desired", "The document the node is to run", access.Read, route.Route{Answer: fleet.Desired{}, Handle: a.getDesired}),
		of("GET", at+"/diff", "Nodes_Diff", "In what the document the node runs differs from the desired one", access.Read, route.Route{Answer: Diff{}, Handle: a.getDiff}),
		of("POST", at+"/deployment", "Nodes_Deployment", "The command that makes a machine this node; its key is good once", access.Secrets, route.Route{Answer: Deployment{}, Handle: a.getDeployment}),
		of("GET", at+"/identities", "Nodes_Identities", "The certificates the node got to prove itself by", access.Read, route.Route{Answer: list[Identity]{}, Handle: a.getIdentities}),
		of("POST", at+"/revoke", "Nodes_Revoke", "Make the node's identities worth nothing: it is lost or was stolen", access.Operate, route.Route{Body: Reason{}, Answer: Node{}, Handle: a.revoke}),
		of("POST", at+"/approve", "Nodes_Approve", "Let an identity renew that expired too long ago", access.Operate, route.Route{Answer: Node{}, Handle: a.approve}),
	}
}

func (a *API) listNodes(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	most, err := limit(r, 1000, 1000)
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	out := list[Node]{Value: []Node{}}
	after := strings.ToLower(q.Get("after"))
	for {
		nodes, err := a.o.Roster.Nodes(r.Context(), q.Get("customer"), after, most)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			after = n.ID
			v := a.view(n)
			if !p.Sees(access.ScopeOf(n.ID)) || q.Has("site") && n.Spec.Site != q.Get("site") || q.Has("state") && !strings.EqualFold(string(v.Word), q.Get("state")) {
				continue
			}
			if out.Value = append(out.Value, v); len(out.Value) == most {
				next := url.Values{}
				for k := range q {
					next.Set(k, q.Get(k))
				}
				next.Set("after", after)
				out.NextLink = a.o.PublicURL(r) + prefix + "/nodes?" + next.Encode()
				return route.JSON(w, http.StatusOK, out)
			}
		}
		if len(nodes) < most {
			return route.JSON(w, http.StatusOK, out)
		}
	}
}

func (a *API) getNode(w http.ResponseWriter, r *http.Request) error {
	n, err := a.node(r.Context(), a.o.DB, r)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", roster.ETag(n.Version))
	return route.JSON(w, http.StatusOK, a.view(n))
}

func (a *API) getDesired(w http.ResponseWriter, r *http.Request) error {
	n, err := a.node(r.Context(), a.o.DB, r)
	if err != nil {
		return err
	}
	d, err := a.o.Roster.Document(r.Context(), n.NodeID)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, d)
}

func (a *API) getDiff(w http.ResponseWriter, r *http.Request) error {
	n, err := a.node(r.Context(), a.o.DB, r)
	if err != nil {
		return err
	}
	running, desired, err := a.o.Roster.Documents(r.Context(), n.NodeID, n.State.Running, n.Desired)
	if err != nil {
		return &route.Error{Status: http.StatusNotFound, Code: "DocumentNotFound", Err: err,
			Message: fmt.Sprintf("Document %d, which the node runs, is too old to be compared with %d.", n.State.Running, n.Desired)}
	}
	ds, err := roster.Diff(running, desired)
	if err != nil {
		return err
	}
	d := Diff{Running: n.State.Running, Desired: n.Desired, Differences: ds}
	if n.State.Refused > n.State.Running {
		d.Refused, d.Why = n.State.Refused, n.State.Why
	}
	return route.JSON(w, http.StatusOK, d)
}

func (a *API) getDeployment(w http.ResponseWriter, r *http.Request) error {
	var d Deployment
	err := a.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		n, err := a.node(r.Context(), tx, r)
		if err != nil {
			return err
		}
		c, err := a.o.Roster.Customer(r.Context(), tx, n.Customer)
		if err != nil {
			return err
		}
		primary, _, err := a.o.Roster.CustomerKeys(r.Context(), tx, n.Customer)
		if err != nil {
			return err
		}
		key, expires, err := a.o.Roster.RegistrationKey(r.Context(), tx, n.NodeID, a.o.Now())
		if err != nil {
			return err
		}
		words := []string{"larder", "node", "deploy",
			word("controlurl", a.o.ControlURL(r)), word("controlfingerprint", a.o.Fingerprint()),
			word("customerid", c.CustomerID), word("cachenodeid", n.NodeID), word("customerkey", primary), word("registrationkey", key)}
		if len(n.Spec.Drives) > 0 {
			words = append(words, word("drivepathandsizeingb", drivesText(n.Spec.Drives)))
		}
		if p := n.Spec.Proxy; p != nil && p.URL != "" {
			words = append(words, "shoulduseproxy=true", word("proxyurl", p.URL))
		}
		d = Deployment{strings.Join(words, " "), expires}
		return a.o.Audit(r.Context(), tx, r, Change{Action: "node.deployment", Target: n.Path})
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, d)
}

// word is a parameter of a command for whichever shell it is pasted into. The
// command runs as root: nothing in a value may mean anything to the shell.
func word(name, value string) string {
	switch {
	case bareWord.MatchString(value):
		return name + "=" + value
	case quotedWord.MatchString(value): // in double quotes, as the vendor's manual and cmd.exe have it
		return name + `="` + value + `"`
	}
	return name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

var (
	bareWord   = regexp.MustCompile(`^[a-zA-Z0-9/:._=+-]+$`)
	quotedWord = regexp.MustCompile(`^[\pL\pN /\\:.,_=+()~#@-]*[\pL\pN/]$`)
)

// drivesText writes drives as the vendor's script takes them: path,size in GB.
func drivesText(ds []fleet.Drive) string {
	var parts []string
	for _, d := range ds {
		parts = append(parts, d.Path, strconv.FormatInt(d.Size/1e9, 10))
	}
	return strings.Join(parts, ",")
}

func (a *API) getIdentities(w http.ResponseWriter, r *http.Request) error {
	n, err := a.node(r.Context(), a.o.DB, r)
	if err != nil {
		return err
	}
	ids, err := a.o.Roster.Identities(r.Context(), a.o.DB, n.NodeID)
	if err != nil {
		return err
	}
	out := list[Identity]{Value: []Identity{}}
	for _, i := range ids {
		out.Value = append(out.Value, Identity{i.Serial, i.Line, i.NotBefore, i.NotAfter, i.Used, i.Revoked, i.Reason})
	}
	return route.JSON(w, http.StatusOK, out)
}

func (a *API) revoke(w http.ResponseWriter, r *http.Request) error {
	var why Reason
	if err := route.ReadJSON(w, r, &why, true); err != nil {
		return err
	}
	if why.Reason = strings.TrimSpace(why.Reason); why.Reason == "" || len(why.Reason) > 500 {
		return route.Invalid("reason", "expected 1 to 500 characters that say what happened")
	}
	return a.about(w, r, Change{Action: "node.revoke", After: why}, func(tx *sql.Tx, n *roster.Node) error {
		return a.o.Roster.Revoke(r.Context(), tx, n.NodeID, why.Reason, a.o.Now())
	})
}

func (a *API) approve(w http.ResponseWriter, r *http.Request) error {
	return a.about(w, r, Change{Action: "node.approve"}, func(tx *sql.Tx, n *roster.Node) error {
		err := a.o.Roster.Approve(r.Context(), tx, n.NodeID, a.o.Now())
		if errors.Is(err, roster.ErrNotFound) {
			return &route.Error{Status: http.StatusConflict, Code: "NoIdentity", Message: "The node has no identity that could be renewed; take its deployment command and enrol it."}
		}
		return err
	})
}

// about does something to a node besides its record, with the audit's entry,
// and answers with the node.
func (a *API) about(w http.ResponseWriter, r *http.Request, c Change, do func(tx *sql.Tx, n *roster.Node) error) error {
	var n *roster.Node
	err := a.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		var err error
		if n, err = a.node(r.Context(), tx, r); err != nil {
			return err
		}
		if err := do(tx, n); err != nil {
			return err
		}
		c.Target = n.Path
		if err := a.o.Audit(r.Context(), tx, r, c); err != nil {
			return err
		}
		n, err = a.node(r.Context(), tx, r)
		return err
	})
	if err != nil {
		return err
	}
	a.o.Roster.Kick()
	return route.JSON(w, http.StatusOK, a.view(n))
}
