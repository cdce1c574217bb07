#!/usr/bin/env bash
# Fetches test servers from Maven Central into a shared folder and prints the folder of each, one a line, on stdout.
#
#   tests/servers/fetch.sh kafka elasticsearch        also: opensearch, elasticsearch-9
#
# The folder is ${DROVER_TEST_SERVERS:-/var/tmp/drover-test-servers}/NAME-VERSION. It is complete or absent: an interrupted fetch leaves only a temporary folder, which the
# next one removes. Everything in it can be read by every user, because the servers run as an unprivileged one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${DROVER_TEST_SERVERS:-/var/tmp/drover-test-servers}
kafka_version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml")
elasticsearch_version=8.19.0
elasticsearch_9_version=9.1.0
opensearch_version=3.4.0

say() { printf '%s\n' "fetch: $*" >&2; }

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

# fetch NAME VERSION SIZE COMMAND [ARGUMENT]: runs COMMAND TEMPORARY_FOLDER [ARGUMENT] unless the folder exists, and prints the folder.
fetch() {
    local name=$1 version=$2 size=$3
    shift 3
    local command=$1 argument=${2:-} target="$cache/$name-$version" temporary
    if [ ! -d "$target" ]; then
        exec 9>"$cache/.lock"
        flock 9
        if [ ! -d "$target" ]; then
            rm -rf "$cache/.partial-$name-$version".*
            temporary=$(mktemp -d "$cache/.partial-$name-$version.XXXXXX")
            say "downloading $name $version ($size) with Maven into $target"
            "$command" "$temporary" $argument
            chmod -R a+rX "$temporary"
            mv -T "$temporary" "$target"
            say "$name $version is there"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$target"
}

if [ $# -eq 0 ]; then
    say "name at least one of: kafka elasticsearch elasticsearch-9 opensearch"
    exit 2
fi
for tool in mvn unzip flock; do
    command -v "$tool" >/dev/null || { say "$tool is missing; run: bash .ci/prerequisites.sh"; exit 1; }
done
umask 022
mkdir -p "$cache"
chmod a+rx "$cache"
for name in "$@"; do
    case $name in
        kafka) fetch kafka "$kafka_version" "about 54 MB, 93 jars" fetch_kafka ;;
        elasticsearch)
            fetch elasticsearch "$elasticsearch_version" "about 97 MB" fetch_zip "org.elasticsearch.distribution.integ-test-zip:elasticsearch:$elasticsearch_version" ;;
        elasticsearch-9)
            fetch elasticsearch "$elasticsearch_9_version" "about 100 MB" fetch_zip "org.elasticsearch.distribution.integ-test-zip:elasticsearch:$elasticsearch_9_version" ;;
        opensearch)
            fetch opensearch "$opensearch_version" "about 133 MB" fetch_zip "org.opensearch.distribution.integ-test-zip:opensearch:$opensearch_version" ;;
        *) say "no such server: $name"; exit 2 ;;
    esac
done
