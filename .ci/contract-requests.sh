#!/usr/bin/env bash
# Requests that are generated from openapi/openapi.json, against a drover with tokens: with one that may write, with one that may read, and with none.
#   contract-requests.sh ADDRESS WRITE_TOKEN READ_TOKEN
# DROVER_CONTRACT_EXAMPLES=N tries N requests of each kind for each operation. The folder of schemathesis is below the target folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
address=$1 write_token=$2 read_token=$3
root=$PWD
venv=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/contract/venv")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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

# requests ROLE [OPTION...]: hooks.py checks that each answer is one for the role. Its search keeps notes, which belong into no checkout.
requests() {
    local role=$1
    shift
    DROVER_CONTRACT_ROLE=$role HYPOTHESIS_STORAGE_DIRECTORY=$work/hypothesis-$role \
        "$venv/bin/schemathesis" run ../openapi.json --url "http://$address" --no-color "$@"
}

started=$SECONDS
install_schemathesis
say "schemathesis is there: $((SECONDS - started)) s"

started=$SECONDS
cd openapi/check
options=()
[ -z "${DROVER_CONTRACT_EXAMPLES:-}" ] || options+=(--max-examples "$DROVER_CONTRACT_EXAMPLES")
# What is refused for its role reaches no handler, so a few requests of each kind say all; beside the run that may write, since they change nothing.
refused=(--phases "examples,fuzzing" --max-examples 3 --checks "role_is_kept,not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance")
(
    requests none "${refused[@]}" >"$work/none.log" 2>&1 || { cat "$work/none.log"; exit 1; }
    requests read "${refused[@]}" --header "Authorization: Bearer $read_token" >"$work/read.log" 2>&1 || { cat "$work/read.log"; exit 1; }
) &
others=$!
outcome=0
requests write --checks all --header "Authorization: Bearer $write_token" "${options[@]}" || outcome=$?
wait "$others" || outcome=$?
[ "$outcome" -eq 0 ] || fail "generated requests were not answered as declared"
tail --lines 3 --quiet "$work/none.log" "$work/read.log"
say "generated requests: $((SECONDS - started)) s"

# No request may crash a task or break a promise, whatever it was answered.
curl --silent --fail --header "Authorization: Bearer $write_token" "http://$address/metrics" >"$work/metrics"
! grep -E '^drover_task_restarts_total\{.*cause="panicked"' "$work/metrics" || fail "a task has panicked"
! grep -E '^drover_invariant_violations_total.* [1-9]' "$work/metrics" || fail "a promise was broken"
