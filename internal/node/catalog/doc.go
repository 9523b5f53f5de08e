// Package catalog says what is asked for: whose content a host and path are,
// under which key it is kept, how long it stays fresh and where it comes from.
//
// It is pure: values in, values out. A [Catalog] never changes; a changed file
// makes a new one.
//
// # A publisher file
//
// One YAML file holds one publisher, or a list of them under "publishers:". Only
// name and hosts must be given (a default publisher needs no hosts):
//
//	name: intranet-packages
//	content_type: internal           # what charts and reports group by; default: the name
//	hosts: [packages.example.com, "*.cdn.example.com"]
//	paths: ["/pool/*"]               # default: all
//	schemes: [http, https]           # which a client may come with; default: both
//	freshness: immutable             # immutable | revalidate | standard; default: standard
//	# max_age: 60s                   # with freshness: revalidate; default: 0, ask every time
//	query: drop                      # drop | keep | {allow: [v]}; default: drop for immutable, else keep
//	rules:
//	  - {path: "*.json", freshness: revalidate, max_age: 60s, query: keep}
//	pin: ["/pool/probe.bin"]         # objects that are never evicted once they are there
//	origin: {scheme: https, host: files.example.com, address: "10.1.2.3:8443", ca: /etc/ssl/internal.pem}
//	alias: packages                  # default: the name
//	default: false
//	methods: any                     # any | [GET, HEAD, …]; default: any for standard, else [GET, HEAD]
//
// Files are read strictly. Unknown fields, wrong values and contradictions are
// all reported at once, and one mistake in one file means that nothing of the new
// catalogue is used.
//
// # Hosts
//
// A host is an exact name, or "*." and a name, which covers every name below it
// but not the name itself: list both when both are meant. Names are compared in
// lower case, in punycode, without a trailing dot. The longest match wins: an exact
// name before any "*.", and of those the longer. Nothing is matched in the middle,
// so download.example.com.evil.test is not download.example.com.
//
// All hosts of one publisher are taken to serve the same bytes under the same
// path: they share keys. Hosts with bytes of their own belong into publishers of
// their own. Publishers with the same alias share keys in the same way.
//
// An IP address is only served when hosts names it exactly; that also names it as
// the origin's address.
//
// The same host may be named by several publishers as long as their paths differ.
// For one host, publishers of own files come before built-in ones, whatever the
// paths; an own file that names a host of the built-in catalogue therefore takes
// over the paths it names. Among equals the more specific path wins. Two own
// publishers with the same host and the same path are a mistake. When no publisher of
// the longest matching host has the path, the request is not served: neither a
// shorter match nor a default publisher is tried.
//
// # Paths and rules
//
// In a pattern * stands for any bytes, "/" among them; everything else stands for
// itself, and a pattern must match from the beginning to the end. The pattern with
// more characters other than * wins, then the longer, then the earlier. Paths are
// compared in their normal form: percent-encoding is undone where it is not needed
// (%7E is ~) and its hex digits are upper case; %2F is not /. Paths with dot segments,
// backslashes or control characters are never served, encoded or not.
//
// The patterns of paths are compared with case, because they decide what may be asked
// for. Those of rules and pin are compared without, because a server that ignores
// case must not let a client step around a rule.
//
// # Freshness
//
// immutable: what is under this path never changes (a hash, GUID or version is in
// it), and directives of the origin to the contrary are ignored. revalidate: the
// origin is asked every time, or when the copy is older than max_age. standard:
// RFC 9111 to the letter. The default is standard, because the others are promises
// only the writer of the file can make.
//
// # Query
//
// The query always goes to the origin as it was received. What differs is the key:
// drop leaves it out, keep takes all of it, and {allow: [v]} takes the named
// parameters, in the order received. A query with a ";" in it is kept whole under
// allow, because servers disagree on what it separates. cacheHostOrigin is cut off
// before the catalogue sees the query.
//
// # Origin
//
// By default bytes come from the host asked for, over the scheme the client came
// with, resolved by DNS and from public addresses only. address names another
// host:port and allows private ones; host is the name then sent and checked in the
// certificate; ca replaces the system's roots. Keys do not hold the scheme: where
// clients come with both, scheme: https keeps what was fetched in the clear from
// those who asked for https.
//
// # Default publishers
//
// A publisher with default: true also takes requests for hosts that no publisher
// names, which makes the node a reverse proxy for its address. It needs
// origin.address: without one it would be an open proxy. It takes requests by Host
// only, never a host named by cacheHostOrigin or by a proxy request. The origin is
// always asked for one name: origin.host, else the first exact name in hosts, else the
// host in origin.address. So what is kept never depends on what the client
// called the node.
package catalog
