#!/usr/bin/env bash
# How many machine instructions a record costs on drover's own way, without Kafka: benches/instructions under callgrind, once with records and once without, and the difference.
# DROVER_INSTRUCTIONS_BINARY names another build of the bench, such as that of the commit before, to compare with.
set -euo pipefail

records=100000

command -v valgrind >/dev/null || { echo "instructions: needs valgrind: apt-get install valgrind" >&2; exit 1; }

build() {
    cargo bench --locked --bench instructions --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p' | tail -n 1
}

# Instructions of a run with this many records.
count() {
    DROVER_INSTRUCTIONS_RECORDS=$1 valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" 2>&1 |
        sed -n 's/.*Collected : *\([0-9]*\).*/\1/p'
}

binary=${DROVER_INSTRUCTIONS_BINARY:-$(build)}
[ -x "$binary" ] || { echo "instructions: the bench does not build: cargo bench --bench instructions --no-run" >&2; exit 1; }
none=$(count 0)
all=$(count "$records")
echo "instructions: $((all - none)) for $records records, $(((all - none) / records)) each ($none more for start and end)"
