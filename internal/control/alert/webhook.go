package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

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
