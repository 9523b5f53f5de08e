package alert

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

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
