#!/usr/bin/env bash
# deploy/monitoring: the alert rules and their tests, and whether rules and dashboard name metrics that a `drover demo` has; the metrics themselves by promtool.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=.ci/demo.sh
. .ci/demo.sh

work=$(mktemp -d)
trap 'end_demo; rm -rf "$work"' EXIT
sampled_within=60

(cd deploy/monitoring && promtool check rules alerts.yaml && promtool test rules alerts.test.yaml)

binary=$(bash .ci/binary.sh)
start_demo --dir "$work/demo"
# What these count is only on the page once it was there.
until=$((SECONDS + sampled_within))
for metric in drover_task_restarts_total drover_lag_records drover_lag_seconds drover_oldest_unsettled_seconds; do
    until curl --silent --fail "http://$address/metrics" >"$work/metrics" && grep -q "^$metric{" "$work/metrics"; do
        [ "$SECONDS" -lt "$until" ] || { echo "monitoring: no sample of $metric within $sampled_within s" >&2; exit 1; }
        [ "$metric" != drover_task_restarts_total ] || curl --silent --output /dev/null --request POST "http://$address/api/v1/topics/demo_orders/restart"
        sleep 0.5
    done
done
promtool check metrics <"$work/metrics"
python3 deploy/monitoring/check.py "$work/metrics" "$work/dashboard.yaml"
promtool check rules "$work/dashboard.yaml"
stop_demo
