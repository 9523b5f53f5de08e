package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wneessen/go-mail"
)

// message is what one channel is told at once.
type message struct {
	id     string // GUID, the same when it is tried again
	at     time.Time
	events []Event
}

// Undelivered says why a message did not arrive, without the channel's secrets.
type Undelivered struct {
	Channel, Problem string
	final            bool // trying again is of no use
}

func (e *Undelivered) Error() string { return e.Problem }

// tell is how long a channel may take for one message.
const tell = 30 * time.Second

// send tells a channel. Errors: *Undelivered.
func (s *Service) send(ctx context.Context, c *Channel, m *message) error {
	ctx, cancel := context.WithTimeout(ctx, tell)
	defer cancel()
	var err error
	switch c.Kind {
	case "email":
		err = s.mail(ctx, c.Email, m)
	case "webhook", "teams", "slack":
		err = s.post(ctx, c, m)
	case "syslog":
		err = s.syslog(ctx, c.Syslog, m)
	}
	if err == nil {
		return nil
	}
	var u *Undelivered
	if !errors.As(err, &u) {
		u = &Undelivered{Problem: err.Error()}
	}
	u.Channel = c.Name
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		u.Problem = fmt.Sprintf("no answer within %s: %s", tell, u.Problem)
	}
	return u
}

// most is how many events a message spells out.
const most = 20

// subject is a message in one line.
func (m *message) subject() string {
	if len(m.events) == 1 {
		e := &m.events[0]
		return fmt.Sprintf("%s: %s", e.word(), e.Alert.Title)
	}
	return fmt.Sprintf("%d alerts, the first: %s", len(m.events), m.events[0].Alert.Title)
}

// word says what an event is in a word or two.
func (e *Event) word() string {
	switch e.Kind {
	case Over:
		return "Over"
	case Test:
		return "Test"
	case Worse:
		return "Worse, " + e.Alert.Severity.String()
	}
	return upper(e.Alert.Severity.String())
}

// lines are an event for people to read, its title first.
func (e *Event) lines() []string {
	a := &e.Alert
	lines := []string{fmt.Sprintf("%s: %s", e.word(), a.Title), a.Reason}
	if e.Kind == Over {
		lines = append(lines, fmt.Sprintf("It lasted from %s to %s.", timeText(a.First), timeText(a.Last)))
	} else if a.Fix != "" {
		lines = append(lines, "What to do: "+a.Fix)
	}
	if n := len(a.Members); n > 1 {
		names := []string{}
		for _, x := range a.Members[:min(n, 20)] {
			names = append(names, x.Name)
		}
		text := "Nodes: " + strings.Join(names, ", ")
		if n > 20 {
			text += fmt.Sprintf(" and %d more", n-20)
		}
		lines = append(lines, text)
	}
	return append(lines, fmt.Sprintf("Rule %s, first seen %s.", a.Rule, timeText(a.First)))
}

// more says how many events are not spelt out, "" if all are.
func (m *message) more() string {
	if n := len(m.events) - most; n > 0 {
		return fmt.Sprintf("%d more are in the portal.", n)
	}
	return ""
}

func (m *message) shown() []Event { return m.events[:min(len(m.events), most)] }

func (s *Service) mail(ctx context.Context, e *Email, m *message) error {
	host, port, err := net.SplitHostPort(e.Server)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	o := []mail.Option{mail.WithPort(n), mail.WithTLSConfig(clientTLS(host, e.CA)), mail.WithTimeout(tell), mail.WithHELO(name)}
	switch e.TLS {
	case "tls":
		o = append(o, mail.WithSSL())
	case "none":
		o = append(o, mail.WithTLSPolicy(mail.NoTLS))
	default:
		o = append(o, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if e.User != "" {
		o = append(o, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(e.User), mail.WithPassword(e.Password))
	}
	client, err := mail.NewClient(host, o...)
	if err != nil {
		return err
	}
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(e.From), msg.To(e.To...)); err != nil {
		return err
	}
	msg.Subject("[Larder] " + m.subject())
	msg.SetDateWithValue(m.at)
	msg.SetMessageIDWithValue(m.id + "@larder")
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	var b strings.Builder
	for _, ev := range m.shown() {
		b.WriteString(strings.Join(ev.lines(), "\n") + "\n\n")
	}
	for _, line := range []string{m.more(), s.o.Portal} {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	msg.SetBodyString(mail.TypeTextPlain, b.String())
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		return &Undelivered{Problem: fmt.Sprintf("the mail server %s: %s", e.Server, strings.ReplaceAll(err.Error(), orNever(e.Password), masked))}
	}
	return nil
}

func orNever(s string) string {
	if s == "" {
		return "\x00"
	}
	return s
}

// notice is the body of a generic webhook.
type notice struct {
	Version int       `json:"version"` // 1
	ID      string    `json:"id"`
	Sent    time.Time `json:"sent"`
	Portal  string    `json:"portal,omitempty"`
	Events  []Event   `json:"events"`
}

func (s *Service) post(ctx context.Context, c *Channel, m *message) error {
	var body any
	switch c.Kind {
	case "teams":
		body = s.card(m)
	case "slack":
		body = s.blocks(m)
	default:
		body = notice{1, m.id, m.at, s.o.Portal, m.events}
	}
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	u, err := url.Parse(c.Webhook.URL)
	if err != nil {
		return errors.New("the URL is none")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Webhook.URL, bytes.NewReader(b))
	if err != nil {
		return errors.New("the URL is none")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "larder/"+s.o.Version)
	req.Header.Set("Idempotency-Key", m.id)
	if c.Webhook.Secret != "" {
		at := strconv.FormatInt(m.at.Unix(), 10)
		req.Header.Set("Larder-Signature", "t="+at+",v1="+sign(c.Webhook.Secret, at, b))
	}
	client := &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: clientTLS("", c.Webhook.CA), DisableKeepAlives: true, ForceAttemptHTTP2: true},
		// What is posted somewhere else is not what was asked for, and might carry
		// the alerts out of the house.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // its text has the URL, which may be a secret
			err = ue.Err
		}
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what of it there is
	// It may repeat what it was sent.
	shown := strings.TrimSpace(strings.ToValidUTF8(string(text), ""))
	for _, secret := range []string{c.Webhook.Secret, c.Webhook.URL, u.RequestURI()} {
		if len(secret) > 1 {
			shown = strings.ReplaceAll(shown, secret, masked)
		}
	}
	final := resp.StatusCode/100 == 4 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusRequestTimeout
	return &Undelivered{Problem: fmt.Sprintf("%s answered %s: %s", u.Host, resp.Status, shown), final: final}
}

func sign(secret, at string, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(at + "."))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

type object = map[string]any

// card is a message as Teams' workflows take it: an adaptive card.
func (s *Service) card(m *message) object {
	items := []any{object{"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": true, "text": escapeMarkdown(m.subject())}}
	for _, e := range m.shown() {
		colour := map[Severity]string{Info: "Accent", Warning: "Warning", Error: "Attention"}[e.Alert.Severity]
		if e.Kind == Over {
			colour = "Good"
		}
		lines := e.lines()
		block := []any{object{"type": "TextBlock", "weight": "Bolder", "wrap": true, "color": colour, "text": escapeMarkdown(lines[0])}}
		for _, l := range lines[1:] {
			block = append(block, object{"type": "TextBlock", "wrap": true, "spacing": "Small", "text": escapeMarkdown(l)})
		}
		items = append(items, object{"type": "Container", "separator": true, "items": block})
	}
	if more := m.more(); more != "" {
		items = append(items, object{"type": "TextBlock", "wrap": true, "text": more})
	}
	card := object{"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "msteams": object{"width": "Full"}, "body": items}
	if s.o.Portal != "" {
		card["actions"] = []any{object{"type": "Action.OpenUrl", "title": "Open Larder", "url": s.o.Portal}}
	}
	return object{"type": "message", "attachments": []any{object{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}}}
}

// escapeMarkdown keeps names that look like markup from being markup.
func escapeMarkdown(s string) string {
	return strings.NewReplacer("\\", "\\\\", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "`", "\\`", "~", "\\~").Replace(s)
}

// blocks is a message as Slack's incoming webhooks take it.
func (s *Service) blocks(m *message) object {
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	var blocks []any
	section := func(text string) {
		for len(text) > 2900 { // Slack's limit is 3000 characters
			cut := 2900
			for !utf8.RuneStart(text[cut]) {
				cut--
			}
			text = text[:cut]
		}
		blocks = append(blocks, object{"type": "section", "text": object{"type": "mrkdwn", "text": text}})
	}
	for _, e := range m.shown() {
		icon := map[Severity]string{Info: ":information_source:", Warning: ":warning:", Error: ":red_circle:"}[e.Alert.Severity]
		if e.Kind == Over {
			icon = ":white_check_mark:"
		}
		lines := e.lines()
		section(icon + " *" + escape.Replace(lines[0]) + "*\n" + escape.Replace(strings.Join(lines[1:], "\n")))
	}
	if more := m.more(); more != "" {
		section(more)
	}
	if s.o.Portal != "" {
		section("<" + s.o.Portal + "|Open Larder>")
	}
	return object{"text": escape.Replace("Larder, " + m.subject()), "blocks": blocks}
}

func (s *Service) syslog(ctx context.Context, l *Syslog, m *message) error {
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return err
	}
	var conn net.Conn
	var dialer net.Dialer
	switch l.Transport {
	case "tls":
		conn, err = (&tls.Dialer{Config: clientTLS(host, l.CA)}).DialContext(ctx, "tcp", l.Address)
	case "tcp":
		conn, err = dialer.DialContext(ctx, "tcp", l.Address)
	default:
		conn, err = dialer.DialContext(ctx, "udp", l.Address)
	}
	if err != nil {
		return fmt.Errorf("the syslog server %s: %w", l.Address, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	facility := 16
	if l.Facility != nil {
		facility = *l.Facility
	}
	for i := range m.events {
		text := m.events[i].syslog(facility, m.at, name)
		if l.Transport != "udp" && l.Transport != "" {
			text = strconv.Itoa(len(text)) + " " + text
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			return fmt.Errorf("the syslog server %s: %w", l.Address, err)
		}
	}
	// A server that closed meanwhile took none of it; TCP says so only when it is
	// asked.
	if l.Transport == "tcp" || l.Transport == "tls" {
		if t, ok := conn.(interface{ CloseWrite() error }); ok {
			if err := t.CloseWrite(); err != nil {
				return fmt.Errorf("the syslog server %s: %w", l.Address, err)
			}
		}
	}
	return nil
}

// syslog is an event as RFC 5424 writes one. 32473 is the enterprise number for
// examples (RFC 5612): Larder has none of its own.
func (e *Event) syslog(facility int, at time.Time, host string) string {
	severity := map[Severity]int{Info: 6, Warning: 4, Error: 3}[e.Alert.Severity]
	if e.Kind == Over || e.Kind == Test {
		severity = 5
	}
	a := &e.Alert
	var nodes []string
	for _, m := range a.Members[:min(len(a.Members), 20)] {
		nodes = append(nodes, m.Name)
	}
	var sd strings.Builder
	for _, p := range [][2]string{{"event", string(e.Kind)}, {"id", a.ID}, {"rule", a.Rule}, {"severity", a.Severity.String()}, {"nodes", strings.Join(nodes, ",")}, {"since", a.First.UTC().Format(time.RFC3339)}} {
		sd.WriteString(" " + p[0] + `="` + sdValue.Replace(p[1]) + `"`)
	}
	oneLine := strings.NewReplacer("\r", " ", "\n", " ").Replace(a.Title + ". " + a.Reason)
	return fmt.Sprintf("<%d>1 %s %s larder - alert [larder@32473%s] \ufeff%s", facility*8+severity, at.UTC().Format("2006-01-02T15:04:05.000Z"), printable(host, 255), sd.String(), oneLine)
}

// sdValue escapes what RFC 5424, section 6.3.3, wants escaped.
var sdValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`, "\r", " ", "\n", " ")

// printable is a header field of syslog: printable ASCII, or "-" for none.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < 33 || r > 126 {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
