// Package fleet holds the words that nodes and the control plane share: what a
// node is to be (Desired), what it reports (Delivery), how it enrols, and the
// number of the protocol with its diary.
//
// Both sides work one version apart, and nodes are upgraded last: fields are
// added, never reused or removed; what a side does not know it ignores. Names
// are camelCase in JSON, sizes and counts are bytes and numbers, times are
// RFC 3339 in UTC.
package fleet

// Protocol is the number of what this package describes. It only grows.
//
// Diary:
//
//   - 1: 2026-11-26: registration, renewal, desired state by long poll, deliveries of minutes
const Protocol = 1

// Oldest is the lowest protocol number the control plane still talks to.
const Oldest = 1

// The calls a node makes, all of them POST or GET of JSON over TLS. All but
// PathRegister need the node's identity as client certificate; PathRenew takes
// one that has expired, too.
const (
	PathRegister = "/api/larder/v1/fleet/register"
	PathRenew    = "/api/larder/v1/fleet/renew"
	PathDesired  = "/api/larder/v1/fleet/desired"
	PathReports  = "/api/larder/v1/fleet/reports"
)

// Registration proves a registration key, once, and asks for an identity.
type Registration struct {
	Protocol        int    `json:"protocol"`
	CustomerID      string `json:"customerId"`
	CacheNodeID     string `json:"cacheNodeId"`
	CustomerKey     string `json:"customerKey"`     // secret
	RegistrationKey string `json:"registrationKey"` // secret, used once
	// CSR is a PKCS#10 request in PEM for the key that the node made. What it
	// says of names is ignored: the control plane knows the node's.
	CSR    string `json:"csr"`
	System System `json:"system"`
}

// Renewal asks for a new certificate; the client certificate of the connection
// says for whom.
type Renewal struct {
	Protocol int    `json:"protocol"`
	CSR      string `json:"csr"` // PEM; a new key is welcome
}

// Identity answers Registration and Renewal.
type Identity struct {
	CacheNodeID string `json:"cacheNodeId"`
	// Certificate is the node's certificate, then the chain up to but without
	// the root, in PEM.
	Certificate string `json:"certificate"`
	// Roots are those the node is to trust the control plane by from now on, in
	// PEM: one, or two while one follows the other.
	Roots string `json:"roots"`
	// Line counts the enrolments of this node; a higher one ends the lower.
	Line int64 `json:"line"`
}

// System says what a node runs on.
type System struct {
	Hostname string `json:"hostname,omitempty"`
	OS       string `json:"os"`             // GOOS
	Arch     string `json:"arch"`           // GOARCH
	Edition  string `json:"edition"`        // "Debian GNU/Linux", "Windows Server 2022"; "" if not known
	Release  string `json:"release"`        // "12"
	Build    string `json:"build"`          // kernel or build number
	Version  string `json:"version"`        // Larder's
	Host     string `json:"host,omitempty"` // address clients most likely reach it at
}

// ServerName is what nodes ask for in TLS, whatever address they dial: the
// control plane answers it with a certificate of its own authority, so that its
// address may change, and the portal may show the organisation's certificate.
const ServerName = "control.larder.internal"
