# shellcheck shell=bash
# What the build scripts share: messages, checks for tools, and a cache outside the tree in which a thing is built once.
# To be sourced by bash scripts that run with `set -euo pipefail`.

# A message for the person. Always on stderr: some scripts answer on stdout.
say() { printf 'scale-lnd: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# The folder for what is built from pinned sources and outlives the clone.
cache_dir() {
    if [ -n "${XDG_CACHE_HOME:-}" ]; then
        printf '%s/scale-lnd\n' "$XDG_CACHE_HOME"
    elif [ -n "${HOME:-}" ]; then
        printf '%s/.cache/scale-lnd\n' "$HOME"
    else
        die "neither XDG_CACHE_HOME nor HOME is set: where may the cache be?"
    fi
}

# version_at_least HAVE WANT: compares dotted versions (1.25.10 is more than 1.25.9).
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# need TOOL HOW: ends with a message when the program TOOL is not there; HOW says how to get it.
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is needed and was not found. $2"; }

elapsed() { printf '%d:%02d min' $((SECONDS / 60)) $((SECONDS % 60)); }

# Reads from a pipe that the command's shell holds open, so that it ends by itself however that shell ends.
tick() {
    local label=$1 log=$2 code
    while true; do
        code=0
        read -rt 10 _ || code=$?
        [ "$code" -gt 128 ] || return 0 # over 128: nothing for 10 s; else end of file
        say "$label, $(elapsed): $(tail -n 1 "$log" | tr -cd '[:print:]' | cut -c 1-100)"
    done
}

# with_progress LABEL LOG COMMAND...: runs COMMAND with its output in LOG and says every 10 s how far it is. The command
# stays in the foreground, where Ctrl-C reaches it. When it fails, the end of LOG is shown.
with_progress() {
    local label=$1 log=$2 status=0 ticker
    shift 2
    : >"$log"
    exec {ticker}> >(tick "$label" "$log")
    "$@" >"$log" 2>&1 </dev/null {ticker}>&- || status=$?
    exec {ticker}>&-
    [ "$status" -eq 0 ] && return
    tail -n 30 "$log" >&2
    say "$label failed after $(elapsed); the lines above are the end of its output"
    return "$status"
}

# build_once DEST FUNCTION ARGS...: makes the folder DEST by calling FUNCTION ARGS... TMP, which fills the folder TMP; TMP is
# then renamed to DEST, so DEST is complete whenever it is there. Of commands that race one builds and the others wait.
build_once() {
    local dest=$1 lock_fd
    shift
    [ ! -d "$dest" ] || return 0
    need flock "It comes with util-linux."
    mkdir -p "$(dirname "$dest")"
    exec {lock_fd}>"$dest.lock"
    if ! flock -n "$lock_fd"; then
        say "another command is building $(basename "$dest"); waiting for it"
        flock "$lock_fd"
    fi
    if [ ! -d "$dest" ]; then
        rm -rf "$dest".tmp.* # of a build that was killed: whoever holds the lock is alone
        build_tmp=$dest.tmp.$$
        trap 'rm -rf "$build_tmp"' EXIT
        mkdir "$build_tmp"
        # What FUNCTION starts must not keep the lock if it should outlive this shell.
        "$@" "$build_tmp" {lock_fd}>&-
        mv -T "$build_tmp" "$dest"
        trap - EXIT
    fi
    exec {lock_fd}>&-
}
