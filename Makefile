# make test    what a user runs: needs Go alone, says what it skipped
# make check   format, lint, vet, tests with the race detector
# make e2e     whole-program tests against a real Kafka (Java 17, Maven)
# make torture crash states, damages and fuzzing of the log, 10 minutes (Linux, root, /dev/fuse)
# make bench   the figures of the README
# make bench-log   the figures of the log: append, read, open, retention, verify (10 GB of disk)

GO       ?= go
TOOLS    := $(CURDIR)/.tools
GOFUMPT  := $(TOOLS)/gofumpt
LINT     := $(TOOLS)/golangci-lint

.PHONY: build test check fmt e2e soak torture torture-quick bench bench-log fuzz corpus tools clean

build:
	CGO_ENABLED=0 $(GO) build -o forebay ./cmd/forebay

test:
	$(GO) test ./...
	@echo "skipped: the program on a real Kafka (make e2e: Java 17, Maven) and the figures (make bench)"

check: tools
	@unformatted=$$($(GOFUMPT) -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(LINT) run ./...
	$(GO) vet ./...
	@if [ "$$($(GO) env CGO_ENABLED)" = 1 ]; then echo "$(GO) test -race ./..."; $(GO) test -race ./...; \
	  else echo "WITHOUT the race detector, which needs a C compiler:"; $(GO) test ./...; fi

fmt: tools
	$(GOFUMPT) -w $$(git ls-files '*.go')

e2e:
	FOREBAY_E2E=1 $(GO) test -timeout 25m -p 1 ./internal/e2e/...

# The long versions: 50 rounds of kill -9, a million records, …
soak:
	FOREBAY_E2E=1 FOREBAY_SOAK=1 $(GO) test -timeout 90m -p 1 -v ./internal/e2e/...

# How long to try crash states and damages, and each fuzz target.
TORTURE      ?= 6m
TORTURE_FUZZ ?= 5s
torture:
	@out=$$(mktemp); trap 'rm -f $$out $$out.failed' EXIT; \
	  { FOREBAY_E2E=1 FOREBAY_TORTURE=$(TORTURE) $(GO) test -count 1 -timeout 60m -v ./internal/torture 2>&1 || touch $$out.failed; \
	    $(MAKE) --no-print-directory fuzz FUZZTIME=$(TORTURE_FUZZ) 2>&1 || touch $$out.failed; } | tee $$out; \
	  echo; echo "in all:"; grep -E '(states|damages|sectors) tried' $$out; \
	  awk '/^fuzz: elapsed/ { for (i = 1; i < NF; i++) if ($$i == "execs:") n = $$(i+1) } \
	    /^ok / { sum += n; n = 0 } END { print "fuzz: " sum " executions" }' $$out; \
	  [ ! -e $$out.failed ]

torture-quick:
	FOREBAY_E2E=1 $(GO) test -count 1 ./internal/faultfs
	FOREBAY_E2E=1 $(GO) test -count 1 -v ./internal/torture

bench:
	FOREBAY_E2E=1 FOREBAY_BENCH=1 $(GO) test -count 1 -timeout 30m -v -run TestFigures ./bench

bench-log:
	FOREBAY_BENCH=1 $(GO) test -count 1 -timeout 30m -v -run TestLog ./bench

FUZZTIME ?= 10s
fuzz:
	@GO=$(GO) .ci/fuzz $(FUZZTIME)

# Keeps, of what fuzzing has found interesting in the formats, the small inputs: `go test` tries them all.
corpus:
	@cache=$$($(GO) env GOCACHE)/fuzz/forebay; \
	for at in $$(cd $$cache && find wal internal/record replicate -type d -name 'Fuzz*'); do \
	  to=$$(dirname $$at)/testdata/fuzz/$$(basename $$at); mkdir -p $$to; \
	  ls -Sr $$cache/$$at | head -24 | while read -r name; do cp -n $$cache/$$at/$$name $$to/; done; done

tools: $(GOFUMPT) $(LINT)

$(GOFUMPT):
	GOBIN=$(TOOLS) $(GO) install mvdan.cc/gofumpt@v0.12.0

$(LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

clean:
	rm -rf forebay $(TOOLS)
