package alert

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"
)

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
