package arm

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
)

// Subscriptions, resource groups and providers are the containers that clients
// expect around resources. There is one subscription.

// Subscription is the one there is.
type Subscription struct {
	ID             string `json:"id"`
	SubscriptionID string `json:"subscriptionId"`
	TenantID       string `json:"tenantId"`
	DisplayName    string `json:"displayName"`
	State          string `json:"state"`
}

// Tenant is the one there is.
type Tenant struct {
	ID          string `json:"id"`
	TenantID    string `json:"tenantId"`
	DisplayName string `json:"displayName"`
}

// Location is where resources are; the word means nothing here.
type Location struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	DisplayName string `json:"displayName"`
}

// Group is a resource group.
type Group struct {
	ID         string            `json:"id,omitempty"`   // read-only
	Name       string            `json:"name,omitempty"` // read-only
	Type       string            `json:"type,omitempty"` // read-only
	Location   string            `json:"location,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties *GroupProperties  `json:"properties,omitempty"` // read-only
}

// GroupProperties say that it is there.
type GroupProperties struct {
	ProvisioningState string `json:"provisioningState"`
}

// Provider is a resource provider.
type Provider struct {
	ID                string         `json:"id"`
	Namespace         string         `json:"namespace"`
	RegistrationState string         `json:"registrationState"`
	ResourceTypes     []ResourceType `json:"resourceTypes"`
}

// ResourceType is what a provider has.
type ResourceType struct {
	ResourceType string   `json:"resourceType"`
	Locations    []string `json:"locations"`
	APIVersions  []string `json:"apiVersions"`
}

func (s *Service) containerRoutes() []route.Route {
	const sub = "/subscriptions/{subscriptionId}"
	get := func(path, name, does string, filtered bool, answer any, h func(w http.ResponseWriter, r *http.Request) error) route.Route {
		return route.Route{Method: "GET", Path: path, Name: name, Does: does, Needs: access.Read, Filtered: filtered, Answer: answer, Handle: h}
	}
	return []route.Route{
		get("/subscriptions", "Subscriptions_List", "The subscription there is", true, List[Subscription]{}, func(w http.ResponseWriter, r *http.Request) error {
			return route.JSON(w, http.StatusOK, List[Subscription]{Value: []Subscription{s.subscription()}})
		}),
		get(sub, "Subscriptions_Get", "The subscription", true, Subscription{}, s.inSubscription(func(w http.ResponseWriter, r *http.Request) error {
			return route.JSON(w, http.StatusOK, s.subscription())
		})),
		get("/tenants", "Tenants_List", "The tenant there is", true, List[Tenant]{}, func(w http.ResponseWriter, r *http.Request) error {
			return route.JSON(w, http.StatusOK, List[Tenant]{Value: []Tenant{{"/tenants/" + s.o.Subscription, s.o.Subscription, "Larder"}}})
		}),
		get(sub+"/locations", "Subscriptions_Locations", "Locations: the word means nothing here, any is taken", true, List[Location]{}, s.inSubscription(func(w http.ResponseWriter, r *http.Request) error {
			out := List[Location]{}
			for _, n := range []string{"local", "westeurope", "northeurope", "eastus", "westus"} {
				out.Value = append(out.Value, Location{"/subscriptions/" + s.o.Subscription + "/locations/" + n, n, n})
			}
			return route.JSON(w, http.StatusOK, out)
		})),
		get(sub+"/providers", "Providers_List", "The provider there is", true, List[Provider]{}, s.inSubscription(func(w http.ResponseWriter, r *http.Request) error {
			return route.JSON(w, http.StatusOK, List[Provider]{Value: []Provider{s.provider()}})
		})),
		get(sub+"/providers/{namespace}", "Providers_Get", "A provider", true, Provider{}, s.inSubscription(s.getProvider)),
		{Method: "POST", Path: sub + "/providers/{namespace}/register", Name: "Providers_Register", Does: "Register a provider: it is registered always", Needs: access.Read, Filtered: true, Answer: Provider{}, Handle: s.inSubscription(s.getProvider)},
		get(sub+"/resourceGroups", "ResourceGroups_List", "Resource groups", true, List[Group]{}, s.inSubscription(s.listGroups)),
		get(groupAt, "ResourceGroups_Get", "A resource group", false, Group{}, s.inSubscription(s.getGroup)),
		{Method: "HEAD", Path: groupAt, Name: "ResourceGroups_CheckExistence", Does: "Whether a resource group is there", Needs: access.Read, Status: http.StatusNoContent, Handle: s.inSubscription(s.headGroup)},
		{Method: "PUT", Path: groupAt, Name: "ResourceGroups_CreateOrUpdate", Does: "Make a resource group, or change its tags", Needs: access.Operate, Body: Group{}, Answer: Group{}, Handle: s.inSubscription(s.putGroup)},
		{Method: "PATCH", Path: groupAt, Name: "ResourceGroups_Update", Does: "Change a resource group's tags", Needs: access.Operate, Body: TagsPatch{}, Answer: Group{}, Handle: s.inSubscription(s.patchGroup)},
		{Method: "DELETE", Path: groupAt, Name: "ResourceGroups_Delete", Does: "Delete a resource group and all in it", Needs: access.Operate, Status: http.StatusAccepted, Handle: s.inSubscription(s.deleteGroup)},
		get(groupAt+"/resources", "ResourceGroups_Resources", "The resources of a group", false, List[Resource]{}, s.inSubscription(s.listResources)),
		get(sub+"/resources", "Resources_List", "The resources of the subscription", true, List[Resource]{}, s.inSubscription(s.listResources)),
	}
}

func (s *Service) inSubscription(h func(w http.ResponseWriter, r *http.Request) error) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.checkSubscription(r); err != nil {
			return err
		}
		return h(w, r)
	}
}

func (s *Service) subscription() Subscription {
	return Subscription{"/subscriptions/" + s.o.Subscription, s.o.Subscription, s.o.Subscription, "Larder", "Enabled"}
}

func (s *Service) provider() Provider {
	p := Provider{ID: "/subscriptions/" + s.o.Subscription + "/providers/" + provider, Namespace: provider, RegistrationState: "Registered"}
	for _, t := range []string{"enterpriseMccCustomers", "enterpriseMccCustomers/enterpriseMccCacheNodes", "operations"} {
		p.ResourceTypes = append(p.ResourceTypes, ResourceType{t, []string{"local"}, versions})
	}
	return p
}

func (s *Service) getProvider(w http.ResponseWriter, r *http.Request) error {
	if n := r.PathValue("namespace"); !strings.EqualFold(n, provider) {
		return &route.Error{Status: http.StatusNotFound, Code: "InvalidResourceNamespace", Message: fmt.Sprintf("The resource namespace '%s' is not one of this control plane, which has %s.", n, provider)}
	}
	return route.JSON(w, http.StatusOK, s.provider())
}

func groupView(g *roster.Group) Group {
	return Group{ID: "/subscriptions/" + g.Subscription + "/resourceGroups/" + g.Name, Name: g.Name, Type: "Microsoft.Resources/resourceGroups", Location: g.Location, Tags: g.Tags, Properties: &GroupProperties{"Succeeded"}}
}

func (s *Service) listGroups(w http.ResponseWriter, r *http.Request) error {
	gs, err := s.o.Roster.Groups(r.Context(), s.o.Subscription)
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	out := List[Group]{Value: []Group{}}
	for _, g := range gs {
		if p.Sees(access.GroupScope(g.Subscription, g.Name)) {
			out.Value = append(out.Value, groupView(g))
		}
	}
	return route.JSON(w, http.StatusOK, out)
}

// group reads the group that a path names.
func (s *Service) group(r *http.Request) (*roster.Group, error) {
	g, err := s.o.Roster.Group(r.Context(), s.o.DB, r.PathValue("subscriptionId"), r.PathValue("resourceGroupName"))
	if errors.Is(err, roster.ErrNotFound) {
		return nil, &route.Error{Status: http.StatusNotFound, Code: "ResourceGroupNotFound", Message: fmt.Sprintf("Resource group '%s' could not be found.", r.PathValue("resourceGroupName"))}
	}
	return g, err
}

func (s *Service) getGroup(w http.ResponseWriter, r *http.Request) error {
	g, err := s.group(r)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, groupView(g))
}

func (s *Service) headGroup(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.group(r); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

var groupForm = regexp.MustCompile(`^[\pL\pN_().-]{1,90}$`)

func (s *Service) putGroup(w http.ResponseWriter, r *http.Request) error {
	var body Group
	if err := route.ReadJSON(w, r, &body, false); err != nil {
		return err
	}
	name := r.PathValue("resourceGroupName")
	var m mistakes
	if !groupForm.MatchString(name) || strings.HasSuffix(name, ".") {
		m.add("resourceGroupName", "found %q, expected 1 to 90 letters, digits, or - _ ( ) . with no . at the end", name)
	}
	checkTags(body.Tags, &m)
	old, err := s.o.Roster.Group(r.Context(), s.o.DB, s.o.Subscription, name)
	if err != nil && !errors.Is(err, roster.ErrNotFound) {
		return err
	}
	switch {
	case old == nil && strings.TrimSpace(body.Location) == "":
		m.add("location", "found nothing, expected a location; any word will do, such as local")
	case old != nil && body.Location != "" && !sameLocation(body.Location, old.Location):
		return &route.Error{Status: http.StatusConflict, Code: "InvalidResourceGroupLocation", Target: "location", Message: fmt.Sprintf("location: found %q, expected %q: it cannot change.", body.Location, old.Location)}
	}
	if err := m.err(); err != nil {
		return err
	}
	g := &roster.Group{Subscription: s.o.Subscription, Name: name, Location: body.Location, Tags: body.Tags, Created: s.o.Now()}
	if old != nil {
		g.Name, g.Location, g.Created = old.Name, old.Location, old.Created
	}
	ch := Change{Action: "group.put", Target: groupView(g).ID, After: groupView(g)}
	if old != nil {
		ch.Before = groupView(old)
	}
	status := http.StatusOK
	err = s.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		created, err := s.o.Roster.PutGroup(r.Context(), tx, *g)
		if err != nil {
			return err
		}
		if status = http.StatusOK; created && old == nil {
			status = http.StatusCreated
		}
		return s.o.Audit(r.Context(), tx, r, "", ch)
	})
	if err != nil {
		return err
	}
	return route.JSON(w, status, groupView(g))
}

// sameLocation compares locations as ARM does: "West Europe" is "westeurope".
func sameLocation(a, b string) bool {
	norm := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }
	return norm(a) == norm(b)
}

func (s *Service) patchGroup(w http.ResponseWriter, r *http.Request) error {
	var body TagsPatch
	if err := route.ReadJSON(w, r, &body, false); err != nil {
		return err
	}
	var m mistakes
	checkTags(body.Tags, &m)
	if err := m.err(); err != nil {
		return err
	}
	g, err := s.group(r)
	if err != nil {
		return err
	}
	before := groupView(g)
	if body.Tags != nil {
		g.Tags = body.Tags
	}
	err = s.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		if _, err := s.o.Roster.PutGroup(r.Context(), tx, *g); err != nil {
			return err
		}
		return s.o.Audit(r.Context(), tx, r, "", Change{Action: "group.tags", Target: before.ID, Before: before.Tags, After: g.Tags})
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, groupView(g))
}

func (s *Service) deleteGroup(w http.ResponseWriter, r *http.Request) error {
	g, err := s.group(r)
	if err != nil {
		return err
	}
	return s.begin(w, r, "delete", Change{Action: "group", Target: groupView(g).ID, Before: groupView(g)}, http.StatusAccepted, nil, func(tx *sql.Tx) error { return nil })
}

func (s *Service) listResources(w http.ResponseWriter, r *http.Request) error {
	group := r.PathValue("resourceGroupName")
	if group != "" {
		if _, err := s.group(r); err != nil {
			return err
		}
	}
	kind := ""
	if f := r.URL.Query().Get("$filter"); f != "" {
		m := regexp.MustCompile(`(?i)^\s*resourceType\s+eq\s+'([^']*)'\s*$`).FindStringSubmatch(f)
		if m == nil {
			return route.Invalid("$filter", "found %q, expected resourceType eq 'TYPE'", f)
		}
		kind = m[1]
	}
	top, after, next, err := s.page(r)
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	out := List[Resource]{Value: []Resource{}}
	// Customers, each with its nodes behind it: in the order of ids a node comes
	// right after its customer. A page that ended within a customer goes on with
	// its nodes.
	if c, err := s.o.Roster.Customer(r.Context(), s.o.DB, customerOf(after)); err == nil {
		if full, err := s.addNodes(r, &out, c, after, kind, top, next, p); err != nil || full {
			if err != nil {
				return err
			}
			return route.JSON(w, http.StatusOK, out)
		}
	}
	for after = customerOf(after); ; {
		cs, err := s.o.Roster.Customers(r.Context(), s.o.Subscription, group, after, 100)
		if err != nil {
			return err
		}
		for _, c := range cs {
			after = c.ID
			if !p.Sees(access.GroupScope(c.Subscription, c.Group)) {
				continue
			}
			if kind == "" || strings.EqualFold(kind, typeCust) {
				out.Value = append(out.Value, Resource{ID: c.Path(), Name: c.Name, Type: typeCust, Location: c.Location, Tags: c.Tags})
				if len(out.Value) == top {
					out.NextLink = next(after)
					return route.JSON(w, http.StatusOK, out)
				}
			}
			if done, err := s.addNodes(r, &out, c, "", kind, top, next, p); err != nil || done {
				if err != nil {
					return err
				}
				return route.JSON(w, http.StatusOK, out)
			}
		}
		if len(cs) < 100 {
			return route.JSON(w, http.StatusOK, out)
		}
	}
}

// customerOf is the customer in the id of one or of its node.
func customerOf(id string) string {
	before, _, _ := strings.Cut(id, "/enterprisemcccachenodes/")
	return before
}

// addNodes adds a customer's nodes after one id to a list, and reports whether
// the page is full.
func (s *Service) addNodes(r *http.Request, out *List[Resource], c *roster.Customer, after, kind string, top int, next func(string) string, p *access.Principal) (full bool, err error) {
	if kind != "" && !strings.EqualFold(kind, typeNode) || !p.Sees(access.GroupScope(c.Subscription, c.Group)) {
		return false, nil
	}
	for {
		ns, err := s.o.Roster.Nodes(r.Context(), c.ID, after, 200)
		if err != nil {
			return false, err
		}
		for _, n := range ns {
			after = n.ID
			out.Value = append(out.Value, Resource{ID: n.Path, Name: c.Name + "/" + n.Name, Type: typeNode, Location: n.Location, Tags: n.Tags})
			if len(out.Value) == top {
				out.NextLink = next(after)
				return true, nil
			}
		}
		if len(ns) < 200 {
			return false, nil
		}
	}
}
