#!/usr/bin/env bash
# Runs every ```sh block of both READMEs that is not marked `no-test`, in their order, against a `drover demo` of its own, and says file and line of the one that failed.
#
# A block runs by bash with errexit, nounset and pipefail, in a folder that holds the demo's folder (drover-demo) and each ```yaml block whose first line is `# NAME`, as the file NAME. `drover` is on the
# path. The address of the examples, 127.0.0.1:8080, becomes the one of this demo; curl fails where a server answers with an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readmes=(README.md README.zh-CN.md)
written=127.0.0.1:8080
ready_within=30
stopped_within=30

work=$(mktemp -d)
demo=
end() {
    if [ -n "$demo" ]; then
        kill -KILL "$demo" 2>/dev/null || true
        wait "$demo" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap end EXIT

say() { printf 'readme: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# Puts each block of a README into a file of its own, FOLDER/LINE.LANGUAGE, where LINE is that of its first line. Blocks marked no-test end in `.skipped`.
extract() {
    awk -v folder="$2" '
        /^```/ && !inside { inside = 1; language = substr($1, 4); file = sprintf("%s/%05d.%s%s", folder, NR + 1, language, $2 == "no-test" ? ".skipped" : ""); printf "" > file; next }
        /^```/ { inside = 0; close(file); next }
        inside { print > file }
        END { if (inside) { print "a block is not closed" > "/dev/stderr"; exit 1 } }
    ' "$1"
}

# A port that nobody listens on.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

start_demo() {
    local until=$((SECONDS + ready_within))
    address=127.0.0.1:$(free_port)
    (cd "$folder" && exec "$binary" demo --listen "$address" >"$folder/demo.log" 2>&1) &
    demo=$!
    until curl --silent --fail --output /dev/null "http://$address/readyz"; do
        kill -0 "$demo" 2>/dev/null || fail "the demo ended: $(tail -n 20 "$folder/demo.log")"
        [ "$SECONDS" -lt "$until" ] || fail "the demo is not ready after $ready_within s: $(tail -n 20 "$folder/demo.log")"
        sleep 0.2
    done
}

stop_demo() {
    local code=0
    kill -TERM "$demo"
    timeout "$stopped_within" tail --pid="$demo" --follow /dev/null || fail "the demo does not stop within $stopped_within s"
    wait "$demo" || code=$?
    demo=
    [ "$code" -eq 0 ] || fail "the demo ended with $code: $(tail -n 20 "$folder/demo.log")"
}

# The examples are the same in both languages, comments included.
for readme in "${readmes[@]}"; do
    mkdir -p "$work/blocks/$readme"
    extract "$readme" "$work/blocks/$readme"
    cat "$work/blocks/$readme"/* >"$work/$readme.all"
done
diff -u --label "blocks of ${readmes[0]}" --label "blocks of ${readmes[1]}" "$work/${readmes[0]}.all" "$work/${readmes[1]}.all" || fail "the blocks of both READMEs must be the same"

binary=$(bash .ci/binary.sh)
ran=0
for readme in "${readmes[@]}"; do
    folder=$work/run/$readme
    mkdir -p "$folder/bin"
    ln -s "$binary" "$folder/bin/drover"
    echo fail-with-body >"$folder/.curlrc"
    for block in "$work/blocks/$readme"/*.yaml; do
        name=$(sed -n '1s/^# \([a-zA-Z0-9._-]*\)$/\1/p' "$block")
        [ -z "$name" ] || cp "$block" "$folder/$name"
    done
    start_demo
    for block in "$work/blocks/$readme"/*.sh; do
        line=$(basename "$block" .sh)
        sed -i "s/${written//./\\.}/$address/g" "$block"
        started=$SECONDS
        if ! (cd "$folder" && env CURL_HOME="$folder" PATH="$folder/bin:$PATH" DROVER_SERVER="http://$address" timeout 120 bash -euo pipefail "$block") </dev/null >"$work/output" 2>&1; then
            cat "$work/output"
            sed 's/^/    /' "$block"
            fail "the block of $readme that begins in line $((10#$line)) failed"
        fi
        say "$readme:$((10#$line)), $((SECONDS - started)) s"
        ran=$((ran + 1))
    done
    stop_demo
done
[ "$ran" -gt 0 ] || fail "no block was run"
say "$ran blocks of ${#readmes[@]} READMEs passed"
