#!/bin/bash
# Makes an EC2 instance a host, on Amazon Linux 2023 or Debian 12: the agent's user and one for each slot, the data volume, the
# programs, the firewall. Run by scale-lnd-boot.service at every boot before the agent; all of it may be repeated. Whatever
# it cannot do for certain it does not do: it ends, and the agent is not started. What it says is in the journal and on the
# instance's console.
#
# It comes with the user data (src/compute/user_data.rs), without the lines that are comments. No value of the configuration
# is in its text: the programs, and the number of slots, are in files of their own.
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022

etc=/etc/scale-lnd
data=/var/lib/scale-lnd
store=/opt/scale-lnd
bin=/usr/local/bin
fstab=/etc/fstab
release=/etc/os-release
run=/run/scale-lnd
# The file system's label. Also of one that was made by an earlier boot, or for an earlier instance.
label=scale-lnd
# The numbers are the same on all instances, since they are on the data volume, and in the firewall's rules. Slot n's is `first`
# and n (src/lndserver/config.rs).
id=8082 first=8100

say() { printf 'scale-lnd-boot: %s\n' "$*"; }

die() {
    say "$*" >&2
    exit 1
}

main() {
    packages
    accounts
    volume
    programs
    network
    say "ready"
}

# What may be missing in an image of either distribution.
packages() {
    local wanted=() os
    command -v nft >/dev/null || wanted+=(nftables)
    command -v mkfs.ext4 >/dev/null || wanted+=(e2fsprogs)
    command -v curl >/dev/null || wanted+=(curl)
    command -v tar >/dev/null || wanted+=(tar)
    command -v cmp >/dev/null || wanted+=(diffutils)
    # What lets the agent start its lnds' units.
    command -v pkcheck >/dev/null || wanted+=(polkit)
    [ "${#wanted[@]}" -gt 0 ] || return 0
    os=$(sed -n 's/^ID=//p' "$release" | tr -d '"')
    say "installing ${wanted[*]}"
    for _ in {1..30}; do
        case "$os" in
            debian) apt_install "${wanted[@]/%polkit/polkitd}" && return 0 ;;
            amzn) dnf -qy install "${wanted[@]}" && return 0 ;;
            *) die "this is neither Debian nor Amazon Linux: $os" ;;
        esac
        sleep 10
    done
    die "cannot install ${wanted[*]}"
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update &&
        apt-get -qqy -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
}

# The agent is of each slot's group, and nobody else is.
accounts() {
    local slot slots groups=()
    account scale-lnd "$id"
    slots=$(<"$etc/slots")
    for ((slot = 0; slot < slots; slot++)); do
        account "scale-lnd-$slot" $((first + slot))
        groups+=("scale-lnd-$slot")
    done
    usermod --append --groups "$(IFS=,; echo "${groups[*]}")" scale-lnd
}

account() {
    getent group "$1" >/dev/null || groupadd --system --gid "$2" "$1"
    getent passwd "$1" >/dev/null ||
        useradd --system --uid "$2" --gid "$2" --no-create-home --home-dir "$data" --shell /usr/sbin/nologin "$1"
    [ "$(id -u "$1") $(id -g "$1")" = "$2 $2" ] || die "the user $1 is there and is not $2"
}

# From the second boot on fstab knows the volume, by the UUID of its file system: no other is ever mounted.
volume() {
    local disk uuid
    if ! grep -q "^UUID=[^ ]* $data " "$fstab"; then
        disk=$(await_disk)
        file_system "$disk"
        uuid=$(blkid --probe --output value --match-tag UUID "$disk")
        [[ $uuid =~ ^[0-9a-f-]{36}$ ]] || die "the file system of $disk has no UUID"
        remember "$uuid"
        systemctl daemon-reload
    fi
    # Nobody but root can write where the volume is not mounted.
    install -d -m 0755 "$data"
    mountpoint -q "$data" || mount "$data" || die "the data volume cannot be mounted"
    chown "$id:$id" "$data"
    chmod 0700 "$data"
}

# nofail: a volume that is missing must not keep the machine from booting, so that a person can look at it. The agent's unit
# asks for the mount by itself.
remember() {
    cp -p "$fstab" "$fstab.scale-lnd"
    printf '\nUUID=%s %s ext4 noatime,nodev,nosuid,nofail,x-systemd.device-timeout=90s 0 2\n' "$1" "$data" \
        >>"$fstab.scale-lnd"
    sync "$fstab.scale-lnd"
    mv "$fstab.scale-lnd" "$fstab"
}

# The disk of the data volume: the only EBS volume on which nothing is mounted and that has no partitions. That of a host that
# is recovered is attached once the instance runs, when a master comes to it.
await_disk() {
    local found try
    for try in {1..300}; do
        found=$(lsblk -nro NAME,TYPE,PKNAME,MOUNTPOINT,SERIAL,MODEL | free_volumes)
        [ -z "$found" ] || break
        [ "$try" = 300 ] || sleep 2
    done
    case "$found" in
        '') die "there is no data volume: the launch template has none, or this is no Nitro instance" ;;
        *$'\n'*) die "which is the data volume? $(tr '\n' ' ' <<<"$found")" ;;
    esac
    printf '%s\n' "$found"
}

# Of what lsblk says. An EBS volume's NVMe serial number is its id; disks of the instance itself have another model.
free_volumes() {
    awk -F '[ ]' '
        $2 == "disk" && $4 == "" && $5 ~ /^vol[0-9a-f]+$/ && /Amazon.*Elastic.*Block.*Store/ { volumes[$1] }
        $3 != "" { used[$3] }
        END { for (disk in volumes) if (!(disk in used)) print "/dev/" disk }'
}

# The disk has our file system, or gets it if it is blank; every other one is left alone.
file_system() {
    if [ "$(tag TYPE "$1")" = ext4 ] && [ "$(tag LABEL "$1")" = "$label" ]; then
        say "$1 has our file system"
    elif is_blank "$1"; then
        say "$1 is blank; making a file system"
        mkfs.ext4 -q -L "$label" -m 1 "$1"
    else
        die "$1 is not blank and has no file system of ours; it is left alone"
    fi
}

tag() { blkid --probe --output value --match-tag "$1" "$2" || true; }

# Whether a disk is as EBS makes one: blkid finds nothing (2; every other answer is something, or none), nor does wipefs, and
# all is zero where file systems, volume managers and partition tables begin and have their first copies.
is_blank() {
    local status=0 signatures
    blkid --probe "$1" >/dev/null || status=$?
    [ "$status" = 2 ] || return 1
    signatures=$(wipefs --no-act "$1") || return 1
    [ -z "$signatures" ] || return 1
    cmp --silent --bytes=268435456 "$1" /dev/zero
}

# Each line: name, machine, SHA-256, URL.
programs() {
    local name machine sha256 url
    install -d -m 0755 "$store"
    rm -rf "$store"/tmp.*
    while read -r name machine sha256 url; do
        if [ "$machine" = "$(uname -m)" ]; then
            program "$name" "$sha256" "$url"
        fi
    done <"$etc/programs"
    for name in scale-lnd lnd; do
        [ -x "$bin/$name" ] || die "there is no $name for $(uname -m)"
    done
}

# One that is there already, with this SHA-256, is not loaded again.
program() {
    local name=$1 sha256=$2 url=$3 tmp made=$store/$1-$2
    if [ ! -d "$made" ]; then
        say "loading $name from $url"
        tmp=$(mktemp -d "$store/tmp.XXXXXX")
        curl --fail --silent --show-error --location --proto =https --proto-redir =https --globoff \
            --connect-timeout 20 --max-time 900 --retry 20 --retry-delay 5 --retry-all-errors \
            --output "$tmp/file" --url "$url" || die "$name cannot be loaded"
        sha256sum --check --status <<<"$sha256  $tmp/file" || die "$name from $url does not have the SHA-256 $sha256"
        install -d -m 0755 "$tmp/made"
        case "$url" in
            *.tar.gz | *.tgz) unpack "$name" "$tmp/file" >"$tmp/made/$name" ;;
            *) mv "$tmp/file" "$tmp/made/$name" ;;
        esac
        chmod 0755 "$tmp/made/$name"
        sync "$tmp/made/$name"
        mv -T "$tmp/made" "$made"
        rm -r "$tmp"
    fi
    ln -sfn "$made/$name" "$bin/$name"
}

# The only file of that name in an archive.
unpack() {
    local member
    member=$(tar -tzf "$2" | grep -E "(^|/)$1\$") || die "there is no $1 in its archive"
    [[ $member != *$'\n'* ]] || die "there is more than one $1 in its archive"
    tar -xzOf "$2" "$member"
}

network() {
    local address
    nft --file "$etc/firewall.nft"
    # Of documentation's own network: nothing is sent there, the route says which address would be used.
    address=$(ip -4 -oneline route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p')
    [ -n "$address" ] || die "this machine has no IPv4 address"
    install -d -m 0755 "$run"
    printf 'SCALE_LND_AGENT_LISTEN=%s:8082\n' "$address" >"$run/agent.env"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    main
fi
