#!/usr/bin/env bash
# Runs targets of the Makefile one after the other, stops at the first that fails, and prints the seconds of each at the end. `NAME+` begins NAME beside what follows; where NAME itself comes, it is waited for and what
# it said is printed.
set -u

report=()
result=0
declare -A beside=()
folder=$(mktemp -d)
trap 'for part in "${!beside[@]}"; do kill -TERM -- "-${beside[$part]}" 2>/dev/null; done; rm -rf "$folder"' EXIT

run() {
    local pid=${beside[$1]:-}
    if [ -z "$pid" ]; then
        make --no-print-directory "$1"
        return
    fi
    wait "$pid"
    local code=$?
    unset "beside[$1]"
    cat "$folder/$1"
    return "$code"
}

for part in "$@"; do
    if [ "$part" != "${part%+}" ]; then
        part=${part%+}
        printf '\n=== %s, beside what follows\n' "$part"
        # In a group of its own, so that what it has started can be ended with it.
        setsid make --no-print-directory "$part" >"$folder/$part" 2>&1 </dev/null &
        beside[$part]=$!
        continue
    fi
    printf '\n=== %s\n' "$part"
    started=$SECONDS
    if run "$part"; then
        report+=("$(printf '%6d s  %s' $((SECONDS - started)) "$part")")
    else
        result=$?
        report+=("$(printf '%6d s  %s FAILED' $((SECONDS - started)) "$part")")
        break
    fi
done
printf '\n=== seconds of each part\n'
printf '%s\n' "${report[@]}" "$(printf '%6d s  together' "$SECONDS")"
exit "$result"
