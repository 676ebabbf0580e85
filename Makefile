# Everything a contributor runs. `make` alone lists the targets. Only Go is needed, and, for the race
# detector, a C compiler.

GO       ?= go
FUZZTIME ?= 10s
BENCH    ?= .
# For the benchmark of the binary, such as BENCHFLAGS='-rounds 9 -sessions 100'; -help lists them.
BENCHFLAGS ?=
# For isolation: how many requests to the handler, and how many connections of HTTP/1.1 and of HTTP/2.
CASES    ?= 100000
WIRE     ?= 10000
WIRE2    ?= $(WIRE)
# For the storm and the floods, such as STORMFLAGS='-duration 1m -seed 7' and FLOODFLAGS='-rounds 3 -tenants 0'.
STORMFLAGS ?=
FLOODFLAGS ?=
# Caddy's releases are built with these tags: they leave out the databases of its internal certificate authority.
TAGS     ?= nobadger,nomysql,nopgx
LINT      = $(GO) tool -modfile=tools/golangci/go.mod golangci-lint

# The race detector needs cgo and a supported platform; `go list` knows both without building anything.
# Evaluated where it is used, so that `make` alone runs no command.
RACE      = $(shell $(GO) list -race errors >/dev/null 2>&1 && echo -race)
RACE_NOTE = @test -n "$(RACE)" || echo "note: no C compiler (or no race detector for this platform): testing without -race"

.DEFAULT_GOAL := help
.PHONY: help build demo test integration lint fmt reference fuzz bench cover ci dashboard isolation licences notices sbom packaging storm floods

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The same commit in a clean clone, built with the same Go for the same system, gives the same bytes in any directory.
build: ## build Caddy with this plugin into bin/caddy
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -tags $(TAGS) -o bin/caddy ./cmd/caddy

demo: build ## build, then run the demo on loopback; no account needed
	bin/caddy demo

test: ## run the tests that need only Go, with the race detector where there is one
	$(RACE_NOTE)
	$(GO) test $(RACE) -shuffle=on -tags $(TAGS) ./...

integration: ## run the tests of the built binary (build tag integration; some need Chromium)
	$(RACE_NOTE)
	$(GO) test $(RACE) -count=1 -timeout 30m -v -tags integration,$(TAGS) ./integration/...

dashboard: ## check the Grafana dashboard against Grafana's schema
	cd tools/grafana && $(GO) test -count=1 ./...

isolation: ## attack tenant isolation with CASES random requests and WIRE connections, and print figures
	ISOLATION_CASES=$(CASES) ISOLATION_WIRE=$(WIRE) ISOLATION_WIRE2=$(WIRE2) $(GO) test -count=1 -timeout 24h -v -tags $(TAGS) ./caddytinybird/isolation

lint: ## run golangci-lint, built from source on first use (a few minutes)
	$(LINT) run ./...

fmt: ## format the code: gofumpt and gci
	$(LINT) fmt ./...

reference: ## write docs/reference.md anew, after a change to the comments of the config
	$(GO) run ./docs/internal/reference/generate

# `go test -list` prints a package's targets and then a line "ok <package>"; go fuzzes one target at a time.
fuzz: ## fuzz every target for FUZZTIME (10s)
	@set -e; \
	targets=$$($(GO) test -tags $(TAGS) -list '^Fuzz' ./...); \
	echo "$$targets" | awk '/^Fuzz/ { name[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, name[i]; n = 0 }' | \
	while read -r package name; do \
		echo "==> $$package $$name"; \
		$(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	done

bench: ## run the benchmarks of the code, then of the binary; BENCH=regexp picks some of the first
	$(GO) test -tags $(TAGS) -run '^$$' -bench '$(BENCH)' -benchmem ./...
	$(GO) run ./integration/bench $(BENCHFLAGS)

storm: ## ten minutes of mixed traffic through the binary while all around it fails in turn; each answer is checked
	$(GO) run ./integration/storm $(STORMFLAGS)

floods: ## flood the binary with what strangers can send, and print what that costs (some minutes; Linux)
	$(GO) run ./integration/floods $(FLOODFLAGS)

cover: ## measure what the tests cover; the report is coverage.html
	$(GO) test -tags $(TAGS) -coverpkg=./caddytinybird/...,./internal/... -coverprofile=coverage.out ./...
	$(GO) tool cover -html=coverage.out -o coverage.html
	@$(GO) tool cover -func=coverage.out | tail -n 1

licences: ## write docs/licences.md: the licences of all that is linked, each on the list of those that may be
	cd tools/licences && $(GO) run . write

notices: ## write bin/NOTICES.txt, which has to go along with a binary that is handed on
	mkdir -p bin
	cd tools/licences && $(GO) run . texts >../../bin/NOTICES.txt

sbom: build ## write bin/caddy.cdx.json, the list of materials (CycloneDX) of bin/caddy
	$(GO) tool -modfile=tools/sbom/go.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -output bin/caddy.cdx.json bin/caddy

# -count=1: go sees no change of a file outside of the module, and would say what it said before.
packaging: ## test the licences, Dockerfile, compose files, release config and workflows
	cd tools/licences && $(GO) test -count=1 . && $(GO) run . check
	cd tools/packaging && $(GO) test -count=1 .

ci: ## run everything that CI runs
	.ci/run
