package config

import (
	"fmt"
	"os"

	"larder/internal/strictyaml"
)

// Load reads the configuration in a file. An error about what is written there
// is a strictyaml.Mistakes with all of it. getenv is os.Getenv, or a test's.
func Load(name string, getenv func(string) string) (*Config, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(name, data, getenv)
}

// Parse reads a configuration that lies in memory; file is what messages call
// it.
func Parse(file string, data []byte, getenv func(string) string) (*Config, error) {
	c := Default(getenv)
	// Decode's error is in doc, too; what follows adds what only it can see.
	doc, _ := strictyaml.Decode(file, data, c)
	add := once(doc.Add)
	if variable, err := c.Upstream.Proxy.fromEnvironment(getenv); err != nil {
		add("upstream.proxy", "%s in the environment %s", variable, err)
	}
	for i := range c.Upstream.Limit.Schedule {
		at := fmt.Sprintf("upstream.limit.schedule[%d]", i)
		if !doc.Has(at + ".rate") {
			add(at+".rate", "must be set; 0 means no limit in this window")
		}
		for _, field := range []string{".from", ".to"} {
			if !doc.Has(at + field) {
				add(at+field, "must be set; expected %s", Clock(0).Expected())
			}
		}
	}
	c.complete()
	c.validate(add)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate checks a configuration that was not read from a file, and fills in
// the defaults that depend on other fields. Its error is a strictyaml.Mistakes.
func (c *Config) Validate() error {
	c.complete()
	var found strictyaml.Mistakes
	c.validate(once(func(field, format string, args ...any) {
		found = append(found, strictyaml.Mistake{Field: field, Problem: fmt.Sprintf(format, args...)})
	}))
	return found.Err()
}

// once keeps the first finding about each field: what is missing is not also
// too small.
func once(add addFunc) addFunc {
	seen := make(map[string]bool)
	return func(field, format string, args ...any) {
		if !seen[field] {
			seen[field] = true
			add(field, format, args...)
		}
	}
}
