#!/bin/bash
# Puts the real SIP programs of the tests into a directory of their own: build-tree.sh DIR
#
# Asterisk, Kamailio, the baresip phone and SIPp; dnsmasq, which answers for the DNS; FFmpeg and SoX, which play recordings, and age,
# which opens them. Debian 12 has no Asterisk, the testing suite has one. The packages are unpacked into DIR and run from there by chroot; the machine's own packages
# stay as they are. Needs root (or sudo), and the package mirror that apt is set up for. Does nothing if DIR is
# already complete.
set -euo pipefail

dir=${1:?usage: build-tree.sh DIR}
suite=${PEERS_SUITE:-forky}
packages=asterisk,asterisk-config,libopus0,kamailio,baresip-core,sip-tester,dnsmasq-base,ffmpeg,sox,age
complete=.complete-4                     # raise the number when what the tree must hold changes

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

mkdir -p "$(dirname "$dir")"
dir=$(readlink -f "$(dirname "$dir")")/$(basename "$dir")
exec 9>"$dir.lock"
flock 9                                  # two runs at once: the second waits and finds it done
[ -e "$dir/$complete" ] && exit 0

# Everything happens in a second directory that gets the final name at the end,
# so a build that was cut off never looks like a finished one.
work=$dir.building
as_root rm -rf --one-file-system "$work" "$dir"
mkdir -p "$work/tools"
trap 'as_root rm -rf --one-file-system "$work"' EXIT

bootstrap=$(command -v mmdebstrap || true)
if [ -z "$bootstrap" ]; then
    ( cd "$work/tools"
      apt-get -qq download mmdebstrap >/dev/null 2>&1 || { as_root apt-get -qq update; apt-get -qq download mmdebstrap >/dev/null; }
      dpkg-deb -x mmdebstrap_*.deb . )
    bootstrap=$work/tools/usr/bin/mmdebstrap
fi

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\?$') \
    || { echo "build-tree: apt on this machine has no Debian mirror to take the SIP programs from" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# A mirror that is frozen in time serves a Release file past its date, hence Check-Valid-Until.
attempt() {
    as_root rm -rf --one-file-system "$work/tree"
    as_root "$bootstrap" --quiet --mode=root --variant=extract \
        --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
        --include="$packages" "$suite" "$work/tree" \
        "deb [signed-by=$keyring] $mirror $suite main" >"$dir.log" 2>&1 </dev/null
}
attempt || { echo "build-tree: first attempt failed, trying once more" >&2; attempt; } \
    || { tail -n 20 "$dir.log" >&2; echo "build-tree: could not unpack the SIP programs ($dir.log)" >&2; exit 1; }

# No maintainer script ran: make the links and directories that one would have made.
for d in lib lib64 bin sbin; do
    [ -e "$work/tree/$d" ] || as_root ln -s "usr/$d" "$work/tree/$d"
done
as_root mkdir -p "$work/tree/run/asterisk" "$work/tree/var/log/asterisk" "$work/tree/tmp"
as_root rm -rf "$work/tree/usr/share/doc" "$work/tree/usr/share/man" "$work/tree/var/cache/apt" "$work/tree/var/lib/apt/lists"
run() { as_root chroot "$work/tree" "$@" 2>&1 </dev/null; }
{ run /usr/sbin/asterisk -V && run /usr/sbin/kamailio -v | head -n 1 && run /usr/sbin/dnsmasq --version | head -n 1 && run /usr/bin/ffmpeg -version | head -n 1 && run /usr/bin/sox --version && run /usr/bin/age --version; } >"$work/version" \
    || { cat "$work/version" >&2; echo "build-tree: an unpacked program does not start" >&2; exit 1; }
as_root touch "$work/tree/$complete"
as_root mv "$work/tree" "$dir"
echo "build-tree: $(paste -sd ';' "$work/version") in $dir"
