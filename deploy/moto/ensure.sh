#!/usr/bin/env bash
# ensure.sh: prints the path of a Python that has moto, which plays EC2 in the tests, in the version of requirements.txt:
#   PYTHON -m moto.server -H 127.0.0.1 -p PORT
#
# It is installed once, into an environment of its own in the user's cache folder, from wherever pip gets its packages.
# Progress is on stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/lib.sh
. "$here/../../.ci/lib.sh"

python_version=3.11
moto_version=$(sed -n 's/^moto==//p' "$here/requirements.txt")

need_python() {
    local have
    need python3 "moto $moto_version, which plays EC2 in the tests, runs on Python $python_version or newer, with venv and pip."
    have=$(python3 -c "import platform; print(platform.python_version())") || die "python3 is there and does not run"
    version_at_least "$have" "$python_version" || die "Python $python_version or newer is needed; found $have."
    python3 -c 'import venv, ensurepip' 2>/dev/null || die "Python's venv and pip are needed: Debian's python3-venv."
}

install() {
    local tmp=$1 log=$1/install.log
    need_python
    say "installing moto $moto_version, once for this machine"
    with_progress "making an environment for moto" "$log" python3 -m venv "$tmp"
    with_progress "installing moto" "$log" \
        "$tmp/bin/python" -m pip install --disable-pip-version-check --requirement "$here/requirements.txt"
    rm "$log"
    say "moto is installed, $(elapsed)"
}

key=$(sha256sum "$here/requirements.txt" | cut -c 1-16)
dest=$(cache_dir)/moto/moto-$moto_version-$key
build_once "$dest" install
printf '%s\n' "$dest/bin/python"
