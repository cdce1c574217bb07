#!/usr/bin/env bash
# Executes the Dockerfile in a folder (deploy/check/image.mjs). Not in CI: it builds a release, and needs root.
#
#   .ci/image-check.sh --plan     only says what it would do
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ "${1:-}" = --plan ] || bash .ci/prerequisites.sh image
cd deploy/check
npm ci --ignore-scripts --no-audit --no-fund --silent
exec node image.mjs "$@"
