package arm

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
)

func (s *Service) nodeRoutes() []route.Route {
	rs := []route.Route{
		{Method: "GET", Path: "/providers/" + provider + "/operations", Name: "Operations_List", Does: "What the provider can do", Needs: access.Read, Filtered: true, Answer: List[ProviderOperation]{}, Handle: s.listOperations},
		{Method: "GET", Path: nodesAt, Name: "EnterpriseMccCacheNodes_ListByEnterpriseMccCustomerResource", Does: "The nodes of an organisation", Needs: access.Read, Answer: List[NodeResource]{}, Handle: s.inSubscription(s.listNodes)},
		{Method: "GET", Path: nodeAt, Name: "EnterpriseMccCacheNodes_Get", Does: "A node", Needs: access.Read, Answer: NodeResource{}, Handle: s.inSubscription(s.getNode)},
		{Method: "PUT", Path: nodeAt, Name: "EnterpriseMccCacheNodes_CreateOrUpdate", Does: "Make or change a node", Needs: access.Operate, Body: NodeResource{}, Answer: NodeResource{}, Handle: s.inSubscription(s.putNode)},
		{Method: "PATCH", Path: nodeAt, Name: "EnterpriseMccCacheNodes_Update", Does: "Change a node's tags", Needs: access.Operate, Body: TagsPatch{}, Answer: NodeResource{}, Handle: s.inSubscription(s.patchNode)},
		{Method: "DELETE", Path: nodeAt, Name: "EnterpriseMccCacheNodes_Delete", Does: "Delete a node", Needs: access.Operate, Status: http.StatusAccepted, Handle: s.inSubscription(s.deleteNode)},
	}
	post := func(what, does string, needs access.Action, answer any, h func(w http.ResponseWriter, r *http.Request) error) {
		rs = append(rs, route.Route{Method: "POST", Path: nodeAt + "/" + what, Name: "EnterpriseMccCacheNodes_" + strings.ToUpper(what[:1]) + what[1:], Does: does, Needs: needs, Answer: answer, Handle: s.inSubscription(h)})
	}
	post("getCacheNodeInstallDetails", "What a machine needs to become the node; its registration key is good once", access.Secrets, InstallDetails{}, s.postInstallDetails)
	post("getCacheNodeAutoUpdateHistory", "A node's updates", access.Read, AutoUpdateHistory{}, s.postUpdateHistory)
	post("getCacheNodeMccIssueDetailsHistory", "A node's issues", access.Read, IssueHistory{}, s.postIssueHistory)
	post("getCacheNodeTlsCertificateHistory", "A node's serving certificates", access.Read, TLSCertificateHistory{}, s.postTLSHistory)
	return rs
}

// ProviderOperation is something the provider can do.
type ProviderOperation struct {
	Name    string            `json:"name"`
	Display map[string]string `json:"display"`
}

func (s *Service) listOperations(w http.ResponseWriter, r *http.Request) error {
	out := List[ProviderOperation]{}
	for _, t := range []struct{ path, resource string }{{typeCust, "enterpriseMccCustomers"}, {typeNode, "enterpriseMccCacheNodes"}} {
		for _, verb := range []string{"read", "write", "delete"} {
			out.Value = append(out.Value, ProviderOperation{t.path + "/" + verb, map[string]string{"provider": provider, "resource": t.resource, "operation": verb}})
		}
	}
	for _, a := range []string{"getCacheNodeInstallDetails", "getCacheNodeAutoUpdateHistory", "getCacheNodeMccIssueDetailsHistory", "getCacheNodeTlsCertificateHistory"} {
		out.Value = append(out.Value, ProviderOperation{typeNode + "/" + a + "/action", map[string]string{"provider": provider, "resource": "enterpriseMccCacheNodes", "operation": a}})
	}
	return route.JSON(w, http.StatusOK, out)
}

// keptNode is what is kept of a node's properties.
type keptNode struct {
	Node       *CacheNodeEntity `json:"node"`
	Additional *AdditionalNode  `json:"additional"`
}

func readKept(n *roster.Node) (*stored, error) {
	k := keptNode{new(CacheNodeEntity), new(AdditionalNode)}
	if err := json.Unmarshal(n.Properties, &k); err != nil {
		return nil, fmt.Errorf("properties of node %s: %w", n.NodeID, err)
	}
	return &stored{k.Node, k.Additional}, nil
}

func nodePath(s *Service, r *http.Request) string {
	return roster.CustomerPath(s.o.Subscription, r.PathValue("resourceGroupName"), r.PathValue("customerResourceName")) + "/enterpriseMccCacheNodes/" + r.PathValue("cacheNodeResourceName")
}

// node reads the one that a path names.
func (s *Service) node(r *http.Request) (*roster.Node, error) {
	n, err := s.o.Roster.Node(r.Context(), s.o.DB, nodePath(s, r))
	if errors.Is(err, roster.ErrNotFound) {
		return nil, notFound(typeNode, r.PathValue("customerResourceName")+"/"+r.PathValue("cacheNodeResourceName"), r.PathValue("resourceGroupName"))
	}
	return n, err
}

func (s *Service) nodeAndCustomer(r *http.Request) (*roster.Node, *roster.Customer, error) {
	n, err := s.node(r)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.o.Roster.Customer(r.Context(), s.o.DB, n.Customer)
	return n, c, err
}

func nodeResource(n *roster.Node) Resource {
	system := n.System
	return Resource{ID: n.Path, Name: n.Name, Type: typeNode, Location: n.Location, Tags: n.Tags, SystemData: &system}
}

// nodeStates are a node's state in the vendor's words and our numbers, which
// only grow: clients compare the words (facts, connected-cache 4.3).
func nodeState(n *roster.Node, c roster.Condition) (number int, word string) {
	switch {
	case n.Provisioning == "Accepted":
		return 1, "Registration in Progress"
	case c.Word == roster.NotConfigured:
		return 2, "Not Configured"
	case c.Word == roster.NotProvisioned:
		return 3, "Not Provisioned"
	case c.Word == roster.Healthy, c.Word == roster.Updating:
		return 4, "Healthy"
	case c.Word == roster.Registering:
		return 6, "Registration in Progress"
	}
	return 5, "Unhealthy"
}

// nodeView is a node as clients of a version see it.
func (s *Service) nodeView(n *roster.Node, c *roster.Customer, version string) (*NodeResource, error) {
	st, err := readKept(n)
	if err != nil {
		return nil, err
	}
	now := s.o.Now()
	cond := n.Condition(now)
	number, word := nodeState(n, cond)
	details := strings.Join(cond.Reasons, "; ")
	yes, no, zero, enabled := true, false, 0, !n.Spec.Drain

	e := st.node
	e.CacheNodeID, e.CustomerID, e.FullyQualifiedResourceID, e.IsEnterpriseManaged, e.IsFrozen = n.NodeID, c.CustomerID, n.Path, &yes, &no
	e.CacheNodeName, e.CustomerName = cmp.Or(e.CacheNodeName, n.Name), cmp.Or(e.CustomerName, c.Name)
	e.IsEnabled = &enabled
	e.ConfigurationState, e.ConfigurationStateText = "Configured", "Configured"
	if !n.Configured {
		e.ConfigurationState, e.ConfigurationStateText = "NotConfigured_Ip", "Not Configured"
	}
	e.LastUpdatedTimestamp, e.SynchWithAzureAttemptsCount = at(n.System.LastModifiedAt), &zero

	a := st.additional
	enrolled := n.Line > 0
	a.IsProvisioned, a.CacheNodeState, a.CacheNodeStateShortText, a.CacheNodeStateDetailedText = &enrolled, &number, word, cmp.Or(details, word)
	a.AggregatedStatusCode, a.AggregatedStatusText, a.AggregatedStatusDetails = &number, word, details
	a.ProductVersion, a.AutoUpdateAppliedVersion = n.State.System.Version, n.State.System.Version
	for _, i := range n.State.Issues {
		a.IssuesList = append(a.IssuesList, i.Text)
	}
	count := len(a.IssuesList)
	a.IssuesCount = &count
	a.TLSStatus = "Disabled"
	for i := range n.State.Certificates {
		if f := &n.State.Certificates[i]; f.Active {
			v := certificateView(f, version)
			a.CurrentTLSCertificate, a.TLSStatus = &v, "Enabled"
		}
	}
	a.HostOSEdition, a.HostOSVersion, a.HostOSBuild = n.State.System.Edition, n.State.System.Release, n.State.System.Build
	if version >= renamed {
		e.AutoUpdateRingType = map[string]string{"Fast": "Beta", "Slow": "Stable"}[e.AutoUpdateRingType] + map[string]string{"Preview": "Preview"}[e.AutoUpdateRingType]
	} else {
		e.OpenFirewallPort80, e.OpenFirewallPort443, e.OpenFirewallPort5000, e.OpenFirewallPort5001, e.RuntimeAccountType = nil, nil, nil, nil, ""
		a.HostOSEdition, a.HostOSVersion, a.HostOSBuild = "", "", ""
	}
	return &NodeResource{Resource: nodeResource(n), Properties: &NodeProperties{
		ProvisioningState: n.Provisioning, CacheNode: e, Additional: a, Status: word, StatusCode: fmt.Sprint(number), StatusText: word, StatusDetails: details,
	}}, nil
}

func (s *Service) getNode(w http.ResponseWriter, r *http.Request) error {
	n, c, err := s.nodeAndCustomer(r)
	if err != nil {
		return err
	}
	return s.showNode(w, r, n, c, nil)
}

func (s *Service) showNode(w http.ResponseWriter, r *http.Request, n *roster.Node, c *roster.Customer, warnings []string) error {
	v, err := s.nodeView(n, c, version(r))
	if err != nil {
		return err
	}
	us, err := s.updates(r.Context(), n)
	if err != nil {
		return err
	}
	if len(us) > 0 {
		v.Properties.Additional.LastAutoUpdateInfo, v.Properties.Additional.AutoUpdateLastAppliedDateTime = &us[0], us[0].Created
	}
	warn(w, warnings)
	w.Header().Set("ETag", roster.ETag(n.Version))
	return route.JSON(w, http.StatusOK, v)
}

// warn tells a client what was taken and is not wise (RFC 9111 has retired the
// field, and clients show it still).
func warn(w http.ResponseWriter, warnings []string) {
	for _, t := range warnings {
		w.Header().Add("Warning", `199 larder "`+strings.NewReplacer(`"`, "'", "\\", "/", "\n", " ", "\r", " ").Replace(t)+`"`)
	}
}

func (s *Service) listNodes(w http.ResponseWriter, r *http.Request) error {
	c, err := s.customer(r)
	if err != nil {
		return err
	}
	top, after, next, err := s.page(r)
	if err != nil {
		return err
	}
	ns, err := s.o.Roster.Nodes(r.Context(), c.ID, after, top)
	if err != nil {
		return err
	}
	out := List[*NodeResource]{Value: []*NodeResource{}}
	for _, n := range ns {
		v, err := s.nodeView(n, c, version(r))
		if err != nil {
			return err
		}
		out.Value = append(out.Value, v)
		after = n.ID
	}
	if len(ns) == top {
		out.NextLink = next(after)
	}
	return route.JSON(w, http.StatusOK, out)
}

func (s *Service) putNode(w http.ResponseWriter, r *http.Request) error {
	var body NodeResource
	if err := route.ReadJSON(w, r, &body, false); err != nil {
		return err
	}
	c, err := s.customer(r)
	if err != nil {
		return err
	}
	name := r.PathValue("cacheNodeResourceName")
	path := c.Path() + "/enterpriseMccCacheNodes/" + name
	n, err := s.o.Roster.Node(r.Context(), s.o.DB, path)
	if err != nil && !errors.Is(err, roster.ErrNotFound) {
		return err
	}
	create, tag := n == nil, ""
	var before *stored
	if !create {
		tag = roster.ETag(n.Version)
		if before, err = readKept(n); err != nil {
			return err
		}
	}
	if err := preconditions(r, tag); err != nil {
		return err
	}
	if !create && n.Provisioning == deleting || c.Provisioning == deleting {
		return errDeleting
	}
	var m mistakes
	if err := roster.CheckName(name); err != nil {
		m.add("cacheNodeResourceName", "%s", strings.TrimPrefix(err.Error(), "name: "))
	}
	checkTags(body.Tags, &m)
	checkLocation(body.Location, create, func() string { return n.Location }, &m)
	if err := m.err(); err != nil {
		return err
	}
	by, kind := who(r)
	ch := Change{Action: "node", Target: path}
	if !create {
		ch.Before = map[string]any{"tags": n.Tags, "properties": n.Properties}
	}
	if create {
		n = &roster.Node{NodeID: uuid.NewString(), Path: path, Customer: c.ID, Name: name, Location: body.Location, Provisioning: "Accepted", Created: s.o.Now()}
	}
	kept, warnings, err := applyNode(n, body.Properties, before, version(r))
	if err != nil {
		return err
	}
	n.Tags = body.Tags
	if n.Properties, err = json.Marshal(keptNode{kept.node, kept.additional}); err != nil {
		return err
	}
	n.System.Touch(by, kind, s.o.Now())
	ch.After = map[string]any{"tags": n.Tags, "properties": n.Properties}
	status, what := http.StatusOK, "update"
	if create {
		status, what = http.StatusCreated, "create"
	}
	warn(w, warnings)
	return s.begin(w, r, what, ch, status, func() (any, error) {
		w.Header().Set("ETag", roster.ETag(n.Version))
		return s.nodeView(n, c, version(r))
	}, func(tx *sql.Tx) error {
		if create {
			return s.o.Roster.InsertNode(r.Context(), tx, n)
		}
		return s.o.Roster.UpdateNode(r.Context(), tx, n)
	})
}

func (s *Service) patchNode(w http.ResponseWriter, r *http.Request) error {
	var body TagsPatch
	if err := route.ReadJSON(w, r, &body, false); err != nil {
		return err
	}
	n, c, err := s.nodeAndCustomer(r)
	if err != nil {
		return err
	}
	if err := preconditions(r, roster.ETag(n.Version)); err != nil {
		return err
	}
	if n.Provisioning == deleting {
		return errDeleting
	}
	var m mistakes
	checkTags(body.Tags, &m)
	if err := m.err(); err != nil {
		return err
	}
	before := n.Tags
	if body.Tags != nil {
		n.Tags = body.Tags
	}
	by, kind := who(r)
	n.System.Touch(by, kind, s.o.Now())
	err = s.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		if err := s.o.Roster.UpdateNode(r.Context(), tx, n); err != nil {
			return err
		}
		return s.o.Audit(r.Context(), tx, r, "", Change{Action: "node.tags", Target: n.Path, Before: before, After: n.Tags})
	})
	if err != nil {
		return err
	}
	return s.showNode(w, r, n, c, nil)
}

func (s *Service) deleteNode(w http.ResponseWriter, r *http.Request) error {
	n, err := s.node(r)
	var no *route.Error
	if errors.As(err, &no) && no.Status == http.StatusNotFound {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	if err := preconditions(r, roster.ETag(n.Version)); err != nil {
		return err
	}
	return s.begin(w, r, "delete", Change{Action: "node", Target: n.Path, Before: map[string]any{"tags": n.Tags, "properties": n.Properties}}, http.StatusAccepted, nil, func(tx *sql.Tx) error {
		n.Provisioning = deleting
		return s.o.Roster.UpdateNode(r.Context(), tx, n)
	})
}

func (s *Service) postInstallDetails(w http.ResponseWriter, r *http.Request) error {
	n, c, err := s.nodeAndCustomer(r)
	if err != nil {
		return err
	}
	st, err := readKept(n)
	if err != nil {
		return err
	}
	out := InstallDetails{Resource: nodeResource(n), Properties: InstallProperties{
		CustomerID: c.CustomerID, CacheNodeID: n.NodeID, DriveConfiguration: st.additional.DriveConfiguration, ProxyURLConfiguration: st.additional.ProxyURLConfiguration,
	}}
	if out.Properties.DriveConfiguration == nil {
		out.Properties.DriveConfiguration = []DriveConfiguration{}
	}
	err = s.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		p := &out.Properties
		var err error
		if p.PrimaryAccountKey, p.SecondaryAccountKey, err = s.o.Roster.CustomerKeys(r.Context(), tx, c.ID); err != nil {
			return err
		}
		if p.RegistrationKey, _, err = s.o.Roster.RegistrationKey(r.Context(), tx, n.NodeID, s.o.Now()); err != nil {
			return err
		}
		return s.o.Audit(r.Context(), tx, r, "", Change{Action: "node.install-details", Target: n.Path})
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, out)
}
