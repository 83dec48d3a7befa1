#!/bin/bash
# machine.sh ROOT FILES DATA SCALE_LND LND: boots a machine in namespaces of its own, with the systemd, D-Bus and polkit of the
# machine it runs on and a file system of its own, in which nothing but /usr is that machine's. It shares the network. ROOT is
# an empty folder, where the machine's file system is, seen from inside only. FILES are put into it; DATA is its data volume.
# It is on until it is killed or shut down, and ends with all its processes.
#
# machine.sh able: whether that can be done here; else it says why not.
set -euo pipefail

able() {
    local path
    [ "$(id -u)" = 0 ] || { echo "only root can"; return 1; }
    for path in /lib/systemd/systemd /usr/bin/systemctl /usr/bin/dbus-daemon /usr/lib/polkit-1/polkitd /usr/bin/nsenter \
        /usr/bin/setpriv /usr/bin/flock /usr/sbin/useradd; do
        [ -x "$path" ] || { echo "there is no $path"; return 1; }
    done
    [ -s /etc/ssl/certs/ca-certificates.crt ] || { echo "there are no certificates of authorities"; return 1; }
    unshare --pid --fork --mount --cgroup --uts --ipc --propagation private \
        mount -t tmpfs tmpfs /mnt 2>&1 || { echo "namespaces and mounts are not allowed"; return 1; }
    [ -n "$(find /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/unified/cgroup.procs -writable 2>/dev/null)" ] ||
        { echo "control groups cannot be made"; return 1; }
}

if [ "$1" = able ]; then
    able
    exit
fi

if [ -z "${SCALE_LND_MACHINE:-}" ]; then
    # Its control groups are below one of its own.
    above=/sys/fs/cgroup
    [ ! -d "$above/unified" ] || above=$above/unified
    # Of machines that were killed: one that is in use cannot be removed.
    for old in "$above"/scale-lnd-test-*; do
        [ ! -d "$old" ] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    mkdir "$above/scale-lnd-test-$$"
    echo $$ >"$above/scale-lnd-test-$$/cgroup.procs"
    SCALE_LND_MACHINE=1 exec unshare --pid --fork --kill-child --mount --cgroup --uts --ipc --propagation private \
        bash "${BASH_SOURCE[0]}" "$@"
fi

root=$1 files=$2 data=$3
mount -t tmpfs -o mode=0755 tmpfs "$root"
mkdir -p "$root"/{dev,etc/systemd/system,etc/polkit-1/rules.d,proc,root,run,sys,tmp,usr,var/{lib/scale-lnd,tmp}}
chmod 1777 "$root"/tmp "$root"/var/tmp
ln -s /run "$root/var/run"
mount --bind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
for link in bin sbin lib lib64 lib32 libx32; do
    [ ! -L "/$link" ] || cp -P "/$link" "$root/"
done
mount -t tmpfs -o mode=0755 tmpfs "$root/usr/local"
mkdir "$root/usr/local/bin" "$root/usr/local/lib"
for program in "$4" "$5"; do
    touch "$root/usr/local/bin/$(basename "$program")"
    mount --bind "$program" "$root/usr/local/bin/$(basename "$program")"
done
mount --bind "$data" "$root/var/lib/scale-lnd"
mount -o remount,bind,nodev,nosuid "$root/var/lib/scale-lnd"

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
messagebus:x:100:100::/nonexistent:/usr/sbin/nologin
polkitd:x:101:101::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
END
printf '%s\n' root:x:0: messagebus:x:100: polkitd:x:101: nogroup:x:65534: >"$root/etc/group"
printf '%s\n' 'passwd: files' 'group: files' 'shadow: files' 'hosts: files' >"$root/etc/nsswitch.conf"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
cp /etc/ld.so.cache "$root/etc/"
mkdir -p "$root/etc/ssl/certs"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for folder in etc usr/local; do
    [ ! -d "$files/$folder" ] || cp -a "$files/$folder/." "$root/$folder/"
done
touch "$root/etc/fstab" "$root/etc/machine-id"
# What machines do when they boot is not to be done here; the journal is of use.
for unit in "$root"/usr/lib/systemd/system/{sysinit,local-fs,multi-user,timers,sockets}.target.wants/* systemd-logind.service \
    systemd-journald-audit.socket systemd-networkd.service; do
    case "$(basename "$unit")" in
        systemd-journald.service | systemd-journald.socket | systemd-journald-dev-log.socket | dbus.socket | dbus.service) ;;
        *) ln -sf /dev/null "$root/etc/systemd/system/$(basename "$unit")" ;;
    esac
done
cat >"$root/etc/systemd/system/machine.target" <<'END'
[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
END

# A mount of its own, or systemd would mount the kernel's.
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root"/dev/{mqueue,pts,shm}
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,mode=0620,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
cd "$root"
mkdir old
pivot_root . old
umount --lazy /old
rmdir /old
# As systemd does it where there is no container. Without it no credential reaches a unit.
mount --make-rshared /
exec env -i container=scale-lnd PATH=/usr/sbin:/usr/bin LC_ALL=C \
    /lib/systemd/systemd --system --unit=machine.target --log-target=journal --show-status=no
