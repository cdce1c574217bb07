#!/usr/bin/env bash
# Starts and stops a `drover demo` for the scripts that source this. They set `binary` and `work`, an empty folder, and call `end_demo` when they exit; `address` is the demo's.
set -euo pipefail

demo=
demo_ready_within=60
demo_stopped_within=30

# A port that nobody listens on.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

# Options: those of `drover demo`.
start_demo() {
    local until=$((SECONDS + demo_ready_within))
    address=127.0.0.1:$(free_port)
    (cd "${work:?}" && exec "${binary:?}" demo --listen "$address" "$@" >"$work/demo.log" 2>&1) &
    demo=$!
    until curl --silent --fail --output /dev/null "http://$address/readyz"; do
        kill -0 "$demo" 2>/dev/null || { echo "the demo ended: $(tail -n 20 "$work/demo.log")" >&2; return 1; }
        [ "$SECONDS" -lt "$until" ] || { echo "the demo is not ready after $demo_ready_within s: $(tail -n 20 "$work/demo.log")" >&2; return 1; }
        sleep 0.2
    done
}

# It must end by itself and be content.
stop_demo() {
    local code=0
    kill -TERM "$demo"
    timeout "$demo_stopped_within" tail --pid="$demo" --follow /dev/null || { echo "the demo does not stop within $demo_stopped_within s" >&2; return 1; }
    wait "$demo" || code=$?
    demo=
    [ "$code" -eq 0 ] || { echo "the demo ended with $code: $(tail -n 20 "$work/demo.log")" >&2; return 1; }
}

# Whatever happened.
end_demo() {
    [ -n "$demo" ] || return 0
    kill -KILL "$demo" 2>/dev/null || true
    wait "$demo" 2>/dev/null || true
}
