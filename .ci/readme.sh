#!/usr/bin/env bash
# Runs every ```sh block of both READMEs that is not marked `no-test`, in their order, against a `drover demo` of its own, and says file and line of the one that failed.
#
# A block runs by bash with errexit, nounset and pipefail, in a folder that holds the demo's folder (drover-demo) and each ```yaml block whose first line is `# NAME`, as the file NAME. `drover` is on the
# path. The address of the examples, 127.0.0.1:8080, becomes the one of this demo; curl fails where a server answers with an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/demo.sh
. .ci/demo.sh

readmes=(README.md README.zh-CN.md)
written=127.0.0.1:8080

scratch=$(mktemp -d)
trap 'end_demo; rm -rf "$scratch"' EXIT

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

# The examples are the same in both languages, comments included.
for readme in "${readmes[@]}"; do
    mkdir -p "$scratch/blocks/$readme"
    extract "$readme" "$scratch/blocks/$readme"
    cat "$scratch/blocks/$readme"/* >"$scratch/$readme.all"
done
diff -u --label "blocks of ${readmes[0]}" --label "blocks of ${readmes[1]}" "$scratch/${readmes[0]}.all" "$scratch/${readmes[1]}.all" || fail "the blocks of both READMEs must be the same"

binary=$(bash .ci/binary.sh)
ran=0
for readme in "${readmes[@]}"; do
    # The folder in which the demo starts, too.
    work=$scratch/run/$readme
    mkdir -p "$work/bin"
    ln -s "$binary" "$work/bin/drover"
    echo fail-with-body >"$work/.curlrc"
    for block in "$scratch/blocks/$readme"/*.yaml; do
        name=$(sed -n '1s/^# \([a-zA-Z0-9._-]*\)$/\1/p' "$block")
        [ -z "$name" ] || cp "$block" "$work/$name"
    done
    # The demo's options are not those of this script.
    # shellcheck disable=SC2119
    start_demo
    for block in "$scratch/blocks/$readme"/*.sh; do
        line=$(basename "$block" .sh)
        sed -i "s/${written//./\\.}/$address/g" "$block"
        started=$SECONDS
        if ! (cd "$work" && env CURL_HOME="$work" PATH="$work/bin:$PATH" DROVER_SERVER="http://$address" timeout 120 bash -euo pipefail "$block") </dev/null >"$scratch/output" 2>&1; then
            cat "$scratch/output"
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
