#!/bin/bash
# Makes the Debian trees that the tests copy, if they are not there yet: trees.sh CACHE. Needs root and a network.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cache=${1:?usage: trees.sh CACHE}
"$here/tree.sh" "$cache/box"
trap '"$here/binfmt.sh" off' EXIT
"$here/binfmt.sh" on "$cache/cross/bin/qemu-aarch64-static"
"$here/tree.sh" "$cache/box-arm64" arm64
