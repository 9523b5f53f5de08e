package api

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
)

// PublisherFile is the body of a publisher.
type PublisherFile struct {
	File string `json:"file"` // YAML, the format of docs/operating/node.md
}

// at is the ARM path of a customer, under the API's own prefix: whatever is a
// customer's lies where its resource group can be seen.
const customerAt = prefix + "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/customers/{customerName}"

func (a *API) publisherRoutes() []route.Route {
	at := customerAt + "/publishers"
	return []route.Route{
		{Method: "GET", Path: at, Name: "Publishers_List", Does: "An organisation's own publishers", Needs: access.Read, Answer: list[roster.Publisher]{}, Handle: a.listPublishers},
		{Method: "GET", Path: at + "/{publisherName}", Name: "Publishers_Get", Does: "One of them", Needs: access.Read, Answer: roster.Publisher{}, Handle: a.getPublisher},
		{Method: "PUT", Path: at + "/{publisherName}", Name: "Publishers_Put", Does: "Add or replace one; every node of the organisation gets it", Needs: access.Operate, Body: PublisherFile{}, Answer: roster.Publisher{}, Handle: a.putPublisher},
		{Method: "DELETE", Path: at + "/{publisherName}", Name: "Publishers_Delete", Does: "Remove one from every node", Needs: access.Operate, Status: http.StatusNoContent, Handle: a.deletePublisher},
	}
}

// customer reads the customer that a path names.
func (a *API) customer(r *http.Request) (*roster.Customer, error) {
	id := roster.CustomerPath(r.PathValue("subscriptionId"), r.PathValue("resourceGroupName"), r.PathValue("customerName"))
	c, err := a.o.Roster.Customer(r.Context(), a.o.DB, id)
	if errors.Is(err, roster.ErrNotFound) {
		return nil, route.NotFound(fmt.Sprintf("Customer %q", r.PathValue("customerName")))
	}
	return c, err
}

func (a *API) listPublishers(w http.ResponseWriter, r *http.Request) error {
	c, err := a.customer(r)
	if err != nil {
		return err
	}
	ps, err := a.o.Roster.Publishers(r.Context(), a.o.DB, c.ID)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, list[*roster.Publisher]{Value: ps})
}

func (a *API) getPublisher(w http.ResponseWriter, r *http.Request) error {
	c, err := a.customer(r)
	if err != nil {
		return err
	}
	ps, err := a.o.Roster.Publishers(r.Context(), a.o.DB, c.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ps, func(p *roster.Publisher) bool { return p.Name == r.PathValue("publisherName") })
	if i < 0 {
		return route.NotFound(fmt.Sprintf("Publisher %q", r.PathValue("publisherName")))
	}
	return route.JSON(w, http.StatusOK, ps[i])
}

const (
	maxPublisher  = 64 << 10 // bytes of a file
	maxPublishers = 200      // files of an organisation; all are in each node's document
)

func (a *API) putPublisher(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("publisherName")
	if !nameForm.MatchString(name) {
		return route.Invalid("publisherName", "found %q, expected lower-case letters, digits and -", name)
	}
	var f PublisherFile
	if err := route.ReadJSON(w, r, &f, true); err != nil {
		return err
	}
	if strings.TrimSpace(f.File) == "" || len(f.File) > maxPublisher {
		return route.Invalid("file", "found %d bytes, expected the YAML of a publisher, %d at most", len(f.File), maxPublisher)
	}
	c, err := a.customer(r)
	if err != nil {
		return err
	}
	err = a.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		before, err := a.checkPublishers(r.Context(), tx, c.ID, name, f.File)
		if err != nil {
			return err
		}
		if err := a.o.Roster.PutPublisher(r.Context(), tx, c.ID, name, f.File, a.o.Now()); err != nil {
			return err
		}
		return a.o.Audit(r.Context(), tx, r, Change{Action: "publisher.put", Target: c.Path() + "/publishers/" + name, Before: before, After: f})
	})
	if err != nil {
		return err
	}
	a.o.Roster.Kick()
	return a.getPublisher(w, r)
}

// checkPublishers says whether nodes would take an organisation's files with one
// of them changed, and returns the one there was, nil for none. Nodes refuse a
// whole document for a mistake in a file, and whoever made it should hear of it
// here.
func (a *API) checkPublishers(ctx context.Context, q db.Queryer, customer, name, file string) (before any, err error) {
	ps, err := a.o.Roster.Publishers(ctx, q, customer)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, p := range ps {
		files[p.Name] = p.File
		if p.Name == name {
			before = PublisherFile{p.File}
		}
	}
	if files[name] = file; len(files) > maxPublishers {
		return nil, route.Invalid("publisherName", "found a publisher above %d, expected no more; several hosts can share a file", maxPublishers)
	}
	if err := a.o.CheckPublishers(files); err != nil {
		return nil, route.Invalid("file", "%s", err)
	}
	return before, nil
}

// publisherFile is a file for the audit, nil for none.
func (a *API) publisherFile(ctx context.Context, q db.Queryer, customer, name string) (any, error) {
	ps, err := a.o.Roster.Publishers(ctx, q, customer)
	for _, p := range ps {
		if p.Name == name {
			return PublisherFile{p.File}, err
		}
	}
	return nil, err
}

func (a *API) deletePublisher(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("publisherName")
	c, err := a.customer(r)
	if err != nil {
		return err
	}
	err = a.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		before, err := a.publisherFile(r.Context(), tx, c.ID, name)
		if err != nil {
			return err
		}
		err = a.o.Roster.DeletePublisher(r.Context(), tx, c.ID, name)
		if errors.Is(err, roster.ErrNotFound) {
			return route.NotFound(fmt.Sprintf("Publisher %q", name))
		}
		if err != nil {
			return err
		}
		return a.o.Audit(r.Context(), tx, r, Change{Action: "publisher.delete", Target: c.Path() + "/publishers/" + name, Before: before})
	})
	if err != nil {
		return err
	}
	a.o.Roster.Kick()
	w.WriteHeader(http.StatusNoContent)
	return nil
}
