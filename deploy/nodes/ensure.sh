#!/usr/bin/env bash
# ensure.sh release|lowscrypt|former: prints the folder that holds lnd, lncli, btcd and btcctl in the versions of go.mod.
#
# release    lnd with the build tags of its releases. All four from PATH where they fit, else built.
# lowscrypt  the same and a wallet encryption that is weak but quick: for tests, never for money. Always built.
# former     only lnd, in the version before (former/go.mod), built like lowscrypt: what tests update from.
#
# What is built goes to the user's cache folder, once for each go.mod, go.sum and set of flags. Progress is on stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/lib.sh
. "$here/../../.ci/lib.sh"

programs=(lnd lncli btcd btcctl)
packages=(
    github.com/lightningnetwork/lnd/cmd/lnd
    github.com/lightningnetwork/lnd/cmd/lncli
    github.com/btcsuite/btcd
    github.com/btcsuite/btcd/cmd/btcctl
)
tags="autopilotrpc signrpc walletrpc chainrpc invoicesrpc watchtowerrpc neutrinorpc monitoring peersrpc"
tags+=" kvdb_postgres kvdb_etcd kvdb_sqlite"

case "${1:-}" in
    release) ;;
    lowscrypt) tags+=" lowscrypt" ;;
    former)
        tags+=" lowscrypt"
        here+=/former
        programs=(lnd)
        packages=("${packages[0]}")
        ;;
    *) die "usage: ensure.sh release|lowscrypt|former" ;;
esac
variant=$1

# go.mod is the only place that names versions.
pinned() { awk -v module="$1" '$1 == module { print $2; exit }' "$here/go.mod"; }
lnd_version=$(pinned github.com/lightningnetwork/lnd)
btcd_version=$(pinned github.com/btcsuite/btcd)
go_version=$(pinned go)
# lnd takes its commit from the linker; its releases name their tag here.
ldflags="-s -w -X github.com/lightningnetwork/lnd/build.Commit=$lnd_version"

# fits LND [LNCLI BTCD BTCCTL]: do these programs say the versions of go.mod? btcd is pinned between two of its releases, so
# major and minor must do; btcctl counts by itself and talks to every btcd.
fits() {
    local btcd_series
    if [ $# = 1 ]; then
        says "$1" "${lnd_version#v} "
        return
    fi
    btcd_series=$(cut -d. -f1,2 <<<"${btcd_version#v}")
    says "$1" "${lnd_version#v} " && says "$2" "${lnd_version#v} " &&
        says "$3" "$btcd_series." && says "$4" ""
}

says() { [[ $("$1" --version 2>/dev/null </dev/null || true)" " == *" version $2"* ]]; }

# Go writes the build tags into every program. Without walletrpc we cannot work; lowscrypt must not get in unasked.
has_release_tags() {
    local found
    found=$(LC_ALL=C grep -aom 1 $'build\t-tags=[a-z0-9_,]*' "$1") || return 1
    [[ $found == *walletrpc* && $found != *lowscrypt* ]]
}

# Prints the four programs found in PATH, if they all fit.
from_path() {
    local program found=()
    for program in "${programs[@]}"; do
        found+=("$(type -P "$program")") || return 1
    done
    if ! { fits "${found[@]}" && has_release_tags "${found[0]}"; }; then
        say "the lnd, lncli, btcd and btcctl in PATH are not a release build of lnd $lnd_version with its btcd; not used"
        return 1
    fi
    printf '%s\n' "${found[@]}"
}

link_all() {
    local tmp=${!#}
    ln -s "${@:1:$#-1}" "$tmp/"
}

# Sets `toolchain`: the machine's Go if it is new enough, else the one that Go may fetch for itself.
choose_toolchain() {
    local have
    need go "lnd $lnd_version is built with Go $go_version or newer: https://go.dev/dl"
    have=$(cd / && GOTOOLCHAIN=local go version | sed -n 's/.*go\([0-9][0-9.]*\).*/\1/p')
    if version_at_least "$have" "$go_version"; then
        toolchain=local
    elif version_at_least "$have" 1.21 && [ "$(cd / && go env GOTOOLCHAIN)" != local ]; then
        say "Go $have is older than $go_version, which lnd $lnd_version needs; letting Go fetch that one"
        toolchain=go$go_version
    else
        die "lnd $lnd_version is built with Go $go_version or newer; found $have. Newer ones: https://go.dev/dl"
    fi
}

# Go with nothing of the machine's own settings that changes what is built; where modules come from stays the machine's.
# (An empty GOFLAGS would let the one of `go env -w` through.)
go_pinned() {
    GOFLAGS=-mod=readonly GOTOOLCHAIN=$toolchain GOWORK=off GO111MODULE=on CGO_ENABLED=0 \
        GOOS=$os GOARCH=$arch go -C "$here" "$@"
}

build() {
    local tmp=$1 log=$1/build.log
    choose_toolchain
    say "building lnd $lnd_version and its btcd ($variant) with Go, 4 minutes on 2 cores when nothing is cached"
    with_progress "building lnd" "$log" \
        go_pinned build -v -trimpath -ldflags "$ldflags" -tags "$tags" -o "$tmp/" "${packages[@]}"
    fits "${programs[@]/#/$tmp/}" || die "what was built does not say that it is lnd $lnd_version and its btcd"
    rm "$log"
    say "lnd is built, $(elapsed)"
}

cache=$(cache_dir)/nodes
if [ "$variant" = release ] && in_path=$(from_path); then
    mapfile -t in_path <<<"$in_path"
    dest=$cache/path-$(printf '%s\n' "${in_path[@]}" | sha256sum | cut -c 1-16)
    build_once "$dest" link_all "${in_path[@]}"
else
    os=linux
    arch=$(uname -m)
    case "$arch" in
        x86_64) arch=amd64 ;;
        aarch64) arch=arm64 ;;
        *) die "no build of lnd is known for $arch" ;;
    esac
    [ "$(uname -s)" = Linux ] || die "scale-lnd runs on Linux only"
    key=$(cat "$here/go.mod" "$here/go.sum" - <<<"$ldflags $tags ${packages[*]}" | sha256sum | cut -c 1-16)
    dest=$cache/lnd-$lnd_version-$variant-$os-$arch-$key
    build_once "$dest" build
fi
printf '%s\n' "$dest"
