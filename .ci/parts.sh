#!/usr/bin/env bash
# Runs targets of the Makefile one after the other, stops at the first that fails, and prints the seconds of each at the end.
set -u

report=()
result=0
for part in "$@"; do
    printf '\n=== %s\n' "$part"
    started=$SECONDS
    if make --no-print-directory "$part"; then
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
