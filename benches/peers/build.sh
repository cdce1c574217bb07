#!/usr/bin/env bash
# Gets the other programs of `make bench-peers` and prints the folder of those that were built: rsyslog from Debian, the others as Go modules of fixed versions.
#
# A program that cannot be had (no Go, not root, a module that is refused) is left out with a message, and the table has no row for it; the bench runs what it finds. The folder is
# ${DROVER_BENCH_PEERS:-/var/tmp/drover-bench-peers}.
set -euo pipefail

cache=${DROVER_BENCH_PEERS:-/var/tmp/drover-bench-peers}
# program, package, version: what the figures quoted in benches/README.md were taken with.
modules=(
    "stash github.com/kevwan/go-stash/stash 84fa6a6"
    "gohangout github.com/childe/gohangout ad28c52"
    "file.d github.com/ozontech/file.d/cmd/file.d 52a5ce8"
)

say() { printf '%s\n' "peers: $*" >&2; }

get_rsyslog() {
    local packages="rsyslog rsyslog-kafka rsyslog-elasticsearch"
    # The package has no command of its own for its modules; the last of the three is the rarest.
    if dpkg-query --show --showformat='${Status}' rsyslog-elasticsearch 2>/dev/null | grep -q 'install ok installed'; then
        return
    fi
    local install="apt-get update && apt-get install --yes --no-install-recommends $packages"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "rsyslog is left out; as root: $install"
        return
    fi
    say "running: $install"
    apt-get update --quiet >&2
    # shellcheck disable=SC2086 # the packages are words
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages >&2
}

get_module() {
    local program=$1 package=$2 version=$3
    [ ! -x "$cache/$program" ] || return 0
    if ! command -v go >/dev/null; then
        say "$program is left out: it is built by Go, which is not installed"
        return
    fi
    say "building $package@$version"
    GOBIN=$cache go install "$package@$version" >&2 || say "$program is left out: Go could not get or build it"
}

mkdir -p "$cache"
get_rsyslog
for module in "${modules[@]}"; do
    read -r program package version <<<"$module"
    get_module "$program" "$package" "$version"
done
printf '%s\n' "$cache"
