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
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
)

// Long-running operations (facts, cloud-services 2.4): what is asked for is
// written down with the operation in one transaction, and carried out by
// whichever replica claims it, so that a crash delays it and loses nothing.

const operationAt = "/subscriptions/{subscriptionId}/providers/" + provider + "/locations/{location}"

func (s *Service) operationRoutes() []route.Route {
	return []route.Route{
		{Method: "GET", Path: operationAt + "/operationStatuses/{operationId}", Name: "OperationStatuses_Get", Does: "How far a long-running operation is", Needs: access.Read, Filtered: true, Answer: Operation{}, Handle: s.inSubscription(s.getOperation)},
		{Method: "GET", Path: operationAt + "/operationResults/{operationId}", Name: "OperationResults_Get", Does: "202 while a long-running operation goes on", Needs: access.Read, Filtered: true, Handle: s.inSubscription(s.getOperationResult)},
	}
}

// claim is how long a replica has for an operation before another may try.
const claim = time.Minute

// operation is a row of the table.
type operation struct {
	id, resource, kind, status, problem, principal string
	started, ended                                 time.Time
}

const operationColumns = `SELECT id, resource, kind, status, error, principal, started, ended FROM operations`

func scanOperation(row interface{ Scan(...any) error }) (*operation, error) {
	var o operation
	var started, ended int64
	err := row.Scan(&o.id, &o.resource, &o.kind, &o.status, &o.problem, &o.principal, &started, &ended)
	o.started, o.ended = db.Time(started), db.Time(ended)
	return &o, err
}

// begin writes an operation down together with what do does, and answers with
// where its progress is seen. c is for the audit: its target is the resource.
// body is the resource that is shown, nil for none.
func (s *Service) begin(w http.ResponseWriter, r *http.Request, kind string, c Change, status int, body func() (any, error), do func(tx *sql.Tx) error) error {
	id := uuid.NewString()
	name, _ := who(r)
	err := s.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(r.Context(), `INSERT INTO operations (id, resource, kind, status, principal, started) VALUES ($1, $2, $3, 'InProgress', $4, $5)`,
			id, c.Target, kind, name, db.Micros(s.o.Now())); err != nil {
			return fmt.Errorf("writing an operation: %w", err)
		}
		c.Action += "." + kind
		return s.o.Audit(r.Context(), tx, r, "", c)
	})
	if err != nil {
		return err
	}
	s.o.Roster.Kick()
	select {
	case s.kick <- struct{}{}:
	default:
	}
	s.follow(w, r, id, kind == "delete")
	if body == nil {
		w.WriteHeader(status)
		return nil
	}
	v, err := body()
	if err != nil {
		return err
	}
	return route.JSON(w, status, v)
}

// follow says where the progress of an operation is seen.
func (s *Service) follow(w http.ResponseWriter, r *http.Request, id string, location bool) {
	at := s.o.PublicURL(r) + "/subscriptions/" + s.o.Subscription + "/providers/" + provider + "/locations/local/"
	q := "?api-version=" + r.URL.Query().Get("api-version")
	if !dateForm.MatchString(version(r)) || !strings.Contains(strings.Join(versions, " "), version(r)) {
		q = "?api-version=" + versions[len(versions)-1] // of a group's deletion: its versions are ARM's own
	}
	w.Header().Set("Azure-Asyncoperation", at+"operationStatuses/"+id+q)
	if location {
		w.Header().Set("Location", at+"operationResults/"+id+q)
	}
	w.Header().Set("Retry-After", "1")
}

func (s *Service) operation(r *http.Request) (*operation, error) {
	o, err := scanOperation(s.o.DB.QueryRowContext(r.Context(), operationColumns+` WHERE id = $1`, strings.ToLower(r.PathValue("operationId"))))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, route.NotFound("The operation")
	}
	if err != nil {
		return nil, err
	}
	if p := access.From(r.Context()); !p.Sees(scopeOf(o.resource)) {
		return nil, route.NotFound("The operation")
	}
	return o, nil
}

// scopeOf is the resource group in an ARM id.
func scopeOf(id string) string {
	parts := strings.SplitN(strings.Trim(id, "/"), "/", 5)
	if len(parts) < 4 {
		return access.Everything
	}
	return access.GroupScope(parts[1], parts[3])
}

func (s *Service) getOperation(w http.ResponseWriter, r *http.Request) error {
	o, err := s.operation(r)
	if err != nil {
		return err
	}
	v := Operation{
		ID: r.URL.Path, Name: o.id, ResourceID: o.resource, Status: o.status, StartTime: o.started,
	}
	switch {
	case o.status == "InProgress":
		w.Header().Set("Retry-After", "1")
	default:
		v.EndTime, v.PercentComplete = &o.ended, 100
	}
	if o.problem != "" {
		v.Error = new(ErrorDetail)
		if err := json.Unmarshal([]byte(o.problem), v.Error); err != nil {
			return err
		}
	}
	return route.JSON(w, http.StatusOK, v)
}

func (s *Service) getOperationResult(w http.ResponseWriter, r *http.Request) error {
	o, err := s.operation(r)
	if err != nil {
		return err
	}
	switch o.status {
	case "InProgress":
		s.follow(w, r, o.id, true)
		w.WriteHeader(http.StatusAccepted)
		return nil
	case "Failed":
		var d ErrorDetail
		if err := json.Unmarshal([]byte(o.problem), &d); err != nil {
			return err
		}
		return &route.Error{Status: http.StatusConflict, Code: d.Code, Message: d.Message}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Run carries operations out until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		for ctx.Err() == nil {
			done, err := s.one(ctx)
			if err != nil && ctx.Err() == nil {
				s.o.Log.ErrorContext(ctx, "operation not carried out, trying again", "err", err)
			}
			if !done || err != nil {
				break
			}
		}
		select {
		case <-tick.C:
		case <-s.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// one claims an operation and carries it out. It is false when there is none.
func (s *Service) one(ctx context.Context) (bool, error) {
	now := s.o.Now()
	var o *operation
	err := s.o.DB.Tx(ctx, func(tx *sql.Tx) error {
		var err error
		o, err = scanOperation(tx.QueryRowContext(ctx, operationColumns+` WHERE status = 'InProgress' AND claimed < $1 ORDER BY started, id LIMIT 1`, db.Micros(now)))
		if errors.Is(err, sql.ErrNoRows) {
			o = nil
			return nil
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE operations SET claimed = $1 WHERE id = $2`, db.Micros(now.Add(claim)), o.id)
		return err
	})
	if err != nil || o == nil {
		return false, err
	}
	if err = s.forget(ctx, o); err == nil {
		err = s.o.DB.Tx(ctx, func(tx *sql.Tx) error {
			if err := s.carryOut(ctx, tx, o); err != nil {
				return err
			}
			return s.end(ctx, tx, o, "Succeeded", nil)
		})
	}
	if err == nil {
		// What nodes reported in between; there is little of it.
		if err := s.forget(ctx, o); err != nil {
			s.o.Log.WarnContext(ctx, "figures of what was deleted are left", "resource", o.resource, "err", err)
		}
	}
	var no *route.Error
	if errors.As(err, &no) {
		// What cannot succeed is over; what went wrong here is tried again.
		err = s.end(ctx, s.o.DB, o, "Failed", &ErrorDetail{Code: no.Code, Message: no.Message})
	}
	if err != nil {
		return true, fmt.Errorf("operation %s (%s %s): %w", o.id, o.kind, o.resource, err)
	}
	return true, s.o.Roster.Refresh(ctx)
}

// forget removes the figures of customers that an operation deletes: what is made
// anew under a name is another. A node's figures are its customer's history, and
// stay.
func (s *Service) forget(ctx context.Context, o *operation) error {
	id := strings.ToLower(o.resource)
	if o.kind != "delete" || s.o.Usage == nil || strings.Contains(id, "/enterprisemcccachenodes/") {
		return nil
	}
	return s.o.Usage.Forget(ctx, id)
}

func (s *Service) end(ctx context.Context, q db.Queryer, o *operation, status string, problem *ErrorDetail) error {
	text := ""
	if problem != nil {
		b, err := json.Marshal(problem)
		if err != nil {
			return err
		}
		text = string(b)
	}
	_, err := q.ExecContext(ctx, `UPDATE operations SET status = $1, error = $2, ended = $3 WHERE id = $4`, status, text, db.Micros(s.o.Now()), o.id)
	return err
}

// carryOut does what an operation is for. It may be done twice.
func (s *Service) carryOut(ctx context.Context, tx *sql.Tx, o *operation) error {
	id := strings.ToLower(o.resource)
	switch {
	case o.kind == "delete":
		return s.remove(ctx, tx, id, o.principal)
	case strings.Contains(id, "/enterprisemcccachenodes/"):
		return s.o.Roster.SettleNode(ctx, tx, id)
	default:
		return s.o.Roster.SettleCustomer(ctx, tx, id)
	}
}

// deleting is the provisioning state of what is about to be gone.
const deleting = "Deleting"

var errDeleting = &route.Error{Status: http.StatusConflict, Code: "ResourceIsBeingDeleted", Message: "The resource is being deleted; wait until it is gone, then make it anew."}

// remove deletes a node, a customer with its nodes, or a group with all in it.
func (s *Service) remove(ctx context.Context, tx *sql.Tx, id, principal string) error {
	now := s.o.Now()
	node := func(n *roster.Node) error {
		if err := s.o.Roster.DeleteNode(ctx, tx, n, now); err != nil {
			return err
		}
		return s.o.Audit(ctx, tx, nil, principal, Change{Action: "node.deleted", Target: n.Path})
	}
	customer := func(c *roster.Customer) error {
		for {
			ns, err := s.o.Roster.NodesIn(ctx, tx, c.ID, 200)
			if err != nil {
				return err
			}
			for _, n := range ns {
				if err := node(n); err != nil {
					return err
				}
			}
			if len(ns) < 200 {
				break
			}
		}
		if err := s.o.Roster.DeleteCustomer(ctx, tx, c.ID); err != nil && !errors.Is(err, roster.ErrNotFound) {
			return err
		}
		return s.o.Audit(ctx, tx, nil, principal, Change{Action: "customer.deleted", Target: c.Path()})
	}
	switch {
	case strings.Contains(id, "/enterprisemcccachenodes/"):
		n, err := s.o.Roster.Node(ctx, tx, id)
		if errors.Is(err, roster.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return node(n)
	case strings.Contains(id, "/enterprisemcccustomers/"):
		c, err := s.o.Roster.Customer(ctx, tx, id)
		if errors.Is(err, roster.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return customer(c)
	}
	parts := strings.Split(strings.Trim(id, "/"), "/")
	cs, err := s.o.Roster.CustomersIn(ctx, tx, parts[1], parts[3])
	if err != nil {
		return err
	}
	for _, c := range cs {
		if err := customer(c); err != nil {
			return err
		}
	}
	if err := s.o.Roster.DeleteGroup(ctx, tx, parts[1], parts[3]); err != nil && !errors.Is(err, roster.ErrNotFound) {
		return err
	}
	return s.o.Audit(ctx, tx, nil, principal, Change{Action: "group.deleted", Target: id})
}

// Clean forgets operations and history that ended long ago. It is for one replica
// at a time.
func (s *Service) Clean(ctx context.Context) error {
	now := s.o.Now()
	_, err := s.o.DB.ExecContext(ctx, `DELETE FROM operations WHERE ended <> 0 AND ended < $1`, db.Micros(now.Add(-7*24*time.Hour)))
	_, herr := s.o.DB.ExecContext(ctx, `DELETE FROM history WHERE ended <> 0 AND ended < $1`, db.Micros(now.Add(-kept)))
	return errors.Join(err, herr)
}
