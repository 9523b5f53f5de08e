# Every check of .ci/run is a target here, so that it runs the same at home.
# "make" alone lists them.

GO        ?= go
FUZZTIME  ?= 20s
TEST_ARGS ?=
VERSION   ?= 0.0.0

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# v1.9.0 needs a module that does not resolve everywhere; see .ci/govulncheck.
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0

# The commit is stamped into the binary where git can tell it, and left out
# where it cannot (an exported tree, a clone owned by somebody else).
BUILDVCS := $(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo auto || echo false)

.DEFAULT_GOAL := help
.PHONY: help run build test race vet cross-vet fmt-check tidy-check staticcheck govulncheck fuzz soak crowd scale packages bench bench-install bench-index bench-fleet bench-hitratio ci

help: ## what can be asked of this Makefile
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

run: build ## build, start the demonstration and say what to try
	./bin/larder up --demo

build: ## bin/larder
	$(GO) build -trimpath -buildvcs=$(BUILDVCS) -o bin/larder ./cmd/larder

test: ## all tests; installs what they need
	@.ci/install-test-deps
	@.ci/install-wine
	$(GO) test $(TEST_ARGS) ./...

race: ## the short tests under the race detector
	@.ci/install-test-deps
	$(GO) test -race -short ./...

vet: ## go vet
	$(GO) vet ./...

cross-vet: ## vet for the other systems we build for
	GOOS=windows GOARCH=amd64 $(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...

fmt-check: ## gofmt has nothing to change
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted by gofmt:"; echo "$$files"; exit 1; fi

tidy-check: ## go.mod and go.sum say what the sources import
	$(GO) mod tidy -diff

staticcheck: ## staticcheck, at its pinned version
	$(GO) run $(STATICCHECK) ./...

govulncheck: ## known vulnerabilities; a database out of reach is said, not failed
	@GO="$(GO)" .ci/govulncheck $(GOVULNCHECK)

fuzz: ## every fuzz target for FUZZTIME (20s)
	@GO="$(GO)" .ci/fuzz $(FUZZTIME)

soak: ## an hour of mixed load, faults, kills and restarts, every byte compared (LARDER_SOAK sets the time)
	LARDER_SOAK=$${LARDER_SOAK:-1h} $(GO) test -count=1 -timeout 24h -run TestSoak -v ./cmd/larder/crash

crowd: ## memory under 10,000 idle and 2,000 active connections, plain and TLS
	LARDER_CROWD=1 $(GO) test -count=1 -timeout 30m -run TestMemoryUnderACrowd -v ./cmd/larder/hostile

scale: ## 10,000,000 objects in a drive's index: start, look-ups, memory, evictions (10 minutes, 6 GB of disk)
	LARDER_SCALE=10000000 $(GO) test -count=1 -timeout 60m -run TestScale -v ./internal/node/store

packages: ## deb, rpm and zip of VERSION in dist/
	packaging/build $(VERSION) dist

bench: ## this node beside the other caches that are installed, as ratios
	$(GO) run ./bench/peers

bench-install: ## install those other caches (Debian, Ubuntu; as root)
	bench/install-peers.sh

bench-fleet: ## what 1,000 and 10,000 reporting nodes cost the control plane on PostgreSQL (15 minutes)
	$(GO) run ./bench/fleet -sizes 1000,10000 -minutes 3 -project 100000 -max-cores 1 -max-mb 512 -max-p99 100ms

bench-index: ## the engines the store's index could have
	$(GO) run ./bench/index

bench-hitratio: ## what policies of eviction would fetch for a made-up fleet (a minute)
	$(GO) run ./bench/hitratio

ci: ## everything that guards the tree
	@.ci/run
