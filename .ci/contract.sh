#!/usr/bin/env bash
# The API against its document: lint, a client generated from it, and generated requests, all against a `drover demo`. DROVER_CONTRACT_EXAMPLES=N tries N requests of each kind for each operation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
# shellcheck source=.ci/demo.sh
. .ci/demo.sh

work=$(mktemp -d)
trap 'end_demo; rm -rf "$work"' EXIT
say() { printf 'contract: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# Schemathesis in a folder of its own, made again when what it needs has changed.
install_schemathesis() {
    local needs=$root/openapi/check/requirements.txt
    cmp --silent "$needs" "$venv/requirements.txt" && return
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: --requirement "$needs"
    cp "$needs" "$venv/requirements.txt"
}

binary=$(bash .ci/binary.sh)
venv=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/contract/venv")
cd openapi/check
npm ci --ignore-scripts --no-audit --no-fund --silent
npm run --silent lint

started=$SECONDS
npm run --silent generate
npm run --silent compile
# Calm: without the crash that the demo makes on purpose, so that any other is a finding.
start_demo --calm
npm run --silent client -- "http://$address"
say "the client: $((SECONDS - started)) s"

started=$SECONDS
install_schemathesis
say "schemathesis is there: $((SECONDS - started)) s"
started=$SECONDS
options=()
[ -z "${DROVER_CONTRACT_EXAMPLES:-}" ] || options+=(--max-examples "$DROVER_CONTRACT_EXAMPLES")
# Its search keeps notes, which belong into no checkout.
HYPOTHESIS_STORAGE_DIRECTORY=$work/hypothesis "$venv/bin/schemathesis" run ../openapi.json --url "http://$address" --checks all --no-color "${options[@]}"
say "generated requests: $((SECONDS - started)) s"

# No request may crash a task or break a promise, whatever it was answered.
curl --silent --fail "http://$address/metrics" >"$work/metrics"
! grep -E '^drover_task_restarts_total\{.*cause="panicked"' "$work/metrics" || fail "a task has panicked"
! grep -E '^drover_invariant_violations_total.* [1-9]' "$work/metrics" || fail "a promise was broken"
stop_demo
say "passed"
