package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/access"
	"larder/internal/control/roster"
)

// Local is what the node of the same process needs to enrol.
type Local struct {
	Fingerprint, CustomerID, CacheNodeID, CustomerKey, RegistrationKey string
}

// The names under which the node of "larder up" is found.
const (
	localGroup    = "local"
	localCustomer = "local"
	localNode     = "this-machine"
)

// EnrolLocal makes the records of the node that runs in the same process, if
// they are not there, and a key for it to register with.
func (c *Control) EnrolLocal(ctx context.Context) (*Local, error) {
	out := &Local{Fingerprint: c.Fingerprint()}
	who := &access.Principal{Kind: access.Local, Name: "larder up"}
	err := c.tx(ctx, func(tx *sql.Tx) error {
		now := time.Now()
		if _, err := c.roster.Group(ctx, tx, c.subscription, localGroup); errors.Is(err, roster.ErrNotFound) {
			if _, err := c.roster.PutGroup(ctx, tx, roster.Group{Subscription: c.subscription, Name: localGroup, Location: "local", Created: now}); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		path := roster.CustomerPath(c.subscription, localGroup, localCustomer)
		cust, err := c.roster.Customer(ctx, tx, path)
		if errors.Is(err, roster.ErrNotFound) {
			cust = &roster.Customer{
				Subscription: c.subscription, Group: localGroup, Name: localCustomer, Location: "local", CustomerID: uuid.NewString(),
				Properties: json.RawMessage(`{}`), Provisioning: "Succeeded",
			}
			cust.System.Touch(who.Name, "Application", now)
			err = c.roster.InsertCustomer(ctx, tx, cust)
		}
		if err != nil {
			return err
		}
		n, err := c.roster.Node(ctx, tx, path+"/enterpriseMccCacheNodes/"+localNode)
		if errors.Is(err, roster.ErrNotFound) {
			n = &roster.Node{
				NodeID: uuid.NewString(), Path: path + "/enterpriseMccCacheNodes/" + localNode, Customer: strings.ToLower(path), Name: localNode, Location: "local",
				Properties: json.RawMessage(`{}`), Provisioning: "Succeeded", Configured: true, Created: now,
			}
			n.System.Touch(who.Name, "Application", now)
			err = c.roster.InsertNode(ctx, tx, n)
		}
		if err != nil {
			return err
		}
		out.CustomerID, out.CacheNodeID = cust.CustomerID, n.NodeID
		if out.CustomerKey, _, err = c.roster.CustomerKeys(ctx, tx, cust.ID); err != nil {
			return err
		}
		if out.RegistrationKey, _, err = c.roster.RegistrationKey(ctx, tx, n.NodeID, now); err != nil {
			return err
		}
		return c.access.Record(ctx, tx, access.Entry{Actor: who, Action: "node.enrol-local", Target: n.Path})
	})
	return out, err
}
