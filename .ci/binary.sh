#!/usr/bin/env bash
# Builds the drover that the page's tests and the READMEs are run with, and prints its path: DROVER_BINARY where that is set (`make test-web DROVER_BINARY=target/release/drover`), else the one that the
# hermetic tests use, which `cargo test` has built already. A plain `cargo build` would compile every dependency again, with other features.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -n "${DROVER_BINARY:-}" ]; then
    [ -x "$DROVER_BINARY" ] || { echo "binary: DROVER_BINARY=$DROVER_BINARY cannot be executed" >&2; exit 1; }
    realpath "$DROVER_BINARY"
    exit
fi
cargo test --locked --features failpoints --no-run >&2
realpath "${CARGO_TARGET_DIR:-target}/debug/drover"
