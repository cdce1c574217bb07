#!/usr/bin/env bash
# The page's tests: pure parts, the page against a fixture server, the page of a real `drover demo`. The browser is the system's; none is downloaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=$(bash .ci/binary.sh)
cd web
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1
# No package needs its install script: esbuild's own binary is a package.
npm ci --ignore-scripts --no-audit --no-fund
npm run --silent vendor:check
npm run --silent test:unit
started=$SECONDS
npm run --silent test:page
echo "page against the fixture server: $((SECONDS - started)) s"
started=$SECONDS
DROVER_BINARY=$binary npm run --silent test:demo
echo "page of the demo: $((SECONDS - started)) s"
