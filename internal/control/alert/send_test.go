package alert

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// events are what the messages of these tests say.
func events(n int) []Event {
	var all []Event
	for i := range n {
		all = append(all, Event{Began, Alert{
			ID: fmt.Sprintf("id-%d", i), Rule: "clock", Severity: Warning, Title: fmt.Sprintf("The clock of <node_%d> is off", i), Reason: "It is 5m0s behind the control plane's.", Fix: "Follow a time server.",
			Members: []Member{{NodeID: "1", Name: "node_1"}, {NodeID: "2", Name: `no"de]2`}}, First: now, Last: now,
		}})
	}
	return all
}

// identity is a certificate for 127.0.0.1 and its root in PEM.
func identity(t *testing.T) (*tls.Config, string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// post box is a mail server's session.
type postBox struct {
	c      *smtp.Conn
	secure bool // wants TLS and a password before it takes mail
	signed bool
	from   string
	to     []string
	taken  chan<- letter
}

type letter struct {
	from string
	to   []string
	text string
	tls  bool
}

func (p *postBox) AuthMechanisms() []string { return []string{sasl.Plain} }
func (p *postBox) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "larder" || password != "s3cret-word" {
			return smtp.ErrAuthFailed
		}
		p.signed = true
		return nil
	}), nil
}
func (p *postBox) Reset()        {}
func (p *postBox) Logout() error { return nil }
func (p *postBox) Mail(from string, _ *smtp.MailOptions) error {
	if p.secure && !p.signed {
		return smtp.ErrAuthRequired
	}
	p.from = from
	return nil
}
func (p *postBox) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user here"}
	}
	p.to = append(p.to, to)
	return nil
}
func (p *postBox) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	_, isTLS := p.c.TLSConnectionState()
	p.taken <- letter{p.from, p.to, string(b), isTLS}
	return err
}

// mailServer is a real one. mode is starttls, tls or none.
func mailServer(t *testing.T, mode string, tc *tls.Config) (address string, taken chan letter) {
	t.Helper()
	taken = make(chan letter, 10)
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &postBox{c: c, secure: mode != "none", taken: taken}, nil
	}))
	s.ErrorLog = log.New(io.Discard, "", 0)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	switch mode {
	case "tls":
		ln = tls.NewListener(ln, tc)
	case "starttls":
		s.TLSConfig = tc
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return ln.Addr().String(), taken
}

func TestMail(t *testing.T) {
	t.Parallel()
	tc, root := identity(t)
	s := New(Options{Portal: "https://larder.example/"})
	for name, c := range map[string]struct {
		server string // how it speaks
		email  Email
		says   string // what of the error, "" for none
	}{
		"starttls":          {"starttls", Email{TLS: "starttls", User: "larder", Password: "s3cret-word", CA: root}, ""},
		"tls":               {"tls", Email{TLS: "tls", User: "larder", Password: "s3cret-word", CA: root}, ""},
		"none":              {"none", Email{TLS: "none"}, ""},
		"wrong password":    {"starttls", Email{TLS: "starttls", User: "larder", Password: "wr0ng-word", CA: root}, "535"},
		"server without":    {"none", Email{TLS: "starttls", CA: root}, "STARTTLS"},
		"unknown root":      {"starttls", Email{TLS: "starttls", User: "larder", Password: "s3cret-word"}, "certificate"},
		"nobody there":      {"none", Email{TLS: "none", To: []string{"nobody@school.example"}}, "no such user here"},
		"several receivers": {"none", Email{TLS: "none", To: []string{"a@school.example", "B <b@school.example>"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, taken := mailServer(t, c.server, tc)
			e := c.email
			e.Server, e.From = address, "Larder <larder@school.example>"
			if e.To == nil {
				e.To = []string{"admin@school.example"}
			}
			ch := &Channel{Name: "mail", Kind: "email", Email: &e}
			if err := ch.check(); err != nil {
				t.Fatal(err)
			}
			err := s.send(t.Context(), ch, &message{"11111111-2222-3333-4444-555555555555", now, events(25)})
			if c.says != "" {
				var u *Undelivered
				if !errors.As(err, &u) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("got %v, want an error with %q", err, c.says)
				}
				if strings.Contains(err.Error(), "word") {
					t.Errorf("the password is in %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			l := <-taken
			m, err := mail.ReadMessage(strings.NewReader(l.text))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(m.Body)
			if err != nil {
				t.Fatal(err)
			}
			if l.tls != (c.server != "none") || l.from != "larder@school.example" || len(l.to) != len(e.To) {
				t.Errorf("sent %+v", l)
			}
			if got := m.Header.Get("Subject"); got != "[Larder] 25 alerts, the first: The clock of <node_0> is off" {
				t.Errorf("the subject is %q", got)
			}
			for _, want := range []string{"What to do: Follow a time server.", "5 more are in the portal.", "https://larder.example/"} {
				if !strings.Contains(string(body), want) {
					t.Errorf("the body lacks %q:\n%s", want, body)
				}
			}
		})
	}
}

// A call is what a webhook was asked.
type call struct {
	head http.Header
	body []byte
}

// hook answers with status and keeps what it was sent.
func hook(t *testing.T, status int, answer string) (*httptest.Server, chan call, string) {
	t.Helper()
	calls := make(chan call, 10)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		calls <- call{r.Header, b}
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return s, calls, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	s := New(Options{Portal: "https://larder.example/", Version: "1.0"})
	t.Run("generic", func(t *testing.T) {
		t.Parallel()
		srv, calls, root := hook(t, 204, "")
		ch := &Channel{Name: "hook", Kind: "webhook", Webhook: &Webhook{URL: srv.URL + "/x?token=tok", Secret: "key", CA: root}}
		if err := errors.Join(ch.check(), s.send(t.Context(), ch, &message{"the-id", now, events(25)})); err != nil {
			t.Fatal(err)
		}
		c := <-calls
		var n struct {
			Version int
			ID      string
			Portal  string
			Events  []struct {
				Kind  string
				Alert struct {
					Rule, Severity, Title, FirstSeen string
					Nodes                            []struct{ NodeID, Name string }
				}
			}
		}
		if err := json.Unmarshal(c.body, &n); err != nil {
			t.Fatal(err)
		}
		if n.Version != 1 || n.ID != "the-id" || len(n.Events) != 25 || n.Events[0].Kind != "firing" || n.Events[0].Alert.Severity != "warning" || n.Events[0].Alert.Nodes[1].Name != `no"de]2` {
			t.Errorf("sent %s", c.body)
		}
		at, mac, ok := strings.Cut(strings.TrimPrefix(c.head.Get("Larder-Signature"), "t="), ",v1=")
		if !ok || mac != sign("key", at, c.body) || mac == sign("other", at, c.body) || c.head.Get("Idempotency-Key") != "the-id" {
			t.Errorf("the head is %v", c.head)
		}
	})
	t.Run("teams", func(t *testing.T) {
		t.Parallel()
		srv, calls, root := hook(t, 202, "")
		ch := &Channel{Name: "t", Kind: "teams", Webhook: &Webhook{URL: srv.URL + "/secret", CA: root}}
		if err := errors.Join(ch.check(), s.send(t.Context(), ch, &message{"the-id", now, events(2)})); err != nil {
			t.Fatal(err)
		}
		var m struct {
			Type        string
			Attachments []struct {
				ContentType string
				Content     struct {
					Type, Version string
					Body          []struct {
						Type, Text string
						Items      []struct{ Type, Text, Color string }
					}
					Actions []struct{ Type, URL string }
				}
			}
		}
		if err := json.Unmarshal((<-calls).body, &m); err != nil {
			t.Fatal(err)
		}
		card := m.Attachments[0].Content
		if m.Type != "message" || m.Attachments[0].ContentType != "application/vnd.microsoft.card.adaptive" || card.Type != "AdaptiveCard" || len(card.Body) != 3 || card.Body[1].Items[0].Color != "Warning" ||
			card.Body[1].Items[0].Text != `Warning: The clock of <node\_0> is off` || card.Actions[0].URL != "https://larder.example/" {
			t.Errorf("sent %+v", m)
		}
	})
	t.Run("slack", func(t *testing.T) {
		t.Parallel()
		srv, calls, root := hook(t, 200, "ok")
		ch := &Channel{Name: "s", Kind: "slack", Webhook: &Webhook{URL: srv.URL + "/secret", CA: root}}
		if err := errors.Join(ch.check(), s.send(t.Context(), ch, &message{"the-id", now, events(60)})); err != nil {
			t.Fatal(err)
		}
		var m struct {
			Text   string
			Blocks []struct {
				Type string
				Text struct{ Type, Text string }
			}
		}
		if err := json.Unmarshal((<-calls).body, &m); err != nil {
			t.Fatal(err)
		}
		if len(m.Blocks) != 22 || m.Blocks[0].Type != "section" || !strings.HasPrefix(m.Blocks[0].Text.Text, ":warning: *Warning: The clock of &lt;node_0&gt; is off*\n") || !strings.Contains(m.Text, "60 alerts") {
			t.Errorf("sent %+v", m)
		}
	})
	for name, c := range map[string]struct {
		status int
		answer string
		says   string
		final  bool
	}{
		"refused for good":     {404, "no_team /services/T0/B0/key", "answered 404 Not Found: no_team " + masked, true},
		"too many":             {429, "later", "answered 429", false},
		"an error over there":  {500, "", "answered 500", false},
		"redirected elsewhere": {302, "", "answered 302", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, calls, root := hook(t, c.status, c.answer)
			ch := &Channel{Name: "s", Kind: "slack", Webhook: &Webhook{URL: srv.URL + "/services/T0/B0/key", CA: root}}
			err := s.send(t.Context(), ch, &message{"the-id", now, events(1)})
			var u *Undelivered
			if !errors.As(err, &u) || !strings.Contains(u.Problem, c.says) || u.final != c.final || strings.Contains(u.Problem, "services") {
				t.Errorf("got %v, want one with %q", err, c.says)
			}
			if <-calls; len(calls) != 0 {
				t.Error("it was called twice")
			}
		})
	}
	t.Run("an unknown root, and nobody there", func(t *testing.T) {
		t.Parallel()
		srv, _, _ := hook(t, 200, "")
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		for _, u := range []string{srv.URL + "/services/key", "https://127.0.0.1:1/services/key"} {
			err := s.send(t.Context(), &Channel{Name: "s", Kind: "slack", Webhook: &Webhook{URL: u}}, &message{"the-id", now, events(1)})
			if err == nil || strings.Contains(err.Error(), "services") {
				t.Errorf("got %v", err)
			}
		}
	})
}

// form5424 is the grammar of RFC 5424, section 6, for what Larder sends.
var form5424 = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) larder - alert \[larder@32473((?: [a-z]+="(?:[^"\\\]]|\\["\\\]])*")+)\] \x{feff}([^\n]*)$`)

func TestSyslog(t *testing.T) {
	t.Parallel()
	tc, root := identity(t)
	s := New(Options{})
	facility := 4
	check := func(t *testing.T, text string) {
		t.Helper()
		m := form5424.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("not of RFC 5424: %q", text)
		}
		if m[1] != strconv.Itoa(4*8+4) || m[2] != "2026-11-26T12:00:00.000Z" || !strings.Contains(m[4], `nodes="node_1,no\"de\]2"`) || !strings.HasPrefix(m[5], "The clock of <node_") {
			t.Errorf("sent %q", text)
		}
	}
	t.Run("udp", func(t *testing.T) {
		t.Parallel()
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		ch := &Channel{Name: "s", Kind: "syslog", Syslog: &Syslog{Address: pc.LocalAddr().String(), Facility: &facility}}
		if err := errors.Join(ch.check(), s.send(t.Context(), ch, &message{"the-id", now, events(2)})); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if err := pc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			n, _, err := pc.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			check(t, string(b[:n]))
		}
	})
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if transport == "tls" {
				ln = tls.NewListener(ln, tc)
			}
			defer ln.Close()
			got := make(chan []string, 1)
			go func() {
				var all []string
				defer func() { got <- all }()
				c, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				r := bufio.NewReader(c)
				for { // RFC 6587, section 3.4.1
					head, err := r.ReadString(' ')
					if err != nil {
						return
					}
					n, err := strconv.Atoi(strings.TrimSpace(head))
					if err != nil {
						t.Error(err)
						return
					}
					b := make([]byte, n)
					if _, err := io.ReadFull(r, b); err != nil {
						t.Error(err)
						return
					}
					all = append(all, string(b))
				}
			}()
			ch := &Channel{Name: "s", Kind: "syslog", Syslog: &Syslog{Address: ln.Addr().String(), Transport: transport, Facility: &facility, CA: root}}
			if err := errors.Join(ch.check(), s.send(t.Context(), ch, &message{"the-id", now, events(2)})); err != nil {
				t.Fatal(err)
			}
			all := <-got
			if len(all) != 2 {
				t.Fatalf("got %q", all)
			}
			for _, text := range all {
				check(t, text)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		if err := s.send(t.Context(), &Channel{Name: "s", Kind: "syslog", Syslog: &Syslog{Address: "127.0.0.1:1", Transport: "tcp"}}, &message{"the-id", now, events(1)}); err == nil {
			t.Error("it said that it arrived")
		}
	})
}

// Each mistake in a channel names its field.
func TestChannelsNameTheirMistake(t *testing.T) {
	t.Parallel()
	good := map[string]Channel{
		"email":   {Name: "x", Kind: "email", Email: &Email{Server: "mail.example:587", From: "a@b.example", To: []string{"c@d.example"}}},
		"webhook": {Name: "x", Kind: "webhook", Webhook: &Webhook{URL: "https://hook.example/"}},
		"syslog":  {Name: "x", Kind: "syslog", Syslog: &Syslog{Address: "log.example:514"}},
	}
	for kind, c := range good {
		if err := c.check(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	n := 24
	for field, c := range map[string]Channel{
		"name":             {Kind: "email", Email: good["email"].Email},
		"kind":             {Name: "x", Kind: "pager"},
		"email":            {Name: "x", Kind: "email"},
		"syslog":           {Name: "x", Kind: "email", Email: good["email"].Email, Syslog: good["syslog"].Syslog},
		"rules[1]":         {Name: "x", Kind: "syslog", Syslog: good["syslog"].Syslog, Rules: []string{"clock", "clocks"}},
		"email.tls":        {Name: "x", Kind: "email", Email: &Email{Server: "m:25", TLS: "ssl", From: "a@b", To: []string{"c@d"}}},
		"email.password":   {Name: "x", Kind: "email", Email: &Email{Server: "m:25", TLS: "none", User: "u", Password: "p", From: "a@b", To: []string{"c@d"}}},
		"email.user":       {Name: "x", Kind: "email", Email: &Email{Server: "m:25", Password: "p", From: "a@b", To: []string{"c@d"}}},
		"email.from":       {Name: "x", Kind: "email", Email: &Email{Server: "m:25", From: "a b", To: []string{"c@d"}}},
		"email.to[1]":      {Name: "x", Kind: "email", Email: &Email{Server: "m:25", From: "a@b", To: []string{"c@d", "e"}}},
		"email.to":         {Name: "x", Kind: "email", Email: &Email{Server: "m:25", From: "a@b"}},
		"email.server":     {Name: "x", Kind: "email", Email: &Email{Server: "mail", From: "a@b", To: []string{"c@d"}}},
		"email.ca":         {Name: "x", Kind: "email", Email: &Email{Server: "m:25", From: "a@b", To: []string{"c@d"}, CA: "root"}},
		"webhook.url":      {Name: "x", Kind: "slack", Webhook: &Webhook{URL: "hooks.example/x"}},
		"webhook.secret":   {Name: "x", Kind: "slack", Webhook: &Webhook{URL: "https://hooks.example/x", Secret: "s"}},
		"syslog.address":   {Name: "x", Kind: "syslog", Syslog: &Syslog{Address: "log"}},
		"syslog.transport": {Name: "x", Kind: "syslog", Syslog: &Syslog{Address: "log:1", Transport: "relp"}},
		"syslog.facility":  {Name: "x", Kind: "syslog", Syslog: &Syslog{Address: "log:1", Facility: &n}},
	} {
		err := c.check()
		var bad *Invalid
		if !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("got %v, want a mistake in %s", err, field)
		}
	}
}

func TestChannelsAreToldWhatTheyWant(t *testing.T) {
	t.Parallel()
	e := Event{Began, Alert{Rule: "clock", Severity: Warning, Members: []Member{{Site: "north"}, {Site: "south"}}}}
	over := e
	over.Kind = Over
	for name, c := range map[string]struct {
		c    Channel
		want []bool // the beginning, the end
	}{
		"all":          {Channel{}, []bool{true, true}},
		"off":          {Channel{Disabled: true}, []bool{false, false}},
		"errors":       {Channel{Severity: Error}, []bool{false, false}},
		"warnings":     {Channel{Severity: Warning}, []bool{true, true}},
		"not its end":  {Channel{Quiet: true}, []bool{true, false}},
		"of clocks":    {Channel{Rules: []string{"clock"}}, []bool{true, true}},
		"of drives":    {Channel{Rules: []string{"drive"}}, []bool{false, false}},
		"in the south": {Channel{Sites: []string{"south"}}, []bool{true, true}},
		"in the west":  {Channel{Sites: []string{"west"}}, []bool{false, false}},
	} {
		if got := []bool{c.c.wants(&e), c.c.wants(&over)}; !slices.Equal(got, c.want) {
			t.Errorf("%s: told %v, want %v", name, got, c.want)
		}
	}
}
