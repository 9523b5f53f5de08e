package api

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/route"
)

// ChannelTest says whether a test message arrived.
type ChannelTest struct {
	Arrived bool   `json:"arrived"`
	Problem string `json:"problem,omitempty"`
}

func (a *API) alertRoutes() []route.Route {
	at := prefix + "/alerts"
	return []route.Route{
		{Method: "GET", Path: at, Name: "Alerts_List", Does: "What needs somebody, the weightiest first", Needs: access.Read, Filtered: true, Query: []route.Query{
			{Name: "state", Does: "firing (the default), pending, resolved or all"}, {Name: "severity", Does: "the lowest: info, warning or error"}, {Name: "rule"},
			{Name: "node", Does: "only those about this node, a GUID"}, {Name: "site", Does: "only those about nodes there"}, {Name: "limit", Does: "1000 at most", Type: "integer"},
		}, Answer: list[alert.Alert]{}, Handle: a.listAlerts},
		{Method: "GET", Path: at + "/{alertId}", Name: "Alerts_Get", Does: "One of them", Needs: access.Read, Filtered: true, Answer: alert.Alert{}, Handle: a.getAlert},

		{Method: "GET", Path: at + "/silences", Name: "Silences_List", Does: "Of which alerts people are not told, and when: silences and maintenance windows", Needs: access.Read, Filtered: true, Answer: list[alert.Silence]{}, Handle: a.listSilences},
		{Method: "POST", Path: at + "/silences", Name: "Silences_Create", Does: "Do not tell people for a while, or every week at some time; of alerts that are wholly within the caller's scopes", Needs: access.Operate, Filtered: true,
			Body: alert.Silence{}, Answer: alert.Silence{}, Status: http.StatusCreated, Handle: a.createSilence},
		{Method: "DELETE", Path: at + "/silences/{silenceId}", Name: "Silences_Delete", Does: "Tell people again", Needs: access.Operate, Filtered: true, Status: http.StatusNoContent, Handle: a.deleteSilence},

		{Method: "GET", Path: at + "/rules", Name: "AlertRules_List", Does: "What is looked for, and with which numbers", Needs: access.Read, Filtered: true, Answer: list[alert.Rule]{}, Handle: func(w http.ResponseWriter, r *http.Request) error {
			v, err := a.o.Alerts.Rules(r.Context(), a.o.DB)
			return answerList(w, v, err)
		}},
		{Method: "PATCH", Path: at + "/rules/{ruleName}", Name: "AlertRules_Update", Does: "Change a rule's severity, numbers or patience, or switch it off", Needs: access.Manage, Body: alert.RuleChange{}, Answer: alert.Rule{}, Handle: a.changeRule},

		{Method: "GET", Path: at + "/channels", Name: "AlertChannels_List", Does: "Where people are told, and whether it arrives; without secrets", Needs: access.Manage, Answer: list[alert.Channel]{}, Handle: func(w http.ResponseWriter, r *http.Request) error {
			v, err := a.o.Alerts.Channels(r.Context())
			return answerList(w, v, err)
		}},
		{Method: "POST", Path: at + "/channels", Name: "AlertChannels_Create", Does: "Add a channel: email, webhook, teams, slack or syslog", Needs: access.Manage, Body: alert.Channel{}, Answer: alert.Channel{}, Status: http.StatusCreated, Handle: a.putChannel},
		{Method: "GET", Path: at + "/channels/{channelId}", Name: "AlertChannels_Get", Does: "One of them", Needs: access.Manage, Answer: alert.Channel{}, Handle: func(w http.ResponseWriter, r *http.Request) error {
			c, err := a.o.Alerts.Channel(r.Context(), r.PathValue("channelId"))
			if err != nil {
				return alertError(err, "Channel", r.PathValue("channelId"))
			}
			return route.JSON(w, http.StatusOK, c)
		}},
		{Method: "PUT", Path: at + "/channels/{channelId}", Name: "AlertChannels_Replace", Does: "Replace one; secrets that are sent as they are shown stay", Needs: access.Manage, Body: alert.Channel{}, Answer: alert.Channel{}, Handle: a.putChannel},
		{Method: "DELETE", Path: at + "/channels/{channelId}", Name: "AlertChannels_Delete", Does: "Remove one", Needs: access.Manage, Status: http.StatusNoContent, Handle: a.deleteChannel},
		{Method: "POST", Path: at + "/channels/{channelId}/test", Name: "AlertChannels_Test", Does: "Send a test message now, and say whether it arrived", Needs: access.Manage, Answer: ChannelTest{}, Handle: a.testChannel},
	}
}

// alertError gives an error of alert its answer.
func alertError(err error, kind, id string) error {
	var bad *alert.Invalid
	switch {
	case errors.Is(err, alert.ErrNotFound):
		return route.NotFound(fmt.Sprintf("%s %q", kind, id))
	case errors.As(err, &bad):
		return route.Invalid(bad.Field, "%s", bad.Problem)
	}
	return err
}

func (a *API) listAlerts(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	f := alert.Filter{State: alert.State(q.Get("state")), Rule: q.Get("rule"), Node: q.Get("node"), Site: q.Get("site")}
	switch f.State {
	case "", "all", alert.Firing, alert.Pending, alert.Resolved:
	default:
		return route.Invalid("state", "found %q, expected firing, pending, resolved or all", f.State)
	}
	var err error
	if text := q.Get("severity"); text != "" {
		if f.Severity, err = alert.ParseSeverity(text); err != nil {
			return route.Invalid("severity", "%s", err)
		}
	}
	most, err := limit(r, 200, 1000)
	if err != nil {
		return err
	}
	v, err := a.o.Alerts.List(r.Context(), access.From(r.Context()), f, most)
	return answerList(w, v, err)
}

func (a *API) getAlert(w http.ResponseWriter, r *http.Request) error {
	x, err := a.o.Alerts.Get(r.Context(), access.From(r.Context()), r.PathValue("alertId"))
	if err != nil {
		return alertError(err, "Alert", r.PathValue("alertId"))
	}
	return route.JSON(w, http.StatusOK, x)
}

func (a *API) listSilences(w http.ResponseWriter, r *http.Request) error {
	v, err := a.o.Alerts.Silences(r.Context(), a.o.DB, access.From(r.Context()), a.o.Now())
	return answerList(w, v, err)
}

func (a *API) createSilence(w http.ResponseWriter, r *http.Request) error {
	var s alert.Silence
	if err := route.ReadJSON(w, r, &s, true); err != nil {
		return err
	}
	var made *alert.Silence
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		var err error
		if made, err = a.o.Alerts.AddSilence(ctx, tx, access.From(ctx), s, a.o.Now()); err != nil {
			return Change{}, err
		}
		return Change{Action: "silence.create", Target: "silence " + made.ID, After: made}, nil
	})
	if err != nil {
		return alertError(err, "Silence", "")
	}
	return route.JSON(w, http.StatusCreated, made)
}

func (a *API) deleteSilence(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("silenceId")
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		s, err := a.o.Alerts.RemoveSilence(ctx, tx, access.From(ctx), id, a.o.Now())
		return Change{Action: "silence.delete", Target: "silence " + id, Before: s}, err
	})
	if err != nil {
		return alertError(err, "Silence", id)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) changeRule(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("ruleName")
	var c alert.RuleChange
	if err := route.ReadJSON(w, r, &c, true); err != nil {
		return err
	}
	var after alert.Rule
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		var before alert.Rule
		var err error
		before, after, err = a.o.Alerts.SetRule(ctx, tx, name, c)
		return Change{Action: "alert-rule.change", Target: "alert rule " + name, Before: before, After: after}, err
	})
	if err != nil {
		return alertError(err, "Rule", name)
	}
	return route.JSON(w, http.StatusOK, after)
}

// putChannel adds a channel, or replaces the one of the path.
func (a *API) putChannel(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("channelId")
	var c alert.Channel
	if err := route.ReadJSON(w, r, &c, true); err != nil {
		return err
	}
	var after alert.Channel
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		var before *alert.Channel
		var err error
		if before, after, err = a.o.Alerts.PutChannel(ctx, tx, id, c); err != nil {
			return Change{}, err
		}
		ch := Change{Action: "channel.create", Target: "channel " + after.ID, After: after}
		if before != nil {
			ch.Action, ch.Before = "channel.replace", before
		}
		return ch, nil
	})
	if err != nil {
		return alertError(err, "Channel", id)
	}
	status := http.StatusOK
	if id == "" {
		status = http.StatusCreated
	}
	return route.JSON(w, status, after)
}

func (a *API) deleteChannel(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("channelId")
	err := a.record(r, func(ctx context.Context, tx *sql.Tx) (Change, error) {
		before, err := a.o.Alerts.RemoveChannel(ctx, tx, id)
		return Change{Action: "channel.delete", Target: "channel " + id, Before: before}, err
	})
	if err != nil {
		return alertError(err, "Channel", id)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) testChannel(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("channelId")
	err := a.o.Alerts.TestChannel(r.Context(), id, access.From(r.Context()).Name)
	var lost *alert.Undelivered
	if err != nil && !errors.As(err, &lost) {
		return alertError(err, "Channel", id)
	}
	if aerr := a.record(r, func(context.Context, *sql.Tx) (Change, error) {
		return Change{Action: "channel.test", Target: "channel " + id}, nil
	}); aerr != nil {
		return aerr
	}
	t := ChannelTest{Arrived: err == nil}
	if err != nil {
		t.Problem = err.Error()
	}
	return route.JSON(w, http.StatusOK, t)
}
