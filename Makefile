# make run: the demo, which needs nothing else.   make test: everything.   make bench: what it costs (not in CI).
SHELL := /bin/bash

# One set of features for everything that is tested, so that nothing is compiled twice.
FEATURES := --features failpoints

# Most tests wait for a server, so there are more at once than processors.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(nproc) + 1)))

# The drover of test-readme, test-web, test-contract and test-monitoring; empty: the one that test-hermetic has built.
export DROVER_BINARY

.PHONY: help run test prerequisites lint lint-files doc test-hermetic test-readme test-web test-contract test-monitoring test-real test-faults faults servers bench bench-tasks bench-peers fuzz instructions image-check

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | column -t -s "$$(printf '\t')"

run: ## builds drover and starts its demo, whose page is at http://127.0.0.1:8080; needs no server. Options: make run DEMO="--listen 127.0.0.1:9000 --calm"
	@bash .ci/prerequisites.sh build
	@echo "run: building the release, then starting the demo; on a fresh checkout the build takes 5 to 10 minutes"
	cargo run --locked --release -- demo $(DEMO)

test: ## everything: prerequisites, lint, documentation, hermetic tests, READMEs, page, API, monitoring, real servers, faults; prints the seconds of each part
	@bash .ci/parts.sh prerequisites servers+ lint lint-files doc test-hermetic test-readme test-web test-contract test-monitoring servers test-real test-faults

prerequisites: ## checks what the tests need; as root installs what is missing
	@bash .ci/prerequisites.sh

lint: ## formatting and clippy
	cargo fmt --check
	cargo clippy --locked --all-targets $(FEATURES) -- -D warnings
	cargo clippy --locked --test real --test faults $(FEATURES) -- -D warnings

lint-files: ## shell scripts, the Dockerfile and compose.yaml
	@bash .ci/lint-files.sh

doc: ## the documentation builds without a warning
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps $(FEATURES)

test-hermetic: ## unit and integration tests that need nothing but this machine
	cargo test --locked $(FEATURES)

test-readme: ## the sh blocks of both READMEs, against a demo
	@bash .ci/readme.sh

test-web: ## the status page: pure parts, against a fixture server, and of a demo, in Chromium
	@bash .ci/web.sh

test-contract: ## the API against its document, with a demo: lint, a generated client, generated requests with tokens and without. Options: DROVER_CONTRACT_EXAMPLES=500, DROVER_CONTRACT=real for a real Kafka and a real etcd
	@bash .ci/contract.sh

test-monitoring: ## the alert rules, the dashboard, and the metrics of a demo that both name
	@bash .ci/monitoring.sh

servers: ## fetches the real servers, a Java for the newer ones, and builds etcd 3.6 where there is a Go for it
	@bash tests/servers/fetch.sh kafka elasticsearch elasticsearch-secured elasticsearch-9 opensearch java-21 etcd etcd-3.6

test-real: ## the same program against a real Kafka, Elasticsearch, OpenSearch and etcd
	cargo test --locked $(FEATURES) --test real

test-faults: ## a seeded selection of the fault matrix and of the mutants, at most five minutes. Options: SEED=7
	FAULTS=selection SEED=$(SEED) cargo test --locked $(FEATURES) --test faults

faults: ## a minute of fuzzing for each parser, the whole fault matrix and all mutants; writes tests/faults/RESULTS.md (not in CI). Options: ROW=23 (or ROW=3,29 or ROW=mutants), SEED=7, ROW=70 for a soak of an hour, SOAK=10 for other minutes
	$(if $(ROW),,@$(MAKE) --no-print-directory fuzz)
	ROW=$(ROW) SEED=$(SEED) SOAK=$(SOAK) cargo test --locked $(FEATURES) --test faults

bench: ## what drover costs beside hand-written librdkafka loops, with a real Kafka; writes benches/README.md (not in CI). Options: BENCH=quick, BENCH_TABLE=main,latency
	@bash .ci/prerequisites.sh
	cargo bench --locked --bench throughput

bench-tasks: ## what 100 to 10,000 partitions cost, and how fast the API answers beside them; writes its tables into benches/README.md (not in CI). Options: BENCH=quick
	@bash .ci/prerequisites.sh
	BENCH_TABLE=tasks,api cargo bench --locked --bench throughput

bench-peers: ## drover beside rsyslog, gohangout, file.d and go-stash, which it fetches and builds; writes its table into benches/README.md (not in CI). Options: BENCH=quick
	@bash .ci/prerequisites.sh
	BENCH_PEERS=$$(bash benches/peers/build.sh) && export BENCH_PEERS && BENCH_TABLE=peers cargo bench --locked --bench throughput

fuzz: ## changes the corpus at random against each parser for SECONDS (60); DROVER_FUZZ_SEED=N repeats a run
	DROVER_FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --locked $(FEATURES) --lib -- --nocapture --test-threads=1 corpus_tests::fuzz_

instructions: ## machine instructions for each record, without Kafka, counted by valgrind (not in CI)
	@bash .ci/instructions.sh

image-check: ## executes the Dockerfile in a folder, as root and without Docker; builds a release (not in CI)
	@bash .ci/image-check.sh
