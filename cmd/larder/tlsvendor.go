package main

import (
	"slices"
	"strings"
)

// vendorFlags are the parameters of Connected Cache's scripts, in lower case,
// with the flags that they are here (facts: its certificate scripts on Linux and
// Windows).
var vendorFlags = map[string]string{
	"algo":                      "algo",
	"keysizeorcurve":            "key-size-or-curve",
	"csrname":                   "csr-name",
	"subjectcommonname":         "subject-common-name",
	"subjectcountry":            "subject-country",
	"subjectstate":              "subject-state",
	"subjectorg":                "subject-org",
	"sandns":                    "san-dns",
	"sanip":                     "san-ip",
	"sanuri":                    "san-uri",
	"sanemail":                  "san-email",
	"sanrid":                    "san-rid",
	"sandirname":                "san-dir-name",
	"sanothername":              "san-other-name",
	"certname":                  "cert-name",
	"runtimeaccountname":        "run-time-account",
	"runtimeaccount":            "run-time-account",
	"mccruntimeaccount":         "run-time-account",
	"mcclocalaccountcredential": "local-account-credential",
}

// vendorArgs translates what existing runbooks write after "larder tls": one
// hyphen, any case. Other arguments stay as they are; what follows "--" too.
func vendorArgs(args []string) []string {
	at := slices.Index(args, "tls")
	if at < 0 || slices.Contains(args[:at], "--") {
		return args
	}
	out := slices.Clone(args)
	for i := at + 1; i < len(out); i++ {
		if out[i] == "--" {
			break
		}
		name, found := strings.CutPrefix(out[i], "-")
		if !found {
			continue
		}
		name = strings.TrimPrefix(name, "-") // the vendor takes --certName as well
		value := ""
		if eq := strings.IndexByte(name, '='); eq >= 0 {
			name, value = name[:eq], name[eq:]
		}
		if flag, ok := vendorFlags[strings.ToLower(name)]; ok {
			out[i] = "--" + flag + value
			if value == "" {
				i++ // its value may begin with a hyphen
			}
		}
	}
	return out
}
