package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/fleet"
)

// Settings are what a node is to be, as far as ARM has no word for it. In a
// change, fields that are missing stay as they are, and null hands the matter
// back to the node's own configuration file (RFC 7396).
type Settings struct {
	Site        *string          `json:"site,omitempty"`
	Limit       *fleet.Limit     `json:"limit,omitempty"`
	Catalog     *CatalogSettings `json:"catalog,omitempty"`
	ClientNames []string         `json:"clientNames,omitempty"`
	ProxyCA     *string          `json:"proxyCa,omitempty"` // PEM, for a proxy that opens TLS
	Drain       *bool            `json:"drain,omitempty"`
}

// CatalogSettings are the switches of the built-in catalogue.
type CatalogSettings struct {
	Builtin []string `json:"builtin"` // null: all; []: none
}

// patch says of each field whether it was there, so that null is told from
// missing.
type patch struct {
	Site        field[string]          `json:"site"`
	Limit       field[fleet.Limit]     `json:"limit"`
	Catalog     field[CatalogSettings] `json:"catalog"`
	ClientNames field[[]string]        `json:"clientNames"`
	ProxyCA     field[string]          `json:"proxyCa"`
	Drain       field[bool]            `json:"drain"`
}

func (a *API) settingsRoutes() []route.Route {
	at := prefix + "/nodes/{cacheNodeId}/settings"
	return []route.Route{
		{Method: "GET", Path: at, Name: "Settings_Get", Does: "A node's settings that ARM has no word for", Needs: access.Read, Scope: a.nodeScope, Answer: Settings{}, Handle: a.getSettings},
		{Method: "PATCH", Path: at, Name: "Settings_Update", Does: "Change some of a node's settings; null hands a field back to the node's file", Needs: access.Operate, Scope: a.nodeScope,
			Body: Settings{}, Answer: Settings{}, Handle: a.patchSettings},
	}
}

func settingsOf(s *roster.Spec) Settings {
	out := Settings{Limit: s.Limit, ClientNames: s.ClientNames}
	if s.Site != "" {
		out.Site = &s.Site
	}
	if s.Catalog != nil {
		out.Catalog = &CatalogSettings{s.Catalog.Builtin}
	}
	if s.Proxy != nil && s.Proxy.CA != "" {
		out.ProxyCA = &s.Proxy.CA
	}
	if s.Drain {
		out.Drain = &s.Drain
	}
	return out
}

func (a *API) getSettings(w http.ResponseWriter, r *http.Request) error {
	n, err := a.node(r.Context(), a.o.DB, r)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", roster.ETag(n.Version))
	return route.JSON(w, http.StatusOK, settingsOf(&n.Spec))
}

func (a *API) patchSettings(w http.ResponseWriter, r *http.Request) error {
	var p patch
	if err := route.ReadJSON(w, r, &p, true); err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return err
	}
	n, err := a.changeNode(r, "node.settings", func(n *roster.Node) (any, any, error) {
		before := settingsOf(&n.Spec)
		if err := p.apply(&n.Spec); err != nil {
			return nil, nil, err
		}
		return before, settingsOf(&n.Spec), nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", roster.ETag(n.Version))
	return route.JSON(w, http.StatusOK, settingsOf(&n.Spec))
}

func (p *patch) apply(s *roster.Spec) error {
	if p.Site.Set {
		s.Site = p.Site.value()
	}
	if p.Limit.Set {
		s.Limit = p.Limit.Value
	}
	if p.Catalog.Set {
		s.Catalog = nil
		if p.Catalog.Value != nil {
			s.Catalog = &fleet.Catalog{Builtin: p.Catalog.Value.Builtin}
		}
	}
	if p.ClientNames.Set {
		s.ClientNames = p.ClientNames.value()
	}
	if p.ProxyCA.Set {
		if s.Proxy == nil || s.Proxy.URL == "" {
			if p.ProxyCA.Value == nil {
				return nil
			}
			return route.Invalid("proxyCa", "the node has no proxy; set proxyUrlConfiguration first")
		}
		proxy := *s.Proxy
		proxy.CA = p.ProxyCA.value()
		s.Proxy = &proxy
	}
	if p.Drain.Set {
		s.Drain = p.Drain.value()
	}
	return nil
}

var siteForm = regexp.MustCompile(`^[\pL\pN][\pL\pN .,_()/-]{0,63}$`)
var hostForm = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// check looks at everything and says all that is wrong.
func (p *patch) check() error {
	var m mistakes
	if v := p.Site.value(); v != "" && !siteForm.MatchString(v) {
		m.add("site", "found %q, expected up to 64 letters, digits, blanks or . , _ ( ) / -", v)
	}
	if l := p.Limit.Value; l != nil {
		checkLimit(l, &m)
	}
	if c := p.Catalog.Value; c != nil {
		for i, name := range c.Builtin {
			if !nameForm.MatchString(name) {
				m.add(fmt.Sprintf("catalog.builtin[%d]", i), "found %q, expected the name of a built-in publisher such as windows-update", name)
			}
		}
	}
	for i, name := range p.ClientNames.value() {
		if _, err := netip.ParseAddr(name); err != nil && !hostForm.MatchString(name) {
			m.add(fmt.Sprintf("clientNames[%d]", i), "found %q, expected a host name or an IP address, as clients are told to use", name)
		}
	}
	if len(p.ClientNames.value()) > 64 {
		m.add("clientNames", "found %d names, expected 64 at most", len(p.ClientNames.value()))
	}
	if ca := p.ProxyCA.value(); ca != "" && !strings.Contains(ca, "-----BEGIN CERTIFICATE-----") {
		m.add("proxyCa", "found no certificate, expected PEM")
	}
	return m.err()
}

func checkLimit(l *fleet.Limit, m *mistakes) {
	if l.Rate < 0 {
		m.add("limit.rate", "found %d, expected bytes per second, or 0 for no limit", l.Rate)
	}
	if len(l.Schedule) > 64 {
		m.add("limit.schedule", "found %d windows, expected 64 at most", len(l.Schedule))
		return
	}
	var taken [7][]fleet.Window
	for i, w := range l.Schedule {
		at := fmt.Sprintf("limit.schedule[%d]", i)
		if len(w.Days) == 0 {
			m.add(at+".days", "is empty, expected days from 0, Sunday, to 6")
		}
		if w.From < 0 || w.From >= 1440 {
			m.add(at+".from", "found %d, expected minutes since midnight, 0 to 1439", w.From)
		}
		if w.To <= w.From || w.To > 1440 {
			m.add(at+".to", "found %d, expected minutes since midnight above from, 1440 at most", w.To)
		}
		if w.Rate < 0 {
			m.add(at+".rate", "found %d, expected bytes per second, or 0 for no limit", w.Rate)
		}
		for j, d := range w.Days {
			if d < 0 || d > 6 {
				m.add(fmt.Sprintf("%s.days[%d]", at, j), "found %d, expected 0, Sunday, to 6", d)
				continue
			}
			if slices.ContainsFunc(taken[d], func(o fleet.Window) bool { return w.From < o.To && o.From < w.To }) {
				m.add(at, "overlaps another window on day %d", d)
			}
			taken[d] = append(taken[d], w)
		}
	}
}
