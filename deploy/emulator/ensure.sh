#!/usr/bin/env bash
# ensure.sh: prints the path of the jar of Google's Firestore emulator, for tests; Java runs it.
#
# It is looked for in the Cloud SDK (Debian's package google-cloud-cli-firestore-emulator, or `gcloud components install
# cloud-firestore-emulator`) and in the cache of firebase-tools. Where it is in neither, and npx is there, firebase-tools
# fetches it into its cache. Progress is on stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/lib.sh
. "$here/../../.ci/lib.sh"

firebase_tools=15.34.2
java_version=11

need_java() {
    local have
    need java "The Firestore emulator of the tests runs on Java $java_version or newer: Debian's default-jre-headless."
    have=$(java -version 2>&1 | sed -n 's/.* version "\([0-9.]*\).*/\1/p' | head -n 1)
    version_at_least "$have" "$java_version" || die "Java $java_version or newer is needed; found $have."
}

# Prints the jar in the Cloud SDK's folder, if it is there. (`gcloud info` takes seconds and is asked last.)
in_cloud_sdk() {
    local root jar gcloud
    gcloud=$(type -P gcloud) || gcloud=
    for root in /usr/lib/google-cloud-sdk "${gcloud:+$(dirname "$(dirname "$(readlink -f "$gcloud")")")}" \
        "${HOME:-/nonexistent}/google-cloud-sdk" ask; do
        [ "$root" != ask ] || { [ -n "$gcloud" ] && root=$(gcloud info --format='value(installation.sdk_root)'); } || continue
        jar=$root/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar
        if [ -f "$jar" ]; then
            printf '%s\n' "$jar"
            return
        fi
    done
    return 1
}

# Prints the newest jar that firebase-tools has fetched.
in_firebase_cache() {
    local folder=${FIREBASE_EMULATORS_PATH:-${HOME:-/nonexistent}/.cache/firebase/emulators} jar
    jar=$(find "$folder" -maxdepth 1 -name 'cloud-firestore-emulator-v*.jar' 2>/dev/null | sort -V | tail -n 1)
    [ -n "$jar" ] && printf '%s\n' "$jar"
}

fetch() {
    local log
    log=$(mktemp)
    say "the Firestore emulator is not there; firebase-tools $firebase_tools fetches it into its cache"
    with_progress "fetching the Firestore emulator" "$log" \
        npx --yes "firebase-tools@$firebase_tools" setup:emulators:firestore || return 1
    rm "$log"
}

need_java
if in_cloud_sdk || in_firebase_cache; then
    exit
fi
if command -v npx >/dev/null 2>&1 && fetch && in_firebase_cache; then
    exit
fi
die "Google's Firestore emulator is needed for the tests and was not found. With Google's package source for Debian:
  apt-get install google-cloud-cli-firestore-emulator
with a Cloud SDK of your own: gcloud components install cloud-firestore-emulator
with Node.js: npx firebase-tools@$firebase_tools setup:emulators:firestore
or name its jar in SCALE_LND_FIRESTORE_EMULATOR."
