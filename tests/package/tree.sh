#!/bin/bash
# Makes a small Debian that boots: tree.sh DIR [ARCHITECTURE]. Does nothing if DIR is already complete. Needs root.
#
# Debian's packages come from the mirror that apt on this machine is set up for; the machine itself stays as it is. A
# tree of another architecture is set up by its own programs, under an emulator: binfmt.sh must have been there before.
set -euo pipefail
dir=${1:?usage: tree.sh DIR [ARCHITECTURE]}
arch=${2:-$(dpkg --print-architecture)}
suite=bookworm
packages=systemd,systemd-sysv
complete=.complete-1                     # raise the number when what the tree must hold changes

mkdir -p "$(dirname "$dir")"
dir=$(readlink -f "$(dirname "$dir")")/$(basename "$dir")
exec 9>"$dir.lock"
flock 9
[ -e "$dir/$complete" ] && exit 0
work=$dir.building
rm -rf --one-file-system "$work" "$dir"
mkdir -p "$work/tools"
trap 'rm -rf --one-file-system "$work"' EXIT

bootstrap=$(command -v mmdebstrap || true)
if [ -z "$bootstrap" ]; then
    ( cd "$work/tools"
      apt-get -qq download mmdebstrap >/dev/null 2>&1 || { apt-get -qq update; apt-get -qq download mmdebstrap >/dev/null; }
      dpkg-deb -x mmdebstrap_*.deb . )
    bootstrap=$work/tools/usr/bin/mmdebstrap
fi
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\?$') \
    || { echo "tree.sh: apt on this machine has no Debian mirror" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
attempt() {
    rm -rf --one-file-system "$work/tree"
    "$bootstrap" --quiet --mode=root --variant=minbase --architectures="$arch" --skip=check/qemu \
        --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
        --include="$packages" "$suite" "$work/tree" \
        "deb [signed-by=$keyring] $mirror $suite main" >"$dir.log" 2>&1 </dev/null
}
attempt || { echo "tree.sh: first attempt failed, trying once more" >&2; attempt; } \
    || { tail -n 20 "$dir.log" >&2; echo "tree.sh: no tree ($dir.log)" >&2; exit 1; }
rm -rf "$work/tree/var/cache/apt" "$work/tree/var/lib/apt/lists"
touch "$work/tree/$complete"
mv "$work/tree" "$dir"
