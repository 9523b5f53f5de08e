// Package config reads the configuration file of a node, strictly, and names
// every mistake in it at once.
package config

import (
	"log/slog"
	"path/filepath"
	"time"

	"larder/internal/strictyaml"
)

// Config is the configuration of one node. Only drives must be given;
// everything else works when absent. What is here needs a restart to change,
// except the catalogue's files and the files below tls.dir, which are watched.
//
// Paths are absolute: a service has no working directory to rely on. Sizes
// are written as 500GB or 10GiB, rates as 200Mbit/s or 25MB/s, spans as 10s.
type Config struct {
	Listen   Listen   `yaml:"listen"`
	Drives   []Drive  `yaml:"drives"`
	Catalog  Catalog  `yaml:"catalog"`
	Upstream Upstream `yaml:"upstream"`
	TLS      TLS      `yaml:"tls"`
	Control  Control  `yaml:"control"`
	Log      Log      `yaml:"log"`

	// State is the directory for what the node remembers about itself: its id
	// and addresses.json, which says where it listens while it runs. Default:
	// /var/lib/larder, on Windows %ProgramData%\Larder.
	State string `yaml:"state"`

	// Reserve is how much really free disk the store leaves on each drive,
	// even when others fill it. Default (0): 1 GiB or 2 % of the file system,
	// whichever is less.
	Reserve strictyaml.Bytes `yaml:"reserve"`

	// ScrubRate is how fast cold data is read again in the background to find
	// what rotted, over all drives. 0: never. Default: 2MB/s, some 170 GB a day.
	ScrubRate strictyaml.Rate `yaml:"scrub_rate"`
}

// Listen says where the node can be reached, as host:port. An empty host
// means all addresses of the machine; port 0 lets the system choose, and
// addresses.json in the state directory then says which it was.
type Listen struct {
	// HTTP are the listeners for content. Default: [":80"]; [] for none.
	HTTP []string `yaml:"http"`

	// HTTPS are the listeners for content over TLS. They open once there is a
	// certificate in tls.dir. Default: [":443"]; [] for none.
	HTTPS []string `yaml:"https"`

	// Admin serves /summary, /metrics, /healthz, /readyz and the calls behind
	// "larder node". Whoever reaches it may purge content, so it is on
	// loopback by default: "127.0.0.1:5001".
	Admin string `yaml:"admin"`

	// Connections is how many connections of clients there may be. 0, the
	// default: three eighths of the files that the process may open.
	Connections int `yaml:"connections"`

	// ConnectionsPerAddress is how many of them one address may have (of IPv6
	// one network of 64 bits). Raise it where many clients come through one
	// address. Default 4096.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
}

// Drive is a directory with a budget where objects lie.
type Drive struct {
	// Path is the directory. It is made if its parent exists.
	Path string `yaml:"path"`

	// Size is how much disk the objects may take, in bytes on disk. It has no
	// default: a cache that guesses fills somebody's disk.
	Size strictyaml.Bytes `yaml:"size"`
}

// Catalog says which publishers are served.
type Catalog struct {
	// Builtin names the built-in publishers to serve. Default (nil): all; []
	// for none.
	Builtin []string `yaml:"builtin"`

	// Dirs are directories with publisher files of one's own.
	Dirs []string `yaml:"dirs"`
}

// Upstream says how content is fetched.
type Upstream struct {
	// Proxy is the HTTP proxy that origins are reached through, such as
	// http://user:password@proxy.example:3128, or "none" to use no proxy
	// whatever the environment says. Default: the environment's HTTPS_PROXY.
	Proxy Proxy `yaml:"proxy,omitempty"`

	// ProxyCA is a PEM file with the root certificates of a proxy that opens
	// TLS; origins behind it are trusted by them, too. Default: none.
	ProxyCA string `yaml:"proxy_ca"`

	// Limit bounds what the node fetches. Default: no limit.
	Limit Limit `yaml:"limit"`

	// ConnectTimeout is how long a connection to an origin may take, TCP and
	// TLS together. Default 3s.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`

	// SilenceTimeout is how long an origin may be silent before its answer
	// begins. Thin uplinks are slow without being dead: raise it there.
	// Default 10s.
	SilenceTimeout time.Duration `yaml:"silence_timeout"`

	// ConnectionsPerOrigin is how many connections to one origin may be open
	// at once. Default 64.
	ConnectionsPerOrigin int `yaml:"connections_per_origin"`
}

// Limit is the most the node fetches from upstream, all origins together.
type Limit struct {
	// Rate holds when no window of the schedule does. 0: no limit.
	Rate strictyaml.Rate `yaml:"rate"`

	// Schedule are windows of the week, in the machine's local time, that
	// must not overlap.
	Schedule []Window `yaml:"schedule"`
}

// TLS says where the serving certificate is kept, and what it must be.
type TLS struct {
	// Dir holds certs/, keys/ and active.yaml, which names the pair in use.
	// Default: tls in the state directory.
	Dir string `yaml:"dir"`

	// ClientNames are the host names and addresses that clients are told to
	// use, as in DOCacheHost. A certificate that covers none of them is
	// refused, one that lacks some is warned about. Default: not known, so
	// names are compared with the machine's own and only warned about.
	ClientNames []string `yaml:"client_names"`

	// Roots is a PEM file with the organisation's root certificates, which
	// imported certificates may chain to besides the system's. Default: none.
	Roots string `yaml:"roots"`

	// OnRevoked is what happens when the certificate in use was revoked:
	// "previous" serves with the one before it if that is still good and else
	// switches HTTPS off, "off" switches it off, "keep" only raises the alert.
	// Default: previous.
	OnRevoked string `yaml:"on_revoked"`
}

// Control names the control plane.
type Control struct {
	// URL is its https address, as deploy writes it down for people to read. Which
	// control plane a node belongs to is in its identity, in the state directory.
	URL string `yaml:"url"`
}

// Log says what is written down.
type Log struct {
	// Level is the least that is logged: debug, info, warn or error. Default
	// info.
	Level Level `yaml:"level"`

	// Access is the file of the access log, one JSON object per request.
	// Default: none.
	Access string `yaml:"access"`

	// AccessMaxSize is how large that file grows before it is put aside.
	// Default 100MB; 0: never, something else rotates it and sends SIGHUP.
	AccessMaxSize strictyaml.Bytes `yaml:"access_max_size"`

	// AccessKeep is how many files that were put aside are kept. Default 5.
	AccessKeep int `yaml:"access_keep"`
}

// Default returns the configuration of a node of which nothing was said. It
// lacks drives, so it is not valid. getenv is os.Getenv, or a test's.
func Default(getenv func(string) string) *Config {
	return &Config{
		Listen: Listen{HTTP: []string{":80"}, HTTPS: []string{":443"}, Admin: "127.0.0.1:5001", ConnectionsPerAddress: 4096},
		Upstream: Upstream{
			ConnectTimeout:       3 * time.Second,
			SilenceTimeout:       10 * time.Second,
			ConnectionsPerOrigin: 64,
		},
		TLS:       TLS{OnRevoked: "previous"},
		Log:       Log{Level: Level(slog.LevelInfo), AccessMaxSize: 100e6, AccessKeep: 5},
		State:     defaultState(getenv),
		ScrubRate: 2e6,
	}
}

// complete fills in defaults that depend on other fields.
func (c *Config) complete() {
	if c.TLS.Dir == "" && c.State != "" {
		c.TLS.Dir = c.tlsDir()
	}
}

func (c *Config) tlsDir() string { return filepath.Join(c.State, "tls") }
