package enroll

import (
	"hash/fnv"
	"time"
)

// RenewAt is when a certificate should be renewed: at two thirds of its life,
// less a share of up to a thirtieth that seed decides, so that nodes which got
// theirs together do not come back together. The same seed gives the same time.
func RenewAt(notBefore, notAfter time.Time, seed string) time.Time {
	life := notAfter.Sub(notBefore)
	jitter := time.Duration(share(seed) * float64(life/30))
	return notBefore.Add(life*2/3 - jitter)
}

// Retry bounds of a life that is long; shorter lives have shorter ones.
const (
	firstRetry = time.Minute
	lastRetry  = 4 * time.Hour
)

// RetryAfter is the pause after so many failures in a row, the first being 1:
// a minute, twice as long each time, up to four hours, give or take a fifth.
// It never gives up, and it never waits for more than a tenth of the time that
// is left, so that a short life gets as many tries as a long one; expired
// certificates are tried for at least every hour. life is the certificate's
// whole life, left what remains of it; life is 0 where there is none yet. hint
// is how long the authority asked us to wait, 0 if it did not.
func RetryAfter(failures int, life, left, hint time.Duration, seed string) time.Duration {
	least, most := firstRetry, lastRetry
	if life > 0 {
		least = min(least, max(life/100, time.Second))
		if left <= 0 {
			most = time.Hour
		} else {
			most = min(most, left/10)
		}
	} else {
		most = time.Hour // clients are without HTTPS until it works
	}
	most = max(most, least)
	pause := least
	for range min(failures, 40) - 1 {
		if pause *= 2; pause >= most {
			pause = most
			break
		}
	}
	pause += time.Duration((share(seed) - 0.5) * 0.4 * float64(pause))
	return max(pause, hint)
}

// share maps text to a number in [0, 1), evenly.
func share(text string) float64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	x := h.Sum64()
	// FNV's high bits differ little between texts of the same beginning.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}
