#!/usr/bin/env bash
# What is not Rust: shell scripts by shellcheck, compose.yaml against the schema of the Compose specification, the Dockerfile's instructions, and whether both name what exists.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# grep and not a fixed list, so that a new script is not forgotten.
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard | while read -r path; do
    [ -f "$path" ] && head -c 64 "$path" | head -n 1 | grep -aqE '^#!.*\b(ba)?sh$' && printf '%s\n' "$path"
done)
[ ${#scripts[@]} -gt 0 ] || { echo "lint-files: no shell script found" >&2; exit 1; }
shellcheck --external-sources "${scripts[@]}"
echo "shellcheck: ${#scripts[@]} scripts, nothing found"

cd deploy/check
npm ci --ignore-scripts --no-audit --no-fund --silent
npm run --silent lint
