#!/usr/bin/env bash
# Checks what building and testing need. As root it says what it is about to install and installs it with apt-get; else it names the exact command and fails.
#
#   .ci/prerequisites.sh          everything
#   .ci/prerequisites.sh build    only what building needs
set -euo pipefail

scope=${1:-everything}
lowest_java=17
missing=()

need_command() { command -v "$1" >/dev/null || missing+=("$2"); }

# Prints the major version of the Java on the path, or 0.
java_version() {
    local text
    text=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1) || true
    printf '%s' "${text:-0}"
}

# Whether google/protobuf/*.proto are where protoc looks for them.
has_protobuf_descriptions() {
    local folder
    folder=$(dirname "$(command -v protoc || printf /usr/bin/protoc)")/../include
    [ -e "$folder/google/protobuf/struct.proto" ]
}

find_missing() {
    missing=()
    need_command gcc gcc
    need_command g++ g++
    need_command make make
    need_command pkg-config pkg-config
    { command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing+=(libssl-dev)
    # The build script of the etcd client runs protoc and imports descriptions that come in a package of their own.
    need_command protoc protobuf-compiler
    has_protobuf_descriptions || missing+=(libprotobuf-dev)
    [ "$scope" = everything ] || return 0
    [ "$(java_version)" -ge "$lowest_java" ] || missing+=(default-jre-headless)
    need_command mvn maven
    need_command unzip unzip
    need_command flock util-linux
    need_command etcd etcd-server
    need_command etcdctl etcd-client
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
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
    find_missing
    if [ ${#missing[@]} -gt 0 ]; then
        echo "prerequisites: still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
fi
echo "prerequisites: all there ($(cargo --version)$([ "$scope" = everything ] && printf ', Java %s' "$(java_version)"))"
