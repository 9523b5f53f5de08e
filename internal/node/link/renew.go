package link

import (
	"context"
	"time"

	"larder/internal/fleet"
	"larder/internal/pki/enroll"
)

// renewCheck is how often the clock is looked at: a machine that slept must not
// wait for a timer that slept with it.
const renewCheck = time.Minute

// renew gets a new identity at two thirds of the life of each, and goes on
// trying after its end, until ctx ends.
func (l *Link) renew(ctx context.Context) {
	tick := time.NewTicker(renewCheck)
	defer tick.Stop()
	var notBefore time.Time // the next try, after failures
	for {
		id, _ := l.current()
		now := l.cfg.Now()
		leaf := id.leaf()
		if now.After(enroll.RenewAt(leaf.NotBefore, leaf.NotAfter, id.CacheNodeID)) && now.After(notBefore) {
			err := l.renewOnce(ctx)
			if ctx.Err() != nil {
				return
			}
			l.mu.Lock()
			if err == nil {
				l.renewFail = 0
			} else {
				l.renewFail++
			}
			fails := l.renewFail
			l.mu.Unlock()
			if err != nil {
				l.metrics.failures.WithLabelValues("renew").Inc()
				pause := min(time.Minute<<min(fails-1, 6), time.Hour)
				if final(err) {
					pause = time.Hour
				}
				notBefore = now.Add(l.spread(pause, fails))
				l.cfg.Log.ErrorContext(ctx, "identity not renewed, trying again", "not_after", leaf.NotAfter, "next", notBefore, "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// renewOnce gets an identity for a new key. It is written down before it is
// used; if its answer is lost, the one before still renews.
func (l *Link) renewOnce(ctx context.Context) error {
	_, c := l.current()
	key, err := newKey()
	if err != nil {
		return err
	}
	csr, err := request(key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var issued fleet.Identity
	if _, err := c.call(ctx, "POST", fleet.PathRenew, &fleet.Renewal{Protocol: l.cfg.Protocol, CSR: csr}, &issued); err != nil {
		return err
	}
	if err := l.change(func(now *identity) (*identity, error) { return now.with(key, &issued) }); err != nil {
		return err
	}
	next, _ := l.current()
	l.cfg.Log.InfoContext(ctx, "identity renewed", "not_after", next.leaf().NotAfter)
	l.Deliver() // the control plane then knows that the new one has arrived
	return nil
}
