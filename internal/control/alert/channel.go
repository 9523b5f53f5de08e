package alert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/db"
)

// Channel is a way to tell people.
type Channel struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
	// Kind is email, webhook, teams, slack or syslog.
	Kind     string   `json:"kind"`
	Disabled bool     `json:"disabled,omitempty"`
	Severity Severity `json:"severity,omitempty"` // the lowest that is told; info if left out
	Rules    []string `json:"rules,omitempty"`    // only these; all if empty
	Sites    []string `json:"sites,omitempty"`    // only alerts with a node there; all if empty
	// Quiet channels are not told when an alert is over.
	Quiet bool `json:"withoutResolved,omitempty"`

	Email   *Email   `json:"email,omitempty"`
	Webhook *Webhook `json:"webhook,omitempty"` // of webhook, teams and slack
	Syslog  *Syslog  `json:"syslog,omitempty"`

	// How it went, for those who read.
	Arrived time.Time `json:"lastArrived,omitzero"`
	Tried   time.Time `json:"lastTried,omitzero"`
	Error   string    `json:"lastError,omitempty"` // "" if the last message arrived
	Waiting int       `json:"waiting,omitempty"`   // messages on their way
}

// Email is a channel that sends mail by SMTP (RFC 5321).
type Email struct {
	Server string `json:"server"` // host:port
	// TLS is starttls (the default; mail is not sent without it), tls from the
	// first byte, or none.
	TLS      string   `json:"tls,omitempty"`
	User     string   `json:"user,omitempty"`
	Password string   `json:"password,omitempty"`
	From     string   `json:"from"`
	To       []string `json:"to"`
	CA       string   `json:"ca,omitempty"` // PEM of roots beside the system's
}

// Webhook is a channel that posts JSON.
type Webhook struct {
	URL string `json:"url"` // https, or http; that of Teams and Slack is a secret
	// Secret, of kind webhook, signs the body: Larder-Signature holds t=<Unix
	// time>,v1=<HMAC-SHA256 of "t.body" in hexadecimal>.
	Secret string `json:"secret,omitempty"`
	CA     string `json:"ca,omitempty"` // PEM of roots beside the system's
}

// Syslog is a channel that writes to a syslog server (RFC 5424).
type Syslog struct {
	Address string `json:"address"` // host:port
	// Transport is udp (RFC 5426), tcp (RFC 6587, octet counting) or tls (RFC
	// 5425). Default: udp.
	Transport string `json:"transport,omitempty"`
	Facility  *int   `json:"facility,omitempty"` // 0 to 23; 16, local0, if left out
	CA        string `json:"ca,omitempty"`       // PEM of roots beside the system's
}

// masked stands for a secret that is there. Sent back, it leaves it as it is.
const masked = "********"

// Masked is the channel without its secrets.
func (c Channel) Masked() Channel {
	if c.Email != nil {
		e := *c.Email
		if e.Password != "" {
			e.Password = masked
		}
		c.Email = &e
	}
	if c.Webhook != nil {
		w := *c.Webhook
		if w.Secret != "" {
			w.Secret = masked
		}
		w.URL = c.maskURL(w.URL)
		c.Webhook = &w
	}
	return c
}

// maskURL hides all but the host: those who know the URL of a Teams or Slack
// channel can write into it, and others put tokens into theirs.
func (c *Channel) maskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return masked
	}
	if (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.User == nil {
		return text
	}
	return u.Scheme + "://" + u.Host + "/" + masked
}

// unmask puts the secrets of before where c has what Masked made of them.
func (c *Channel) unmask(before *Channel) {
	m := before.Masked()
	if c.Email != nil && m.Email != nil && c.Email.Password == masked {
		c.Email.Password = before.Email.Password
	}
	if c.Webhook != nil && m.Webhook != nil {
		if c.Webhook.Secret == masked {
			c.Webhook.Secret = before.Webhook.Secret
		}
		if c.Webhook.URL == m.Webhook.URL {
			c.Webhook.URL = before.Webhook.URL
		}
	}
}

// check says what is wrong: the field, and what of it.
func (c *Channel) check() error {
	bad := func(field, format string, args ...any) error {
		return &Invalid{field, fmt.Sprintf(format, args...)}
	}
	if c.Name = strings.TrimSpace(c.Name); c.Name == "" || len(c.Name) > 100 {
		return bad("name", "found %d characters, expected 1 to 100", len(c.Name))
	}
	for i, name := range c.Rules {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == name }) {
			return bad(fmt.Sprintf("rules[%d]", i), "found %q, expected the name of a rule", name)
		}
	}
	if c.Severity == 0 {
		c.Severity = Info
	}
	given := map[string]bool{"email": c.Email != nil, "webhook": c.Webhook != nil, "syslog": c.Syslog != nil}
	wants := c.Kind
	switch c.Kind {
	case "teams", "slack":
		wants = "webhook"
	case "email", "webhook", "syslog":
	default:
		return bad("kind", "found %q, expected email, webhook, teams, slack or syslog", c.Kind)
	}
	for field, there := range given {
		switch {
		case field == wants && !there:
			return bad(field, "found nothing, expected the settings of a channel of kind %s", c.Kind)
		case field != wants && there:
			return bad(field, "a channel of kind %s has no such settings", c.Kind)
		}
	}
	hostPort := func(field, text string) error {
		host, port, err := net.SplitHostPort(text)
		if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
			return bad(field, "found %q, expected host:port", text)
		}
		return nil
	}
	roots := func(field, pem string) error {
		if pem != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
			return bad(field, "found no certificate, expected roots in PEM")
		}
		return nil
	}
	switch {
	case c.Email != nil:
		e := c.Email
		if e.TLS == "" {
			e.TLS = "starttls"
		}
		if !slices.Contains([]string{"starttls", "tls", "none"}, e.TLS) {
			return bad("email.tls", "found %q, expected starttls, tls or none", e.TLS)
		}
		if e.Password != "" && e.TLS == "none" {
			return bad("email.password", "a password is not sent without TLS; expected tls to be starttls or tls")
		}
		if (e.User == "") != (e.Password == "") {
			return bad("email.user", "expected user and password, or neither")
		}
		for i, to := range append([]string{e.From}, e.To...) {
			field := "email.from"
			if i > 0 {
				field = fmt.Sprintf("email.to[%d]", i-1)
			}
			if _, err := mail.ParseAddress(to); err != nil {
				return bad(field, "found %q, expected an address", to)
			}
		}
		if len(e.To) == 0 || len(e.To) > 50 {
			return bad("email.to", "found %d addresses, expected 1 to 50", len(e.To))
		}
		return errors.Join(hostPort("email.server", e.Server), roots("email.ca", e.CA))
	case c.Webhook != nil:
		u, err := url.Parse(c.Webhook.URL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Contains(c.Webhook.URL, masked) {
			return bad("webhook.url", "expected an http or https URL, whole")
		}
		if c.Webhook.Secret != "" && c.Kind != "webhook" {
			return bad("webhook.secret", "a channel of kind %s is not signed", c.Kind)
		}
		return roots("webhook.ca", c.Webhook.CA)
	}
	s := c.Syslog
	if s.Transport == "" {
		s.Transport = "udp"
	}
	if !slices.Contains([]string{"udp", "tcp", "tls"}, s.Transport) {
		return bad("syslog.transport", "found %q, expected udp, tcp or tls", s.Transport)
	}
	if s.Facility != nil && (*s.Facility < 0 || *s.Facility > 23) {
		return bad("syslog.facility", "found %d, expected 0 to 23", *s.Facility)
	}
	return errors.Join(hostPort("syslog.address", s.Address), roots("syslog.ca", s.CA))
}

// wants says whether a channel is told of an event.
func (c *Channel) wants(e *Event) bool {
	a := &e.Alert
	switch {
	case c.Disabled, a.Severity < c.Severity, e.Kind == Over && c.Quiet:
		return false
	case len(c.Rules) > 0 && !slices.Contains(c.Rules, a.Rule):
		return false
	}
	return len(c.Sites) == 0 || slices.ContainsFunc(a.Members, func(m Member) bool { return slices.Contains(c.Sites, m.Site) })
}

// clientTLS is how a channel's server is trusted: by the system's roots, and
// those given.
func clientTLS(host, pem string) *tls.Config {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if pem != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM([]byte(pem))
		c.RootCAs = pool
	}
	return c
}

// settings is what is sealed of a channel.
func (s *Service) seal(c *Channel) ([]byte, error) {
	kept := *c
	kept.ID, kept.Error, kept.Waiting, kept.Arrived, kept.Tried = "", "", 0, time.Time{}, time.Time{}
	text, err := json.Marshal(&kept)
	if err != nil {
		return nil, err
	}
	return s.o.Sealer.Seal(text, []byte("alert_channels "+c.ID))
}

// channels returns all, with their secrets.
func (s *Service) channels(ctx context.Context, q db.Queryer) ([]*Channel, error) {
	rows, err := q.QueryContext(ctx, `SELECT c.id, c.name, c.sealed, c.error, c.tried, c.arrived, (SELECT count(*) FROM alert_messages m WHERE m.channel = c.id) FROM alert_channels c ORDER BY c.name`)
	all, err := collect(rows, err, func(scan func(...any) error) (*Channel, error) {
		var id, name, problem string
		var sealed []byte
		var tried, arrived int64
		var waiting int
		if err := scan(&id, &name, &sealed, &problem, &tried, &arrived, &waiting); err != nil {
			return nil, err
		}
		text, err := s.o.Sealer.Open(sealed, []byte("alert_channels "+id))
		if err != nil {
			return nil, fmt.Errorf("channel %s: %w", name, err)
		}
		c := new(Channel)
		err = json.Unmarshal(text, c)
		c.ID, c.Name, c.Error, c.Tried, c.Arrived, c.Waiting = id, name, problem, db.Time(tried), db.Time(arrived), waiting
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading channels: %w", err)
	}
	return all, nil
}

// Channels returns all, without their secrets.
func (s *Service) Channels(ctx context.Context) ([]Channel, error) {
	all, err := s.channels(ctx, s.o.DB)
	list := []Channel{}
	for _, c := range all {
		list = append(list, c.Masked())
	}
	return list, err
}

func (s *Service) channel(ctx context.Context, q db.Queryer, id string) (*Channel, error) {
	all, err := s.channels(ctx, q)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(c *Channel) bool { return strings.EqualFold(c.ID, id) })
	if i < 0 {
		return nil, ErrNotFound
	}
	return all[i], nil
}

// Channel returns one without its secrets. Errors: ErrNotFound.
func (s *Service) Channel(ctx context.Context, id string) (Channel, error) {
	c, err := s.channel(ctx, s.o.DB, id)
	if err != nil {
		return Channel{}, err
	}
	return c.Masked(), nil
}

// PutChannel adds a channel, or replaces the one with this id; both are
// returned without their secrets. Secrets that are as Masked shows them stay as
// they were. Errors: *Invalid, ErrNotFound.
func (s *Service) PutChannel(ctx context.Context, tx *sql.Tx, id string, c Channel) (before *Channel, after Channel, err error) {
	if id != "" {
		old, err := s.channel(ctx, tx, id)
		if err != nil {
			return nil, after, err
		}
		c.unmask(old)
		m := old.Masked()
		before, c.ID = &m, old.ID
	} else {
		c.ID = uuid.NewString()
	}
	if err := c.check(); err != nil {
		return before, after, err
	}
	var other string
	err = tx.QueryRowContext(ctx, `SELECT id FROM alert_channels WHERE name = $1`, c.Name).Scan(&other)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return before, after, err
	}
	if err == nil && other != c.ID {
		return before, after, &Invalid{"name", fmt.Sprintf("another channel has the name %q", c.Name)}
	}
	sealed, err := s.seal(&c)
	if err != nil {
		return before, after, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO alert_channels (id, name, sealed) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET name = excluded.name, sealed = excluded.sealed`, c.ID, c.Name, sealed)
	return before, c.Masked(), err
}

// RemoveChannel removes one, with what is on its way to it. Errors: ErrNotFound.
func (s *Service) RemoveChannel(ctx context.Context, tx *sql.Tx, id string) (Channel, error) {
	c, err := s.channel(ctx, tx, id)
	if err != nil {
		return Channel{}, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM alert_channels WHERE id = $1`, c.ID)
	return c.Masked(), err
}

// TestChannel sends a message that says that it is a test, now, and returns why
// it did not arrive. Errors: ErrNotFound, *Undelivered.
func (s *Service) TestChannel(ctx context.Context, id, who string) error {
	c, err := s.channel(ctx, s.o.DB, id)
	if err != nil {
		return err
	}
	now := s.o.Now()
	a := Alert{ID: uuid.NewString(), Rule: "test", State: Firing, Severity: Info, Title: "This is a test of the channel " + c.Name, Reason: who + " asked for it.", Fix: "Nothing is to be done.", Members: []Member{}, First: now, Last: now, Fired: now}
	err = s.send(ctx, c, &message{id: uuid.NewString(), at: now, events: []Event{{Test, a}}})
	if nerr := s.noteChannel(ctx, c.ID, now, err); nerr != nil {
		return nerr
	}
	return err
}

// noteChannel writes down how a message went.
func (s *Service) noteChannel(ctx context.Context, id string, now time.Time, err error) error {
	if err == nil {
		_, err = s.o.DB.ExecContext(ctx, `UPDATE alert_channels SET error = '', tried = $1, arrived = $1 WHERE id = $2`, db.Micros(now), id)
		return err
	}
	_, err = s.o.DB.ExecContext(ctx, `UPDATE alert_channels SET error = $1, tried = $2 WHERE id = $3`, err.Error(), db.Micros(now), id)
	return err
}
