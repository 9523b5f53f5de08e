package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// ErrNoRenewalInfo is RenewalInfo's for a CA that does not say when to renew.
var ErrNoRenewalInfo = errors.New("the CA does not say when to renew")

// RenewalInfo asks the CA when it would like leaf to be renewed (ARI, RFC
// 9773, section 4): at a random time between start and end, which may lie in
// the past if the certificate is about to be revoked. explanation is a URL for
// people, or "". It is to be asked again at retryAfter, if that is not zero.
func (s *Signer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (start, end time.Time, explanation string, retryAfter time.Time, err error) {
	w := &wire{next: s.transport}
	v := &visit{s: s, wire: w, client: s.newClient(w)}
	info, err := v.client.GetRenewalInfo(ctx, leaf)
	if errors.Is(err, acme.ErrUnsupported) {
		return start, end, "", retryAfter, ErrNoRenewalInfo
	}
	if err != nil {
		return start, end, "", retryAfter, v.explain(ctx, "asking when to renew", err)
	}
	if info.RetryAfter != nil {
		retryAfter = *info.RetryAfter
	}
	return info.SuggestedWindow.Start, info.SuggestedWindow.End, clean(info.ExplanationURL), retryAfter, nil
}
