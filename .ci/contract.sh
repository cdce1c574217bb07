#!/usr/bin/env bash
# The API against its document: lint, a client generated from it, and generated requests with and without tokens, against a `drover demo`. DROVER_CONTRACT=real sends the requests to a drover with a real Kafka and a real etcd
# instead, which takes some minutes more. DROVER_CONTRACT_EXAMPLES=N tries N requests of each kind for each operation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
# shellcheck source=.ci/demo.sh
. .ci/demo.sh

work=$(mktemp -d)
trap 'end_demo; rm -rf "$work"' EXIT
say() { printf 'contract: %s\n' "$*"; }

binary=$(bash .ci/binary.sh)
cd openapi/check
npm ci --ignore-scripts --no-audit --no-fund --silent
npm run --silent lint

started=$SECONDS
npm run --silent generate
npm run --silent compile
# Calm: without the crash that the demo makes on purpose, so that any other is a finding.
start_demo --calm
npm run --silent client -- "http://$address"
stop_demo
say "the client: $((SECONDS - started)) s"
cd "$root"

if [ "${DROVER_CONTRACT:-demo}" = real ]; then
    cargo test --locked --features failpoints --test real -- --ignored --nocapture contract::
    say "passed"
    exit
fi

# The same demo, goes on with tokens. Probes stay open, since `start_demo` asks one.
tokens=$work/drover-demo/tokens.yaml
echo 'tokens:' >"$tokens"
write_token=$("$binary" token contract --role write 2>"$work/line") && tail --lines 1 "$work/line" >>"$tokens"
read_token=$("$binary" token reader --role read 2>"$work/line") && tail --lines 1 "$work/line" >>"$tokens"
printf '\nauth: {tokens_file: tokens.yaml}\nhttp: {open_metrics: false}\n' >>"$work/drover-demo/config.yaml"
start_demo --calm
bash .ci/contract-requests.sh "$address" "$write_token" "$read_token"
stop_demo
say "passed"
