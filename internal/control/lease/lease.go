// Package lease lets one of several replicas do what must be done once.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	"larder/internal/control/db"
)

// Life is how long a lease is good after its holder was last heard of. Work
// under a lease must tolerate a second worker for a moment: a machine that
// sleeps does not notice that its lease ran out until it wakes.
const Life = 30 * time.Second

// Leases are those of one replica.
type Leases struct {
	d      *db.DB
	log    *slog.Logger
	holder string
	life   time.Duration
}

// New makes the leases of a replica, under a random name.
func New(d *db.DB, log *slog.Logger) *Leases {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var raw [8]byte
	rand.Read(raw[:])
	return &Leases{d: d, log: log, holder: hex.EncodeToString(raw[:]), life: Life}
}

// While runs work for as long as this replica holds the lease, and waits for
// the lease otherwise, until ctx ends. work's context ends when the lease is
// lost; work that returns before is begun again after a pause.
func (l *Leases) While(ctx context.Context, name string, work func(ctx context.Context) error) error {
	for ctx.Err() == nil {
		until, err := l.take(ctx, name)
		if err != nil && ctx.Err() == nil {
			l.log.ErrorContext(ctx, "lease not taken, trying again", "lease", name, "err", err)
		}
		if until.IsZero() {
			pause(ctx, l.life/6)
			continue
		}
		l.hold(ctx, name, until, work)
		pause(ctx, l.life/30)
	}
	return nil
}

// hold runs work under a lease that was taken.
func (l *Leases) hold(ctx context.Context, name string, until time.Time, work func(ctx context.Context) error) {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- work(wctx) }()
	tick := time.NewTicker(l.life / 3)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				l.log.ErrorContext(ctx, "work under a lease failed, beginning again", "lease", name, "err", err)
			}
			l.release(ctx, name)
			return
		case <-tick.C:
			// A database that is away for a moment is no reason to stop: nobody
			// else can take the lease meanwhile.
			next, err := l.take(wctx, name)
			switch {
			case err == nil && !next.IsZero():
				until = next
			case err == nil, time.Now().After(until):
				l.log.WarnContext(ctx, "lease lost", "lease", name, "err", err)
				cancel()
				<-done
				return
			}
		case <-ctx.Done():
			<-done
			l.release(ctx, name)
			return
		}
	}
}

// take takes or prolongs a lease and returns until when it is good, the zero
// time if somebody else has it.
func (l *Leases) take(ctx context.Context, name string) (time.Time, error) {
	// The clock of the machine, not the database's: SQLite has no other, and
	// replicas whose clocks differ by less than Life exclude each other still.
	now := time.Now()
	until := now.Add(l.life)
	res, err := l.d.ExecContext(ctx, `INSERT INTO leases (name, holder, expires) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires WHERE leases.holder = excluded.holder OR leases.expires < $4`,
		name, l.holder, db.Micros(until), db.Micros(now))
	if err != nil {
		return time.Time{}, fmt.Errorf("taking lease %s: %w", name, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return time.Time{}, err
	}
	return until, nil
}

// release gives a lease back, so that the next one need not wait for its end.
func (l *Leases) release(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := l.d.ExecContext(ctx, `DELETE FROM leases WHERE name = $1 AND holder = $2`, name, l.holder); err != nil {
		l.log.WarnContext(ctx, "lease not given back, it ends by itself", "lease", name, "err", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Every runs work now and then every so often, until ctx ends. Its errors are
// for the log.
func Every(ctx context.Context, log *slog.Logger, what string, every time.Duration, work func(ctx context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			log.ErrorContext(ctx, "background work failed, trying again", "work", what, "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
