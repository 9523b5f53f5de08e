package alert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"larder/internal/control/words"
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
		lines = append(lines, fmt.Sprintf("It lasted from %s to %s.", words.Moment(a.First), words.Moment(a.Last)))
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
	return append(lines, fmt.Sprintf("Rule %s, first seen %s.", a.Rule, words.Moment(a.First)))
}

// more says how many events are not spelt out, "" if all are.
func (m *message) more() string {
	if n := len(m.events) - most; n > 0 {
		return fmt.Sprintf("%d more are in the portal.", n)
	}
	return ""
}

func (m *message) shown() []Event { return m.events[:min(len(m.events), most)] }
