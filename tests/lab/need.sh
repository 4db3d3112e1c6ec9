#!/bin/bash
# Installs what a machine lacks to build (need.sh build), fuzz (fuzz), cross-compile (cross), package, test (test) watrunk, and to test it
# on an emulated board (machine): Debian's own packages, and only those that are missing. Says nothing when there is nothing to do.
set -euo pipefail

lacking=()
need() { local package=$1; shift; "$@" >/dev/null 2>&1 || lacking+=("$package"); }
has() { command -v "$1"; }
python() { for p in python3 /usr/bin/python3; do "$p" -c 'import sys, ensurepip, venv; assert sys.version_info >= (3, 11)' && return; done; return 1; }

for purpose in "$@"; do
    case $purpose in
        build)
            need cmake has cmake
            need gcc has cc
            need make has make
            ;;
        fuzz)
            need g++ has c++
            ;;
        test)
            need python3-venv python
            need gcc has cc
            need iproute2 has ip
            need perl perl -MGetopt::Long -MPod::Usage -MIO::Select -e1
            need libgomp1 sh -c 'ls /usr/lib/*/libgomp.so.1'
            need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
            ;;
        cross)
            need file has file
            need python3-venv python
            need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
            ;;
        package)
            need lintian has lintian
            need binutils has readelf
            ;;
        machine)
            need qemu-system-arm has qemu-system-aarch64
            need e2fsprogs has mke2fs
            ;;
        *) echo "need.sh: build, cross, fuzz, package, test or machine, not '$purpose'" >&2; exit 2 ;;
    esac
done
[ ${#lacking[@]} = 0 ] && exit 0

echo "need.sh: installing ${lacking[*]}"
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
command -v apt-get >/dev/null || { echo "need.sh: no apt here, please install: ${lacking[*]}" >&2; exit 1; }
install() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${lacking[@]}"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The package lists of a new machine are empty, those of an old one out of date: try, refresh, try again.
install >"$log" 2>&1 </dev/null || { "${root[@]}" apt-get -qq update && install; } >"$log" 2>&1 </dev/null \
    || { cat "$log" >&2; echo "need.sh: could not install ${lacking[*]}" >&2; exit 1; }
