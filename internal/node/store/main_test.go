package store

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		hammer(dir)
		return
	}
	if dir := os.Getenv(secondEnv); dir != "" {
		second(dir)
		return
	}
	// One check of the model is some hundred operations on real files.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}
