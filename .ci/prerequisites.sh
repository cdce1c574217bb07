#!/usr/bin/env bash
# Checks what building and testing need. As root it says what it is about to install and installs it with apt-get; else it names the exact command and fails.
#
#   .ci/prerequisites.sh          everything
#   .ci/prerequisites.sh build    only what building needs
#   .ci/prerequisites.sh image    what `make image-check` needs
set -euo pipefail

scope=${1:-everything}
lowest_java=17
# Debian 12's; what web/package.json, deploy/check/package.json and openapi/check/package.json were chosen for.
lowest_node=18.20
missing=()

need_command() { command -v "$1" >/dev/null || missing+=("$2"); }

# Prints the major version of the Java on the path, or 0.
java_version() {
    local text
    text=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1) || true
    printf '%s' "${text:-0}"
}

# Whether the Node.js on the path is new enough.
has_node() {
    local version
    version=$(node --version 2>/dev/null) || return 1
    printf '%s\n' "v$lowest_node" "$version" | sort --check=quiet --version-sort
}

# Whether google/protobuf/*.proto are where protoc looks for them.
has_protobuf_descriptions() {
    local folder
    folder=$(dirname "$(command -v protoc || printf /usr/bin/protoc)")/../include
    [ -e "$folder/google/protobuf/struct.proto" ]
}

find_missing() {
    missing=()
    [ "$scope" = image ] || find_missing_for_building
    [ "$scope" != everything ] || find_missing_for_testing
    [ "$scope" != image ] || need_command debootstrap debootstrap
    [ "$scope" = build ] || find_missing_of_node
}

find_missing_for_building() {
    need_command gcc gcc
    need_command g++ g++
    need_command make make
    need_command pkg-config pkg-config
    { command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing+=(libssl-dev)
    # The build script of the etcd client runs protoc and imports descriptions that come in a package of their own.
    need_command protoc protobuf-compiler
    has_protobuf_descriptions || missing+=(libprotobuf-dev)
}

find_missing_for_testing() {
    [ "$(java_version)" -ge "$lowest_java" ] || missing+=(default-jre-headless)
    need_command mvn maven
    need_command unzip unzip
    need_command openssl openssl
    need_command flock util-linux
    need_command etcd etcd-server
    need_command etcdctl etcd-client
    need_command curl curl
    need_command shellcheck shellcheck
    need_command promtool prometheus
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
}

find_missing_of_node() {
    has_node || missing+=(nodejs)
    need_command npm npm
}

check_rust() {
    if ! command -v cargo >/dev/null; then
        echo "prerequisites: cargo is missing; install Rust with rustup and put ~/.cargo/bin on the path" >&2
        exit 1
    fi
    [ "$scope" = everything ] || return 0
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        echo "prerequisites: rustfmt or clippy is missing; run: rustup component add rustfmt clippy" >&2
        exit 1
    fi
}

check_rust
find_missing
if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get update && apt-get install --yes --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "prerequisites: missing: ${missing[*]}; run as root: $install" >&2
        exit 1
    fi
    echo "prerequisites: missing: ${missing[*]}; running: $install"
    apt-get update --quiet
    # Debian's npm is some 400 small packages, and dpkg waits for the disk after each unless it is told not to.
    DEBIAN_FRONTEND=noninteractive apt-get install --option Dpkg::Options::=--force-unsafe-io --yes --no-install-recommends "${missing[@]}"
    find_missing
    if [ ${#missing[@]} -gt 0 ]; then
        echo "prerequisites: still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
fi
echo "prerequisites: all there ($(cargo --version)$([ "$scope" = everything ] && printf ', Java %s, Node.js %s' "$(java_version)" "$(node --version)"))"
