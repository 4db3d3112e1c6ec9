#!/bin/bash
# Makes the Debian package of one target out of a finished binary: board/deb/build.sh TARGET [BINARY]
#
# BINARY is target/dist/TARGET/watrunk if not given (board/build.sh makes it). The package goes to target/deb/.
# The man page and the completions are printed by the binary itself, under qemu-user where it is of another kind.
set -euo pipefail
umask 022

target=${1:?usage: board/deb/build.sh TARGET [BINARY]}
cd "$(dirname "$(readlink -f "$0")")/../.."
binary=${2:-target/dist/$target/watrunk}
cargo_deb=3.8.0
: "${WATRUNK_CACHE:=$HOME/.cache/watrunk}"
fail() { echo "deb/build.sh: $*" >&2; exit 1; }

[ -x "$binary" ] || fail "$binary is missing: board/build.sh $target makes it"
case $target in
    x86_64-*) arch=amd64 boards='generic-x86_64' ;;
    aarch64-*) arch=arm64 boards='pi3 pi4 pi5 cm4 zero2 qemu generic-aarch64' ;;
    armv7-*) arch=armhf boards='generic-armv7' ;;
    *) fail "no Debian architecture is known for $target" ;;
esac

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Two builds of one commit are the same file.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export SOURCE_DATE_EPOCH

# The emulator that the binary needs here, if any.
emulator=()
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    case $arch in amd64) name=x86_64 ;; arm64) name=aarch64 ;; armhf) name=arm ;; esac
    found=$(command -v "qemu-$name-static" || echo "$WATRUNK_CACHE/cross/bin/qemu-$name-static")
    [ -x "$found" ] || fail "qemu-$name-static is missing: board/build.sh $target fetches it"
    emulator=("$found")
fi
run() { ${emulator[@]+"${emulator[@]}"} "$binary" "$@"; }

tool=$WATRUNK_CACHE/cargo-deb-$cargo_deb
(
    flock 9
    [ -x "$tool/bin/cargo-deb" ] || cargo install -q --locked --no-default-features --root "$tool" "cargo-deb@$cargo_deb"
) 9>"$WATRUNK_CACHE/cargo-deb.lock"

# Everything that is not in the repository as it is packed, in one place with the names that Cargo.toml says.
stage=target/deb/stage
rm -rf "$stage"
mkdir -p "$stage/boards"
install -m 755 "$binary" "$stage/watrunk"
run man >"$stage/watrunk.1"
run completions bash >"$stage/watrunk.bash"
run completions zsh >"$stage/_watrunk"
run completions fish >"$stage/watrunk.fish"
run config example >"$stage/watrunk.toml"
for board in $boards; do install -m 644 "board/$board.toml" "$stage/boards/"; done
# What is linked into the binary, each with its version and licence.
{
    echo "Crates that are linked into watrunk, with their versions and licences. The texts are in their sources."
    echo "libopus (BSD-3-Clause) and SQLite (public domain) are in audiopus_sys and libsqlite3-sys, musl (MIT) is the C library."
    echo
    cargo tree --locked --no-default-features --target "$target" -e normal --prefix none --format '{p}  {l}' \
        | sed 's/ ([^)]*)//g' | grep -v '^watrunk ' | sort -u
} >"$stage/crates.txt"
printf '%s\n' "watrunk ($version-1) stable; urgency=medium" '' '  * What changed is in changelog.gz beside this file.' '' \
    " -- the watrunk authors <maintainers@watrunk.invalid>  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" >"$stage/changelog"
gzip -9n <CHANGELOG.md >"$stage/changelog.gz"
# The binary must be of the version that the package says.
[ "$(run --version)" = "watrunk $version" ] || fail "$binary is $(run --version), not $version"

"$tool/bin/cargo-deb" deb -q --no-build --no-strip --no-dbgsym --target "$target" \
    --output "target/deb/watrunk_${version}-1_$arch.deb"
