# make run: drover on config.example.yaml.   make test: everything.   make bench: throughput (not in CI).
SHELL := /bin/bash

# One set of features for everything that is tested, so that nothing is compiled twice.
FEATURES := --features failpoints

.PHONY: help run test prerequisites lint doc test-hermetic test-real servers bench

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | column -t -s "$$(printf '\t')"

run: ## builds drover and runs it on config.example.yaml
	@bash .ci/prerequisites.sh build
	cargo run --locked -- run --config config.example.yaml

test: ## everything: prerequisites, lint, documentation, hermetic tests, real servers; prints the seconds of each part
	@bash .ci/parts.sh prerequisites lint doc test-hermetic servers test-real

prerequisites: ## checks what the tests need; as root installs what is missing
	@bash .ci/prerequisites.sh

lint: ## formatting and clippy
	cargo fmt --check
	cargo clippy --locked --all-targets $(FEATURES) -- -D warnings
	cargo clippy --locked --test real $(FEATURES) -- -D warnings

doc: ## the documentation builds without a warning
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps $(FEATURES)

test-hermetic: ## unit and integration tests that need nothing but this machine
	cargo test --locked $(FEATURES)

servers: ## fetches the real servers, and builds etcd 3.6 where there is a Go for it
	@bash tests/servers/fetch.sh kafka elasticsearch etcd etcd-3.6

test-real: ## the same program against a real Kafka, Elasticsearch and etcd
	cargo test --locked $(FEATURES) --test real

bench: ## records per second, CPU seconds and memory against a discarding endpoint, with a real Kafka
	@bash .ci/prerequisites.sh
	cargo bench --locked --bench throughput
