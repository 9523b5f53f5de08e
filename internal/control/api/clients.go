package api

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
)

// Site is a place with nodes.
type Site struct {
	Name  string         `json:"name"` // "" for nodes without one
	Nodes int            `json:"nodes"`
	State map[string]int `json:"states"` // how many nodes are in each
}

// ClientSettings tell the machines of a site to use its nodes, in the ways
// Windows takes them (facts, connected-cache 5).
type ClientSettings struct {
	Site       string   `json:"site"`
	Hosts      []string `json:"hosts"`                                // healthy nodes first
	CacheHost  string   `json:"doCacheHost"`                          // value of the policy DOCacheHost
	Foreground int      `json:"doDelayCacheServerFallbackForeground"` // seconds
	Background int      `json:"doDelayCacheServerFallbackBackground"` // seconds
	DHCP235    string   `json:"dhcpOption235"`
	Registry   string   `json:"registry"` // a .reg file
	OMA        []OMA    `json:"omaUris"`
	Warnings   []string `json:"warnings"`
}

// OMA is a setting as Intune takes it.
type OMA struct {
	URI   string `json:"uri"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

func (a *API) clientRoutes() []route.Route {
	return []route.Route{
		{Method: "GET", Path: prefix + "/sites", Name: "Sites_List", Does: "Sites, with how many of their nodes are in which state", Needs: access.Read, Filtered: true, Answer: list[Site]{}, Handle: a.listSites},
		{Method: "GET", Path: prefix + "/client-settings", Name: "ClientSettings_Get", Does: "What the machines of a site must be told", Needs: access.Read, Filtered: true,
			Query: []route.Query{{Name: "site", Does: "the site; nodes without one if empty"}}, Answer: ClientSettings{}, Handle: a.getClientSettings},
	}
}

// visible goes through all nodes that the caller may see.
func (a *API) visible(r *http.Request, f func(n *roster.Node)) error {
	p := access.From(r.Context())
	for after := ""; ; {
		nodes, err := a.o.Roster.Nodes(r.Context(), "", after, 500)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			after = n.ID
			if p.Sees(access.ScopeOf(n.ID)) {
				f(n)
			}
		}
		if len(nodes) < 500 {
			return nil
		}
	}
}

func (a *API) listSites(w http.ResponseWriter, r *http.Request) error {
	byName := map[string]*Site{}
	err := a.visible(r, func(n *roster.Node) {
		s := byName[n.Spec.Site]
		if s == nil {
			s = &Site{Name: n.Spec.Site, State: map[string]int{}}
			byName[n.Spec.Site] = s
		}
		s.Nodes++
		s.State[string(n.Condition(a.o.Now()).Word)]++
	})
	if err != nil {
		return err
	}
	out := list[*Site]{Value: []*Site{}}
	for _, s := range byName {
		out.Value = append(out.Value, s)
	}
	slices.SortFunc(out.Value, func(a, b *Site) int { return strings.Compare(a.Name, b.Name) })
	return route.JSON(w, http.StatusOK, out)
}

func (a *API) getClientSettings(w http.ResponseWriter, r *http.Request) error {
	site := r.URL.Query().Get("site")
	type host struct {
		name string
		rank int
	}
	var hosts []host
	s := ClientSettings{Site: site, Hosts: []string{}, Warnings: []string{}, Foreground: 30, Background: 60}
	found := 0
	err := a.visible(r, func(n *roster.Node) {
		if n.Spec.Site != site {
			return
		}
		found++
		c := n.Condition(a.o.Now())
		names := n.Spec.ClientNames
		if len(names) == 0 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("node %s has no client names: set clientNames in its settings", n.Name))
		}
		rank := 1
		if c.Word == roster.Healthy {
			rank = 0
		}
		if c.Word == roster.Offline || c.Word == roster.Draining {
			s.Warnings = append(s.Warnings, fmt.Sprintf("node %s is %s: its names are left out", n.Name, strings.ToLower(string(c.Word))))
			return
		}
		for _, name := range names {
			hosts = append(hosts, host{name, rank})
		}
		if len(n.State.HTTPS) == 0 && n.Line > 0 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("node %s serves no HTTPS: clients get Intune's and Teams' content from the Internet", n.Name))
		}
	})
	if err != nil {
		return err
	}
	if found == 0 {
		return route.NotFound(fmt.Sprintf("Site %q", site))
	}
	slices.SortStableFunc(hosts, func(a, b host) int { return cmp.Compare(a.rank, b.rank) })
	for _, h := range hosts {
		if !slices.Contains(s.Hosts, h.name) {
			s.Hosts = append(s.Hosts, h.name)
		}
	}
	s.CacheHost = strings.Join(s.Hosts, ",")
	s.DHCP235 = s.CacheHost
	const csp = "./Device/Vendor/MSFT/Policy/Config/DeliveryOptimization/"
	s.OMA = []OMA{
		{csp + "DOCacheHost", "String", s.CacheHost},
		{csp + "DODelayCacheServerFallbackForeground", "Integer", fmt.Sprint(s.Foreground)},
		{csp + "DODelayCacheServerFallbackBackground", "Integer", fmt.Sprint(s.Background)},
	}
	s.Registry = fmt.Sprintf("Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Policies\\Microsoft\\Windows\\DeliveryOptimization]\r\n"+
		"\"DOCacheHost\"=\"%s\"\r\n\"DODelayCacheServerFallbackForeground\"=dword:%08x\r\n\"DODelayCacheServerFallbackBackground\"=dword:%08x\r\n", s.CacheHost, s.Foreground, s.Background)
	return route.JSON(w, http.StatusOK, s)
}
