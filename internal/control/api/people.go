package api

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/route"
)

// Me is who the caller is.
type Me struct {
	Kind   access.Kind `json:"kind"`
	ID     string      `json:"id"`
	Name   string      `json:"name"`
	Role   access.Role `json:"role"`
	Scopes []string    `json:"scopes"`
}

// TokenRequest says what a token is to be.
type TokenRequest struct {
	access.NewToken
	Days int `json:"days,omitempty"` // of life; 0: without end
}

// TokenMade is a new token. The secret is shown only here.
type TokenMade struct {
	access.APIToken
	Secret string `json:"secret"` // bearer token, and client secret of OAuth for the client id above
}

// TOTPCode confirms a second factor.
type TOTPCode struct {
	Code string `json:"code"`
}

// Recovery are codes that are each good once in place of a second factor's.
type Recovery struct {
	Codes []string `json:"codes"`
}

func (a *API) peopleRoutes() []route.Route {
	return []route.Route{
		{Method: "GET", Path: prefix + "/me", Name: "Me_Get", Does: "Who the caller is", Needs: access.SignedIn, Answer: Me{}, Handle: func(w http.ResponseWriter, r *http.Request) error {
			p := access.From(r.Context())
			return route.JSON(w, http.StatusOK, Me{p.Kind, p.ID, p.Name, p.Role, p.Scopes})
		}},
		{Method: "POST", Path: prefix + "/me/totp", Name: "Me_StartTOTP", Does: "Begin to set a second factor up", Needs: access.SignedIn, Answer: access.NewTOTP{}, Handle: a.startTOTP},
		{Method: "POST", Path: prefix + "/me/totp/confirm", Name: "Me_ConfirmTOTP", Does: "Switch it on with a code of it", Needs: access.SignedIn, Body: TOTPCode{}, Answer: Recovery{}, Handle: a.confirmTOTP},

		{Method: "GET", Path: prefix + "/tokens", Name: "Tokens_List", Does: "All tokens, without their secrets", Needs: access.Manage, Answer: list[access.APIToken]{}, Handle: func(w http.ResponseWriter, r *http.Request) error {
			v, err := a.o.Access.Tokens(r.Context())
			return answerList(w, v, err)
		}},
		{Method: "POST", Path: prefix + "/tokens", Name: "Tokens_Create", Does: "Make a token; its secret is shown only here", Needs: access.Manage, Body: TokenRequest{}, Answer: TokenMade{}, Status: http.StatusCreated, Handle: a.createToken},
		{Method: "DELETE", Path: prefix + "/tokens/{tokenId}", Name: "Tokens_Revoke", Does: "End a token", Needs: access.Manage, Status: http.StatusNoContent, Handle: a.revokeToken},

		{Method: "GET", Path: prefix + "/users", Name: "Users_List", Does: "All people who may sign in", Needs: access.Manage, Answer: list[access.Account]{}, Handle: func(w http.ResponseWriter, r *http.Request) error {
			v, err := a.o.Access.Users(r.Context())
			return answerList(w, v, err)
		}},
		{Method: "POST", Path: prefix + "/users", Name: "Users_Create", Does: "Make an account with a password", Needs: access.Manage, Body: access.NewUser{}, Answer: access.Account{}, Status: http.StatusCreated, Handle: a.createUser},
		{Method: "PATCH", Path: prefix + "/users/{userId}", Name: "Users_Update", Does: "Change an account; its sessions end", Needs: access.Manage, Body: access.UserChange{}, Answer: access.Account{}, Handle: a.changeUser},
		{Method: "DELETE", Path: prefix + "/users/{userId}", Name: "Users_Delete", Does: "Remove an account", Needs: access.Manage, Status: http.StatusNoContent, Handle: a.deleteUser},
	}
}

// asRefusal gives a refusal of access its answer.
func asRefusal(err error) error {
	var no *access.Refusal
	if errors.As(err, &no) {
		return &route.Error{Status: no.Status, Code: no.Code, Message: no.Message, Err: no.Err}
	}
	return err
}

// record does something of access in one transaction with the audit's entry.
func (a *API) record(r *http.Request, do func(ctx context.Context, tx *sql.Tx) (Change, error)) error {
	return asRefusal(a.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		c, err := do(r.Context(), tx)
		if err != nil {
			return err
		}
		return a.o.Audit(r.Context(), tx, r, c)
	}))
}

func self(r *http.Request) (string, error) {
	p := access.From(r.Context())
	if p.Kind != access.User {
		return "", &route.Error{Status: http.StatusConflict, Code: "NotAPerson", Message: "Only people who signed in have second factors."}
	}
	return p.ID, nil
}

func (a *API) startTOTP(w http.ResponseWriter, r *http.Request) error {
	id, err := self(r)
	if err != nil {
		return err
	}
	t, err := a.o.Access.StartTOTP(r.Context(), id)
	if err != nil {
		return asRefusal(err)
	}
	return route.JSON(w, http.StatusOK, t)
}

func (a *API) confirmTOTP(w http.ResponseWriter, r *http.Request) error {
	id, err := self(r)
	if err != nil {
		return err
	}
	var c TOTPCode
	if err := route.ReadJSON(w, r, &c, true); err != nil {
		return err
	}
	var codes []string
	if err := a.record(r, func(ctx context.Context, tx *sql.Tx) (_ Change, err error) {
		codes, err = a.o.Access.ConfirmTOTP(ctx, tx, id, c.Code)
		return Change{Action: "user.totp", Target: "user " + id}, err
	}); err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, Recovery{codes})
}

func (a *API) createToken(w http.ResponseWriter, r *http.Request) error {
	var n TokenRequest
	if err := route.ReadJSON(w, r, &n, true); err != nil {
		return err
	}
	if n.Days < 0 || n.Days > 3650 {
		return route.Invalid("days", "found %d, expected 1 to 3650, or 0 for no end", n.Days)
	}
	n.Life = time.Duration(n.Days) * 24 * time.Hour
	var t access.APIToken
	var secret string
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		var err error
		t, secret, err = a.o.Access.CreateToken(ctx, tx, n.NewToken, access.From(ctx))
		return Change{Action: "token.create", Target: "token " + t.ID, After: t}, err
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, TokenMade{t, secret})
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("tokenId")
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		return Change{Action: "token.revoke", Target: "token " + id}, a.o.Access.RevokeToken(ctx, tx, id)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request) error {
	var n access.NewUser
	if err := route.ReadJSON(w, r, &n, true); err != nil {
		return err
	}
	var u *access.Account
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		var err error
		u, err = a.o.Access.CreateUser(ctx, tx, n, access.From(ctx))
		return Change{Action: "user.create", Target: "user " + n.Name, After: u}, err
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, u)
}

func (a *API) changeUser(w http.ResponseWriter, r *http.Request) error {
	var c access.UserChange
	if err := route.ReadJSON(w, r, &c, true); err != nil {
		return err
	}
	var u *access.Account
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		before, err := a.o.Access.User(ctx, tx, r.PathValue("userId"))
		if err != nil {
			return Change{}, err
		}
		u, err = a.o.Access.ChangeUser(ctx, tx, before.ID, c, access.From(ctx))
		return Change{Action: "user.update", Target: "user " + before.Name, Before: before, After: c}, err
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, u)
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request) error {
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		u, err := a.o.Access.User(ctx, tx, r.PathValue("userId"))
		if err != nil {
			return Change{}, err
		}
		return Change{Action: "user.delete", Target: "user " + u.Name, Before: u}, a.o.Access.DeleteUser(ctx, tx, u.ID, access.From(ctx))
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
