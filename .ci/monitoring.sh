#!/usr/bin/env bash
# deploy/monitoring: the alert rules and their tests, and whether rules and dashboard name metrics that a `drover demo` has; the metrics themselves by promtool.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=.ci/demo.sh
. .ci/demo.sh

work=$(mktemp -d)
trap 'end_demo; rm -rf "$work"' EXIT
sampled_within=60

# What these count is on the page only once it was there.
has_samples() {
    local metric
    for metric in drover_task_restarts_total drover_lag_records drover_lag_seconds drover_oldest_unsettled_seconds; do
        grep -q "^$metric{" "$work/metrics" || return 1
    done
}

(cd deploy/monitoring && promtool check rules alerts.yaml && promtool test rules alerts.test.yaml)

binary=$(bash .ci/binary.sh)
start_demo --dir "$work/demo"
until=$((SECONDS + sampled_within))
until curl --silent --fail "http://$address/metrics" >"$work/metrics" && has_samples; do
    [ "$SECONDS" -lt "$until" ] || { echo "monitoring: /metrics is not complete within $sampled_within s" >&2; exit 1; }
    grep -q '^drover_task_restarts_total{' "$work/metrics" || curl --silent --output /dev/null --request POST "http://$address/api/v1/topics/demo_orders/restart"
    sleep 0.5
done
promtool check metrics <"$work/metrics"
python3 deploy/monitoring/check.py "$work/metrics" "$work/dashboard.yaml"
promtool check rules "$work/dashboard.yaml"
stop_demo
