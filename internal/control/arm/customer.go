package arm

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

func (s *Service) customerRoutes() []route.Route {
	return []route.Route{
		{Method: "GET", Path: "/subscriptions/{subscriptionId}/providers/" + typeCust, Name: "EnterpriseMccCustomers_ListBySubscription", Does: "All organisations", Needs: access.Read, Filtered: true, Answer: List[CustomerResource]{}, Handle: s.inSubscription(s.listCustomers)},
		{Method: "GET", Path: customersAt, Name: "EnterpriseMccCustomers_ListByResourceGroup", Does: "The organisations of a group", Needs: access.Read, Answer: List[CustomerResource]{}, Handle: s.inSubscription(s.listCustomers)},
		{Method: "GET", Path: customerAt, Name: "EnterpriseMccCustomers_Get", Does: "An organisation", Needs: access.Read, Answer: CustomerResource{}, Handle: s.inSubscription(s.getCustomer)},
		{Method: "PUT", Path: customerAt, Name: "EnterpriseMccCustomers_CreateOrUpdate", Does: "Make or change an organisation", Needs: access.Operate, Body: CustomerResource{}, Answer: CustomerResource{}, Handle: s.inSubscription(s.putCustomer)},
		{Method: "PATCH", Path: customerAt, Name: "EnterpriseMccCustomers_Update", Does: "Change an organisation's tags", Needs: access.Operate, Body: TagsPatch{}, Answer: CustomerResource{}, Handle: s.inSubscription(s.patchCustomer)},
		{Method: "DELETE", Path: customerAt, Name: "EnterpriseMccCustomers_Delete", Does: "Delete an organisation with its nodes", Needs: access.Operate, Status: http.StatusAccepted, Handle: s.inSubscription(s.deleteCustomer)},
	}
}

// storedCustomer is what is kept of a customer's properties.
type storedCustomer struct {
	Customer   *CustomerEntity     `json:"customer,omitempty"`
	Additional *AdditionalCustomer `json:"additional,omitempty"`
}

// customer reads the one that a path names.
func (s *Service) customer(r *http.Request) (*roster.Customer, error) {
	id := roster.CustomerPath(s.o.Subscription, r.PathValue("resourceGroupName"), r.PathValue("customerResourceName"))
	c, err := s.o.Roster.Customer(r.Context(), s.o.DB, id)
	if errors.Is(err, roster.ErrNotFound) {
		return nil, notFound(typeCust, r.PathValue("customerResourceName"), r.PathValue("resourceGroupName"))
	}
	return c, err
}

func notFound(kind, name, group string) error {
	return &route.Error{Status: http.StatusNotFound, Code: "ResourceNotFound", Message: fmt.Sprintf("The Resource '%s/%s' under resource group '%s' was not found.", kind, name, group)}
}

// customerView is a customer as clients see it. Figures are shown where one
// customer is asked for, not in lists.
func (s *Service) customerView(ctx context.Context, c *roster.Customer, figures bool) (*CustomerResource, error) {
	var st storedCustomer
	if err := json.Unmarshal(c.Properties, &st); err != nil {
		return nil, fmt.Errorf("customer %s: %w", c.ID, err)
	}
	if st.Customer == nil {
		st.Customer = new(CustomerEntity)
	}
	if st.Additional == nil {
		st.Additional = new(AdditionalCustomer)
	}
	yes := true
	e := st.Customer
	e.CustomerID, e.FullyQualifiedResourceID, e.IsEnterpriseManaged, e.IsEntitled = c.CustomerID, c.Path(), &yes, &yes
	if e.CustomerName == "" {
		e.CustomerName = c.Name
	}
	system := c.System
	v := &CustomerResource{
		Resource:   Resource{ID: c.Path(), Name: c.Name, Type: typeCust, Location: c.Location, Tags: c.Tags, SystemData: &system},
		Properties: &CustomerProperties{ProvisioningState: c.Provisioning, Customer: e, Additional: st.Additional, Status: "Active", StatusCode: "1", StatusText: "Success"},
	}
	if !figures {
		return v, nil
	}
	healthy, unhealthy := 0, 0
	for after := ""; ; {
		ns, err := s.o.Roster.Nodes(ctx, c.ID, after, 500)
		if err != nil {
			return nil, err
		}
		for _, n := range ns {
			after = n.ID
			switch _, word := nodeState(n, n.Condition(s.o.Now())); {
			case word == "Healthy":
				healthy++
			case word == "Unhealthy":
				unhealthy++
			}
		}
		if len(ns) < 500 {
			break
		}
	}
	a := st.Additional
	a.HealthyCount, a.UnhealthyCount = &healthy, &unhealthy
	if s.o.Usage == nil {
		return v, nil
	}
	o, err := s.o.Usage.Overview(ctx, telemetry.Filter{Customers: []string{c.ID}}, s.o.Now())
	if err != nil {
		return nil, err
	}
	a.EgressMax, a.AverageEgress, a.MissMax, a.AverageMiss, a.CacheEfficiency = &o.EgressMax, &o.Egress, &o.MissMax, &o.Miss, &o.Efficiency
	a.EgressMaxDateTime, a.MissMaxDateTime = at(o.EgressMaxAt), at(o.MissMaxAt)
	return v, nil
}

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *Service) getCustomer(w http.ResponseWriter, r *http.Request) error {
	c, err := s.customer(r)
	if err != nil {
		return err
	}
	v, err := s.customerView(r.Context(), c, true)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", roster.ETag(c.Version))
	return route.JSON(w, http.StatusOK, v)
}

func (s *Service) listCustomers(w http.ResponseWriter, r *http.Request) error {
	group := r.PathValue("resourceGroupName")
	if group != "" {
		if _, err := s.group(r); err != nil {
			return err
		}
	}
	top, after, next, err := s.page(r)
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	out := List[*CustomerResource]{Value: []*CustomerResource{}}
	for {
		cs, err := s.o.Roster.Customers(r.Context(), s.o.Subscription, group, after, top)
		if err != nil {
			return err
		}
		for _, c := range cs {
			after = c.ID
			if !p.Sees(access.GroupScope(c.Subscription, c.Group)) {
				continue
			}
			v, err := s.customerView(r.Context(), c, false)
			if err != nil {
				return err
			}
			if out.Value = append(out.Value, v); len(out.Value) == top {
				out.NextLink = next(after)
				return route.JSON(w, http.StatusOK, out)
			}
		}
		if len(cs) < top {
			return route.JSON(w, http.StatusOK, out)
		}
	}
}

func (s *Service) putCustomer(w http.ResponseWriter, r *http.Request) error {
	var body CustomerResource
	if err := route.ReadJSON(w, r, &body, false); err != nil {
		return err
	}
	g, err := s.group(r)
	if err != nil {
		return err
	}
	name := r.PathValue("customerResourceName")
	old, err := s.o.Roster.Customer(r.Context(), s.o.DB, roster.CustomerPath(s.o.Subscription, g.Name, name))
	if err != nil && !errors.Is(err, roster.ErrNotFound) {
		return err
	}
	tag := ""
	if old != nil {
		tag = roster.ETag(old.Version)
	}
	if err := preconditions(r, tag); err != nil {
		return err
	}
	if old != nil && old.Provisioning == deleting {
		return errDeleting
	}
	var m mistakes
	if err := roster.CheckName(name); err != nil {
		m.add("customerResourceName", "%s", strings.TrimPrefix(err.Error(), "name: "))
	}
	checkTags(body.Tags, &m)
	checkLocation(body.Location, old == nil, func() string { return old.Location }, &m)
	st := readCustomer(body.Properties, &m)
	if err := m.err(); err != nil {
		return err
	}
	properties, err := json.Marshal(st)
	if err != nil {
		return err
	}
	by, kind := who(r)
	ch := Change{Action: "customer", After: map[string]any{"tags": body.Tags, "properties": st}}
	if old != nil {
		ch.Before = map[string]any{"tags": old.Tags, "properties": old.Properties}
	}
	c := old
	status := http.StatusOK
	if c == nil {
		status = http.StatusCreated
		c = &roster.Customer{Subscription: s.o.Subscription, Group: g.Name, Name: name, Location: body.Location, CustomerID: uuid.NewString(), Provisioning: "Accepted"}
	}
	c.Tags, c.Properties = body.Tags, properties
	c.System.Touch(by, kind, s.o.Now())
	kindOf := "update"
	if old == nil {
		kindOf = "create"
	}
	ch.Target = c.Path()
	return s.begin(w, r, kindOf, ch, status, func() (any, error) {
		w.Header().Set("ETag", roster.ETag(c.Version))
		return s.customerView(r.Context(), c, false)
	}, func(tx *sql.Tx) error {
		if old == nil {
			return s.o.Roster.InsertCustomer(r.Context(), tx, c)
		}
		return s.o.Roster.UpdateCustomer(r.Context(), tx, c)
	})
}

// readCustomer is what is kept of an organisation's properties: what clients may
// write.
func readCustomer(p *CustomerProperties, m *mistakes) storedCustomer {
	var st storedCustomer
	if p == nil {
		return st
	}
	if c := p.Customer; c != nil {
		st.Customer = &CustomerEntity{
			CustomerName: c.CustomerName, ClientTenantID: c.ClientTenantID, ContactName: c.ContactName, ContactEmail: c.ContactEmail, ContactPhone: c.ContactPhone,
			ReleaseVersion: c.ReleaseVersion, ShouldMigrate: c.ShouldMigrate,
		}
		if c.ContactEmail != "" && !strings.Contains(c.ContactEmail, "@") {
			m.add("properties.customer.contactEmail", "found %q, expected an address", c.ContactEmail)
		}
	}
	if a := p.Additional; a != nil {
		st.Additional = &AdditionalCustomer{CustomerEmail: a.CustomerEmail, CustomerEntitlementSkuID: a.CustomerEntitlementSkuID, CustomerEntitlementSkuGUID: a.CustomerEntitlementSkuGUID,
			CustomerEntitlementSkuName: a.CustomerEntitlementSkuName, CustomerEntitlementExpiration: a.CustomerEntitlementExpiration, Optional: a.Optional}
	}
	return st
}

func checkLocation(location string, create bool, old func() string, m *mistakes) {
	switch {
	case create && strings.TrimSpace(location) == "":
		m.add("location", "found nothing, expected a location; any word will do, such as that of the resource group")
	case !create && location != "" && !sameLocation(location, old()):
		m.add("location", "found %q, expected %q: it cannot change", location, old())
	}
}

func (s *Service) patchCustomer(w http.ResponseWriter, r *http.Request) error {
	var body TagsPatch
	if err := route.ReadJSON(w, r, &body, false); err != nil {
		return err
	}
	c, err := s.customer(r)
	if err != nil {
		return err
	}
	if err := preconditions(r, roster.ETag(c.Version)); err != nil {
		return err
	}
	if c.Provisioning == deleting {
		return errDeleting
	}
	var m mistakes
	checkTags(body.Tags, &m)
	if err := m.err(); err != nil {
		return err
	}
	before := c.Tags
	if body.Tags != nil {
		c.Tags = body.Tags
	}
	by, kind := who(r)
	c.System.Touch(by, kind, s.o.Now())
	err = s.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		if err := s.o.Roster.UpdateCustomer(r.Context(), tx, c); err != nil {
			return err
		}
		return s.o.Audit(r.Context(), tx, r, "", Change{Action: "customer.tags", Target: c.Path(), Before: before, After: c.Tags})
	})
	if err != nil {
		return err
	}
	v, err := s.customerView(r.Context(), c, true)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", roster.ETag(c.Version))
	return route.JSON(w, http.StatusOK, v)
}

func (s *Service) deleteCustomer(w http.ResponseWriter, r *http.Request) error {
	c, err := s.customer(r)
	var no *route.Error
	if errors.As(err, &no) && no.Status == http.StatusNotFound {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	if err := preconditions(r, roster.ETag(c.Version)); err != nil {
		return err
	}
	return s.begin(w, r, "delete", Change{Action: "customer", Target: c.Path(), Before: map[string]any{"tags": c.Tags, "properties": c.Properties}}, http.StatusAccepted, nil, func(tx *sql.Tx) error {
		c.Provisioning = deleting
		return s.o.Roster.UpdateCustomer(r.Context(), tx, c)
	})
}
