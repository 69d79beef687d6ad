# Set-up is part of each target: a Rust toolchain, make and a C/C++ compiler are all that has to be there.
# CARGO_TARGET_DIR is honoured; CARGO, ARGS, KEEP=1 (leave Kafka and Redis running) can be given.

CARGO ?= cargo
ARGS ?=

# TLS takes the system's OpenSSL where its headers are (.ci/openssl says, or gets them); else it is built from source.
TLS = OPENSSL_NO_VENDOR=$$(.ci/openssl)

DENY = $(CARGO) deny --locked --config .deny.toml

.DEFAULT_GOAL := help
SEEDS ?= 10000
# One more than there are processors: end-to-end tests wait for most of their time.
THREADS ?= $(shell echo $$(($$(nproc) + 1)))
DURATION ?= 5m
PROTOCOL ?= classic
BACKLOG ?= 1000000

.PHONY: help run demo build test sim soak fuzz bench bench-compare capacity instructions check fmt stack-up stack-down stack-status

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a guided tour on an embedded broker, nothing to install; exits 1 if anything is not as it must be
	$(CARGO) run --quiet --locked --profile demo --no-default-features -- demo $(ARGS)

run: ## both roles in one process, on the embedded broker; more with ARGS="--set kafka.brokers=.."
	$(TLS) $(CARGO) run --locked -- --role standalone $(ARGS)

build: ## the worker as it is shipped, in release/ of target or CARGO_TARGET_DIR
	$(TLS) $(CARGO) build --locked --release

test: ## unit, property, embedded-broker and end-to-end tests; starts its own Kafka and Redis
	export $(TLS) && $(CARGO) test --locked --no-run $(ARGS) && WORKER_SIM_SEEDS=$(SEEDS) RUST_TEST_THREADS=$(THREADS) tests/stack run $(CARGO) test --locked $(ARGS)

# Optimised, since ten thousand seeds take five times as long without.
sim: ## the engine on a simulated broker and store: SEEDS=10000, or one seed with its history by SEED=17
	export $(TLS) CARGO_PROFILE_DEV_OPT_LEVEL=1 && WORKER_SIM_SEEDS=$(SEEDS) $(if $(SEED),WORKER_SIM_SEED=$(SEED)) \
		$(CARGO) test --locked --test sim no_seed -- --nocapture

# Optimised as well: a million events one after another are minutes of work.
soak: ## processes under faults, judged at the end: DURATION=5m, SEED=1, BACKLOG=1000000 behind one user; a part by ARGS=whatever
	export $(TLS) CARGO_PROFILE_DEV_OPT_LEVEL=1 && $(CARGO) test --locked --no-run --test soak && \
		WORKER_SOAK_DURATION=$(DURATION) WORKER_SOAK_SEED=$(SEED) WORKER_SOAK_BACKLOG=$(BACKLOG) WORKER_SOAK_PROTOCOL=$(PROTOCOL) \
		tests/stack run $(CARGO) test --locked --test soak -- --nocapture --include-ignored $(ARGS)

# A Kafka and a Redis of its own: else other tests' load would be measured as well.
BENCH = $(CARGO) bench --locked --bench
BENCH_STACK = STACK_DIR=$(abspath $(or $(CARGO_TARGET_DIR),target))/bench-stack tests/stack run

fuzz: ## coverage-guided search for inputs that break decoding: TARGET=decode (or upcast), SECONDS=60
	export $(TLS) && CARGO="$(CARGO)" tests/fuzz/run $(or $(TARGET),decode) $(or $(SECONDS),60)

bench: ## how fast and how large, told against the floor; ARGS="--rows worker-redis --reps 3", ARGS=--help tells more
	export $(TLS) && $(BENCH) throughput --no-run && $(BENCH_STACK) $(BENCH) throughput -- $(ARGS)

bench-compare: ## the same in turns with another commit: BASE=main
	export $(TLS) && base=$$(CARGO=$(CARGO) benches/build-base $(or $(BASE),HEAD)) && $(BENCH) throughput --no-run && \
		$(BENCH_STACK) $(BENCH) throughput -- $$base $(ARGS)

capacity: ## how needs grow with users, partitions and blocked users: the figures of docs/capacity.md
	$(MAKE) --no-print-directory bench ARGS="--capacity --reps 1 $(ARGS)"

# Not linked as a release is, which takes ten minutes; in one unit, so that a change elsewhere moves no function from one to another.
instructions: ## instructions per event of the hot path, against benches/instructions/budget.toml; RECORD=1 writes it
	@if .ci/valgrind; then export $(TLS) CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=1 && \
		$(BENCH) instructions -- $(if $(RECORD),--record) $(ARGS); else [ "$$CI" != true ]; fi

check: ## format, clippy, the build that `make demo` makes, documentation, module order, dependencies, licences
	$(CARGO) fmt --check
	export $(TLS) && $(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) check --locked --quiet --no-default-features
	export $(TLS) && RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --quiet
	export $(TLS) && $(CARGO) test --locked --quiet --test layers --test dependencies
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "check: no cargo-deny here, so advisories were not looked up (cargo install --locked cargo-deny)"; \
	elif $(DENY) fetch db >/dev/null 2>&1; then $(DENY) check; \
	else echo "check: the advisory database is out of reach, so advisories were not looked up"; $(DENY) check licenses bans sources; fi

fmt: ## format the source
	$(CARGO) fmt

stack-up: ## start Kafka and Redis for the end-to-end tests and leave them running
	@tests/stack up

stack-down: ## stop them
	@tests/stack down

stack-status: ## what runs
	@tests/stack status
