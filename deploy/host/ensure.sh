#!/usr/bin/env bash
# ensure.sh: prints a folder of programs with which the tests check what a new host boots from (deploy/host):
#   nft           of nftables; `unshare -rn` gives it a network of its own, so that it needs no privilege
#   cloud-schema  FILE  is `cloud-init schema --config-file FILE` of Debian's cloud-init
#   python        a Python
#   and shellcheck
# and makes sure that systemd-analyze, unshare, ip, mkfs.ext4 and blkid are there.
#
# They are packages of the Debian that this machine runs, unpacked into the user's cache folder and not installed: nothing of
# the system is changed, and no privilege is needed. Debian's mirrors keep one version of a package, so none is pinned.
# Progress is on stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/lib.sh
. "$here/../../.ci/lib.sh"

packages=(shellcheck libffi8 nftables libnftables1 libnftnl11 libmnl0 libjansson4 libxtables12 libgmp10 libedit2 libbsd0 libmd0 cloud-init)
what="the checks of what a new host boots from"

# Lists of packages of our own: those of the machine may be missing or old, and only root may renew them.
apt_get() {
    local tmp=$1
    shift
    apt-get -q -o Dir::State::Lists="$tmp/apt/lists" -o Dir::Cache="$tmp/apt/cache" -o Debug::NoLocking=1 \
        -o APT::Sandbox::User= -o Acquire::Retries=3 "$@"
}

install() {
    local tmp=$1 log=$1/install.log deb
    need apt-get "$what use packages of Debian."
    need dpkg-deb "$what use packages of Debian."
    need python3 "$what need Python, with venv and pip."
    python3 -c 'import venv, ensurepip' 2>/dev/null || die "Python's venv and pip are needed: Debian's python3-venv."
    say "loading nftables and cloud-init, once for this machine"
    mkdir -p "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial" "$tmp/debs" "$tmp/root" "$tmp/bin"
    cd "$tmp/debs"
    with_progress "loading lists of packages" "$log" apt_get "$tmp" update
    with_progress "loading packages" "$log" apt_get "$tmp" download "${packages[@]}"
    for deb in *.deb; do
        dpkg-deb -x "$deb" "$tmp/root"
    done
    cd /
    with_progress "making an environment for cloud-init" "$log" python3 -m venv "$tmp/venv"
    with_progress "installing what cloud-init needs" "$log" \
        "$tmp/venv/bin/python" -m pip install --disable-pip-version-check --requirement "$here/requirements.txt"
    rm -r "$log" "$tmp/apt" "$tmp/debs"
    ln -s ../venv/bin/python "$tmp/bin/python"
    wrapper "$tmp/bin/shellcheck" <<'EOF'
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(echo "$top"/root/usr/lib/*-linux-gnu)
exec "$top/root/usr/bin/shellcheck" "$@"
EOF
    wrapper "$tmp/bin/nft" <<'EOF'
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(echo "$top"/root/usr/lib/*-linux-gnu)
exec "$top/root/usr/sbin/nft" "$@"
EOF
    wrapper "$tmp/bin/cloud-schema" <<'EOF'
export PYTHONPATH=$top/root/usr/lib/python3/dist-packages
exec "$top/venv/bin/python" -W ignore -m cloudinit.config.schema --config-file "$@"
EOF
    "$tmp/bin/shellcheck" --version >/dev/null
    "$tmp/bin/nft" --version >&2
    say "they are there, $(elapsed)"
}

# wrapper FILE: a script of what is on stdin, which knows the folder `top` it is in.
wrapper() {
    cat - /dev/fd/3 >"$1" 3<&0 <<'EOF'
#!/usr/bin/env bash
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
EOF
    chmod +x "$1"
}

export PATH=$PATH:/usr/sbin:/sbin
need systemd-analyze "$what need it: Debian's systemd."
need unshare "$what need it: Debian's util-linux."
need ip "$what need it: Debian's iproute2."
need mkfs.ext4 "$what need it: Debian's e2fsprogs."
need blkid "$what need it: Debian's util-linux."
unshare -rn true 2>/dev/null || die "$what need user namespaces, which this machine does not allow."
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
key=$(cat "$here/requirements.txt" - <<<"${packages[*]}" | sha256sum | cut -c 1-16)
dest=$(cache_dir)/host-checks/${codename:-unknown}-$(uname -m)-$key
build_once "$dest" install
printf '%s\n' "$dest/bin"
