package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"larder/internal/control/db"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

// totpPeriod is the life of a code (RFC 6238, section 5.2); codes of one period
// before and after are taken, for clocks that are off.
const totpPeriod = 30

// NewTOTP is a second factor that waits to be confirmed.
type NewTOTP struct {
	Secret string `json:"secret"` // secret
	URI    string `json:"uri"`    // secret; otpauth://, for a QR code
}

// StartTOTP makes a second factor for a person. It is asked for once it was
// confirmed.
func (s *Service) StartTOTP(ctx context.Context, user string) (*NewTOTP, error) {
	a, err := s.User(ctx, s.d, user)
	if err != nil {
		return nil, err
	}
	if a.TOTP {
		return nil, refuse(http.StatusConflict, "TOTPExists", "There is a second factor already; an owner can take it away.")
	}
	if a.Provider {
		return nil, refuse(http.StatusConflict, "NotLocal", "You sign in with the organisation's account: its provider asks for second factors.")
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Larder", AccountName: a.Name, Period: totpPeriod, SecretSize: 20})
	if err != nil {
		return nil, fmt.Errorf("making a second factor: %w", err)
	}
	sealed, err := s.o.Sealer.Seal([]byte(key.Secret()), totpContext(a.ID))
	if err != nil {
		return nil, err
	}
	if _, err := s.d.ExecContext(ctx, `UPDATE users SET totp = $1, totp_step = 0 WHERE id = $2 AND NOT totp_on`, sealed, a.ID); err != nil {
		return nil, err
	}
	return &NewTOTP{Secret: key.Secret(), URI: key.URL()}, nil
}

func totpContext(user string) []byte { return []byte("users.totp " + user) }

// ConfirmTOTP switches a second factor on with a code of it, and returns the
// recovery codes: each is good once, and they are shown only here.
func (s *Service) ConfirmTOTP(ctx context.Context, q db.Queryer, user, code string) ([]string, error) {
	a, err := s.User(ctx, q, user)
	if err != nil {
		return nil, err
	}
	step, ok, err := s.step(a, code)
	if err != nil {
		return nil, err
	}
	if !ok || a.TOTP {
		return nil, invalid("code", "is not one of the second factor that was begun; is the clock of the device right?")
	}
	var codes, hashes []string
	for range 10 {
		var raw [10]byte
		rand.Read(raw[:])
		c := strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
		codes = append(codes, c[:4]+"-"+c[4:8]+"-"+c[8:12]+"-"+c[12:16])
		hashes = append(hashes, recoveryHash(c))
	}
	list, err := json.Marshal(hashes)
	if err != nil {
		return nil, err
	}
	_, err = q.ExecContext(ctx, `UPDATE users SET totp_on = TRUE, totp_step = $1, recovery = $2 WHERE id = $3`, step, string(list), a.ID)
	return codes, err
}

func recoveryHash(code string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(code))))
	return hex.EncodeToString(sum[:])
}

// step returns the period that a code is of, if it is one of a's and was not
// taken before.
func (s *Service) step(a *Account, code string) (int64, bool, error) {
	if len(a.totp) == 0 {
		return 0, false, nil
	}
	secret, err := s.o.Sealer.Open(a.totp, totpContext(a.ID))
	if err != nil {
		return 0, false, fmt.Errorf("second factor of %s: %w", a.Name, err)
	}
	code = strings.ReplaceAll(strings.TrimSpace(code), " ", "")
	now := s.now().Unix() / totpPeriod
	for _, st := range []int64{now, now - 1, now + 1} {
		if st <= a.step {
			continue
		}
		want, err := totp.GenerateCodeCustom(string(secret), time.Unix(st*totpPeriod, 0), totp.ValidateOpts{Period: totpPeriod, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return 0, false, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			return st, true, nil
		}
	}
	return 0, false, nil
}

// useCode takes a code of the second factor, or a recovery code, once.
func (s *Service) useCode(ctx context.Context, a *Account, code string) (bool, error) {
	step, ok, err := s.step(a, code)
	if err != nil {
		return false, err
	}
	if ok {
		res, err := s.d.ExecContext(ctx, `UPDATE users SET totp_step = $1 WHERE id = $2 AND totp_step < $1`, step, a.ID)
		return changedOne(res, err)
	}
	h := recoveryHash(code)
	used := false
	err = s.d.Tx(ctx, func(tx *sql.Tx) error {
		used = false
		now, err := s.User(ctx, tx, a.ID)
		if err != nil {
			return err
		}
		i := slices.Index(now.recovery, h)
		if i < 0 {
			return nil
		}
		list, err := json.Marshal(slices.Delete(now.recovery, i, i+1))
		if err != nil {
			return err
		}
		used = true
		_, err = tx.ExecContext(ctx, `UPDATE users SET recovery = $1 WHERE id = $2`, string(list), a.ID)
		return err
	})
	return used, err
}

func changedOne(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
