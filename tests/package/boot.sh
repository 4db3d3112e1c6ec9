#!/bin/bash
# Boots a Debian tree with systemd as PID 1, in namespaces of its own: boot.sh TREE
#
# No container engine and no systemd on the host are needed, but root is. The network is that of the caller. It stays
# in the foreground; when it is killed, everything in it goes too.
set -eu
tree=$(readlink -f "${1:?usage: boot.sh TREE}")
exec unshare --pid --fork --mount --uts --ipc --cgroup --kill-child bash -euc '
    mount --make-rprivate /
    mount --bind "$1" "$1"
    cd "$1"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
    mkdir -p dev/pts dev/shm .old
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    mount -t tmpfs tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    # Where the host has the older hierarchy the controllers are taken: limits of memory and tasks do not bite here.
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    pivot_root . .old
    umount -l /.old
    # As systemd does itself outside of containers: credentials are mounted by a child and must be seen by all.
    mount --make-rshared /
    exec env -i container=oci PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb /lib/systemd/systemd --system --log-target=journal
' bash "$tree"
