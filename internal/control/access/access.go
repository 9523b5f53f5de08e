// Package access says who may do what on the control plane: people, tokens,
// programs that sign in with a client secret, and nodes; what each role may;
// and the audit of what they did.
package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Action is what a route lets its caller do. Each route names one.
type Action string

// The actions.
const (
	Public   Action = "public"    // no sign-in: health, sign-in itself, registration by its key
	SignedIn Action = "signed-in" // anybody who is signed in, whatever their scopes: about oneself
	Read     Action = "read"
	Operate  Action = "operate" // change resources, settings, jobs, silences
	Secrets  Action = "secrets" // see keys that enrol nodes
	Manage   Action = "manage"  // users, tokens, the audit, channels, approvals, back-ups
	AsNode   Action = "as-node" // what a node does about itself
)

// Actions are all there are, for tests that go through them.
var Actions = []Action{Public, SignedIn, Read, Operate, Secrets, Manage, AsNode}

// Role is what a principal may do within its scopes.
type Role string

// The roles.
const (
	Owner    Role = "owner"
	Operator Role = "operator"
	Reader   Role = "reader"
	NodeRole Role = "node"
)

// Roles are all there are; those of people and tokens first.
var Roles = []Role{Owner, Operator, Reader, NodeRole}

// rights is the whole table of what roles may. Public needs none.
var rights = map[Role][]Action{
	Owner:    {SignedIn, Read, Operate, Secrets, Manage},
	Operator: {SignedIn, Read, Operate, Secrets},
	Reader:   {SignedIn, Read},
	NodeRole: {AsNode},
}

// ParseRole reads the role of a person or token.
func ParseRole(s string) (Role, error) {
	switch r := Role(strings.ToLower(strings.TrimSpace(s))); r {
	case Owner, Operator, Reader:
		return r, nil
	}
	return "", fmt.Errorf("role: found %q, expected owner, operator or reader", s)
}

// Everything is the scope that holds all others.
const Everything = "/"

// GroupScope is the scope of one resource group.
func GroupScope(subscription, group string) string {
	return "/subscriptions/" + strings.ToLower(subscription) + "/resourcegroups/" + strings.ToLower(group)
}

// SubscriptionScope is the scope of a subscription and all its groups.
func SubscriptionScope(subscription string) string {
	return "/subscriptions/" + strings.ToLower(subscription)
}

// ScopeOf is the scope of the resource group in an ARM id, Everything if it has
// none.
func ScopeOf(id string) string {
	parts := strings.SplitN(strings.Trim(id, "/"), "/", 5)
	if len(parts) < 4 {
		return Everything
	}
	return GroupScope(parts[1], parts[3])
}

// Principal is somebody who was recognised.
type Principal struct {
	Kind   Kind
	ID     string // of the user, token or node
	Name   string // for people to read, and for the audit
	Role   Role
	Scopes []string // as GroupScope makes them, or Everything; a node has none
}

// Kind is what a principal is.
type Kind string

// The kinds.
const (
	User  Kind = "user"
	Token Kind = "token" // a bearer token, or a program that got one for its client secret
	Node  Kind = "node"
	Local Kind = "local" // a command on the control plane's own machine
)

// May reports whether the role allows the action in some scope.
func (p *Principal) May(a Action) bool {
	return a == Public || p != nil && slices.Contains(rights[p.Role], a)
}

// Can reports whether the principal may do this in a scope. A nil Principal is
// somebody who was not recognised. Manage concerns everybody, so it takes an
// owner of everything.
func (p *Principal) Can(a Action, scope string) bool {
	switch {
	case !p.May(a):
		return false
	case a == Public, a == SignedIn, a == AsNode:
		return true
	case a == Manage:
		return p.Sees(Everything)
	}
	return p.Sees(scope)
}

// Sees reports whether a scope is within the principal's.
func (p *Principal) Sees(scope string) bool {
	if p == nil {
		return false
	}
	scope = strings.ToLower(strings.TrimSuffix(scope, "/"))
	for _, s := range p.Scopes {
		s = strings.TrimSuffix(strings.ToLower(s), "/")
		if s == "" || scope == s || strings.HasPrefix(scope, s+"/") {
			return true
		}
	}
	return false
}

// Touches reports whether a scope is within the principal's, or the other way
// round: a subscription shows to whoever has one of its groups.
func (p *Principal) Touches(scope string) bool {
	if p.Sees(scope) {
		return true
	}
	if p == nil {
		return false
	}
	scope = strings.ToLower(strings.TrimSuffix(scope, "/")) + "/"
	return slices.ContainsFunc(p.Scopes, func(s string) bool { return strings.HasPrefix(strings.ToLower(s), scope) })
}

type contextKey struct{}

// With returns a context that carries the principal of a request.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the principal of a request, nil if nobody was recognised.
func From(ctx context.Context) *Principal {
	p, _ := ctx.Value(contextKey{}).(*Principal)
	return p
}
