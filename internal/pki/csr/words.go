package csr

import (
	"errors"
	"strings"

	"larder/internal/pki/keys"
	"larder/internal/pki/san"
)

// Words are a Request as a person gives it: by the flags of "larder tls csr",
// or in a settings file under the same words.
type Words struct {
	Algorithm      string `json:"algo" yaml:"algo"`
	KeySizeOrCurve string `json:"key_size_or_curve,omitempty" yaml:"key_size_or_curve,omitempty"`

	CommonName string `json:"common_name" yaml:"common_name"`
	Country    string `json:"country,omitempty" yaml:"country,omitempty"`
	State      string `json:"state,omitempty" yaml:"state,omitempty"`
	Org        string `json:"org,omitempty" yaml:"org,omitempty"`

	// Each entry may itself be a list; see san.Parse.
	SANDNS       []string `json:"san_dns,omitempty" yaml:"san_dns,omitempty"`
	SANIP        []string `json:"san_ip,omitempty" yaml:"san_ip,omitempty"`
	SANURI       []string `json:"san_uri,omitempty" yaml:"san_uri,omitempty"`
	SANEmail     []string `json:"san_email,omitempty" yaml:"san_email,omitempty"`
	SANRID       []string `json:"san_rid,omitempty" yaml:"san_rid,omitempty"`
	SANDirName   []string `json:"san_dir_name,omitempty" yaml:"san_dir_name,omitempty"`
	SANOtherName []string `json:"san_other_name,omitempty" yaml:"san_other_name,omitempty"`
}

// Request reads the words, and names all mistakes at once. The algorithm may be
// in any case; a size that is not given is the default.
func (w Words) Request() (Request, error) {
	names, err := san.Parse(w.texts())
	r := Request{
		Algorithm:    strings.ToUpper(strings.TrimSpace(w.Algorithm)),
		Size:         strings.ToLower(strings.TrimSpace(w.KeySizeOrCurve)),
		CommonName:   strings.TrimSpace(w.CommonName),
		Country:      strings.ToUpper(strings.TrimSpace(w.Country)),
		State:        strings.TrimSpace(w.State),
		Organization: strings.TrimSpace(w.Org),
		Names:        names,
	}
	if sizes := keys.Sizes(r.Algorithm); r.Size == "" && len(sizes) > 0 {
		r.Size = sizes[0]
	}
	if err != nil {
		r.Names = san.Names{DNS: []string{"given"}} // that there are names is not in doubt
	}
	if err := errors.Join(append(r.checkOwn(), err)...); err != nil {
		return Request{}, err
	}
	return r, nil
}

func (w Words) texts() san.Texts {
	return san.Texts{DNS: w.SANDNS, IP: w.SANIP, URI: w.SANURI, Email: w.SANEmail, RID: w.SANRID, DirName: w.SANDirName, OtherName: w.SANOtherName}
}

// Words are what Words.Request makes r of.
func (r Request) Words() Words {
	t := r.Names.Words()
	return Words{
		Algorithm: r.Algorithm, KeySizeOrCurve: r.Size,
		CommonName: r.CommonName, Country: r.Country, State: r.State, Org: r.Organization,
		SANDNS: t.DNS, SANIP: t.IP, SANURI: t.URI, SANEmail: t.Email, SANRID: t.RID, SANDirName: t.DirName, SANOtherName: t.OtherName,
	}
}
