#!/bin/bash
# Builds the static binaries for boxes, without a container engine: board/build.sh [TARGET…]
#
# Needs only what a Debian machine with Rust has, plus `make deps`. Everything else is fetched once and kept
# in the cache directory, nothing is installed:
#   * std for the targets: built from Debian's rust-src of exactly this rustc (rustup may not reach a server);
#   * the C compiler, musl, crt files and unwinder: zig, with cargo-zigbuild to speak to it, and CMake;
#   * emulators to run the result: Debian's qemu-user-static.
# The binaries go to target/dist/TARGET/watrunk. Each is checked: static, stripped, starts, no demo, small, and tells
# nothing of the machine that built it. Without a TARGET: the three that CI builds.
#
#   WATRUNK_CACHE=DIR   the cache, ~/.cache/watrunk if not set; safe to delete
#   WATRUNK_KEEP=1      the symbols stay in (to see what takes the room)
set -euo pipefail
umask 022

# Not zig 0.17.1: its libc's malloc spins where musl's sleeps, and our sound threads are real-time (docs/decisions/0005-cross.md).
zig=0.15.2 zigbuild=0.24.0 cmake=3.31.10
targets=(aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf x86_64-unknown-linux-musl)
largest=10000000                         # bytes, of one binary

here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
cd "$here"
[ $# = 0 ] || targets=("$@")
mkdir -p "${WATRUNK_CACHE:=$HOME/.cache/watrunk}/cross"
cache=$(readlink -f "$WATRUNK_CACHE/cross")
rust=$(rustc -vV | sed -n 's/^release: //p')
host=$(rustc -vV | sed -n 's/^host: //p')
std=$cache/std-$rust
library=$std/src/usr/src/rustc-$rust/library
began=$SECONDS

say() { echo "build.sh: $*" >&2; }
fail() { say "$@"; exit 1; }
lap() { say "$1: $((SECONDS - began)) s so far"; }

exec 8>"$cache/lock"
flock 8                                  # two builds at once would fetch everything twice

# 1. apt-get in a folder of its own: the machine's sources and packages stay as they are, the mirror is theirs.
apt=$cache/apt
debian() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg mirror
    [ -e "$apt/.complete" ] && return
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\?$') \
        || fail "apt on this machine has no Debian mirror to take packages from"
    rm -rf "$apt"
    mkdir -p "$apt/etc/apt.conf.d" "$apt/etc/preferences.d" "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/state/status"
    cat >"$apt/apt.conf" <<CONF
Dir "$apt/"; Dir::Etc "$apt/etc"; Dir::Etc::sourcelist "sources.list"; Dir::Etc::sourceparts "none";
Dir::Etc::trusted "/etc/apt/trusted.gpg"; Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
Dir::State "$apt/state"; Dir::State::status "$apt/state/status"; Dir::Cache "$apt/cache";
APT::Architecture "$(dpkg --print-architecture)"; APT::Sandbox::User "root";
Acquire::Languages "none"; Acquire::Retries "3"; Acquire::Check-Valid-Until "false";
CONF
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$mirror" bookworm "$key" "$mirror" trixie-backports >"$apt/etc/sources.list"
    APT_CONFIG=$apt/apt.conf apt-get update -qq
    touch "$apt/.complete"
}
# fetch PACKAGE[=VERSION|/SUITE] FOLDER [tar's words]: unpacks a Debian package, or what is named of it.
fetch() {
    local package=$1 folder=$2; shift 2
    mkdir -p "$folder" "$cache/deb"
    (cd "$cache/deb" && rm -f "${package%%[=/]*}"_*.deb && APT_CONFIG=$apt/apt.conf apt-get download -qq "$package")
    dpkg-deb --fsys-tarfile "$cache/deb/${package%%[=/]*}"_*.deb | tar -x -C "$folder" "$@"
    rm -f "$cache/deb/${package%%[=/]*}"_*.deb
}

# 2. std must be built from the compiler's own source.
source_of_std() {
    [ -e "$std/src/.complete" ] && return
    debian
    local version
    version=$(APT_CONFIG=$apt/apt.conf apt-cache madison rust-src | awk -v v="$rust+" 'index($3, v) == 1 { print $3; exit }')
    [ -n "$version" ] || fail "Debian has no rust-src $rust: docs/decisions/0005-cross.md says what to do then"
    rm -rf "$std/src"
    fetch "rust-src=$version" "$std/src" "./usr/src/rustc-$rust/library"
    touch "$std/src/.complete"
}

# 3. The emulators, by the names that binfmt and cargo's runner use.
emulators() {
    [ -x "$cache/bin/qemu-riscv64-static" ] && return
    debian
    fetch qemu-user-static/bookworm "$cache/bin.new" --strip-components=3 \
        ./usr/bin/qemu-aarch64-static ./usr/bin/qemu-arm-static ./usr/bin/qemu-riscv64-static
    rm -rf "$cache/bin" && mv "$cache/bin.new" "$cache/bin"
}

# 4. zig, cargo-zigbuild and CMake come as Python packages.
python_tools() {
    local venv=$cache/tools-$zig-$zigbuild-$cmake python
    tools=$venv/bin
    [ -e "$venv/.complete" ] && return
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import ensurepip, venv' 2>/dev/null && break
    done
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$tools/python" -m pip install -q --disable-pip-version-check --retries 5 \
        "ziglang==$zig" "cargo-zigbuild==$zigbuild" "cmake==$cmake" >&2
    touch "$venv/.complete"
}

( source_of_std; emulators ) & debs=$!
python_tools
wait "$debs"
lap "tools"

# Paths of this machine get names that are the same everywhere, or two machines would make two binaries.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
cargo_home=$(readlink -f "${CARGO_HOME:-$HOME/.cargo}") crates=
names="--remap-path-prefix=$library=/rust/library --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$cache=/cross"
# The folders of the registries, shorter: each place that may panic names its file. They are there once something was fetched.
cargo fetch -q --locked --target "$host"
for folder in "$cargo_home"/registry/src/*/; do
    [ ! -d "$folder" ] || crates+=" --remap-path-prefix=${folder%/}=/crates"
done
export PATH=$tools:$PATH ZIG_GLOBAL_CACHE_DIR=$cache/zig CARGO_ZIGBUILD_CACHE_DIR=$cache/zigbuild

# 5. std for one target, once, into a sysroot of its own.
std_for() {
    local target=$1 lib=$std/sysroot-3/lib/rustlib/$1/lib
    [ -e "$lib/.complete" ] && return
    mkdir -p "$std/empty"
    : >"$std/empty/lib.rs"
    printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[lib]\npath = "empty/lib.rs"\n[workspace]\n' >"$std/Cargo.toml"
    # cargo's -C metadata tells where the cache is, and every symbol of std is named after it. And what library/Cargo.toml
    # asks for two of the crates, which -Zbuild-std doesn't read.
    cat >"$std/rustc" <<'WRAP'
#!/bin/sh
for word; do
    shift
    case $word in metadata=*) word=metadata=$CARGO_PKG_NAME-$CARGO_PKG_VERSION ;; esac
    set -- "$@" "$word"
done
case " $* " in
*" --crate-name panic_abort "*) exec "$@" -Cpanic=abort ;;
*" --crate-name compiler_builtins "*) exec "$@" -Ccodegen-units=10000 ;;
esac
exec "$@"
WRAP
    chmod +x "$std/rustc"
    rm -rf "$lib" "$std/target"
    # RUSTC_BOOTSTRAP only here: the project itself is built by plain stable cargo.
    (cd "$std" && RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER=$std/rustc __CARGO_TESTS_ONLY_SRC_ROOT=$library CARGO_TARGET_DIR=$std/target \
        RUSTFLAGS="-Cembed-bitcode=yes $names" \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
        cargo build -q --release -Zbuild-std=std,panic_abort,panic_unwind,test,proc_macro \
        -Zbuild-std-features=panic-unwind,optimize_for_size --target "$target")
    mkdir -p "$lib"
    cp "$std/target/$target"/release/deps/*.rlib "$lib/"
    rm -rf "$lib"/libempty* "$std/target"
    touch "$lib/.complete"
    lap "std for $target"
}

# 6. How cargo and the C compiler build for one target, and what runs the result here.
environment() {
    local target=$1
    local name=${target//-/_}
    local upper=${name^^} cflags="-fomit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$cache=/cross"
    case $target in
        aarch64-*) runner=$cache/bin/qemu-aarch64-static ;;
        # Without NEON as the baseline libopus' NEON files don't compile. Every ARMv7 board since 2012 has it. And it
        # is presumed, as on aarch64: to detect it libopus reads /proc/cpuinfo, which the service's sandbox hides.
        armv7-*)
            runner=$cache/bin/qemu-arm-static
            cflags+=" -mcpu=generic+v7a+vfp3+neon+thumb2 -DOPUS_ARM_PRESUME_NEON -DOPUS_ARM_PRESUME_NEON_INTR"
            ;;
        # ARMv6 has none, but libopus' CMake believes every ARM compiler that knows the header.
        arm-*)
            runner=$cache/bin/qemu-arm-static
            mkdir -p "$cache/no-neon"
            echo '#error "ARMv6 has no NEON"' >"$cache/no-neon/arm_neon.h"
            cflags+=" -I$cache/no-neon"
            ;;
        riscv64gc-*) runner=$cache/bin/qemu-riscv64-static ;;
        *) runner= ;;
    esac
    [ "${target%%-*}" != "${host%%-*}" ] || runner=
    export "CFLAGS_$name=$cflags"
    [ -z "$runner" ] || export "CARGO_TARGET_${upper}_RUNNER=$runner"    # cargo refuses an empty one
    # -Clink-self-contained=no: the crt files are zig's, not those of a rustup target.
    # -Cforce-unwind-tables=no: no tables for functions that no panic can pass through; the others have theirs.
    export "CARGO_TARGET_${upper}_RUSTFLAGS=--sysroot $std/sysroot-3 -Clink-self-contained=no -Cforce-unwind-tables=no $names$crates"
    # In the cache, so that a fresh clone doesn't start from nothing.
    export CARGO_TARGET_DIR=$cache/target-$rust
    export OPUS_NO_PKG=1 OPUS_STATIC=1 CMAKE_POLICY_VERSION_MINIMUM=3.5
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER
}

# 7. A panic must end one call, not the process: a program that panics and goes on, built like the real one.
unwinds() {
    local target=$1 folder=$cache/unwinds said
    [ "${target%%-*}" = "${host%%-*}" ] || [ -n "$runner" ] || return 0
    mkdir -p "$folder"
    cat >"$folder/main.rs" <<'RUST'
fn main() {
    let caught = std::thread::spawn(|| {
        std::panic::catch_unwind(|| std::env::args().nth(9).expect("a panic on purpose")).is_err()
    });
    println!("caught {}", caught.join().unwrap_or(false));
}
RUST
    cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "unwinds"
version = "0.0.0"
edition = "2024"
[[bin]]
name = "unwinds"
path = "main.rs"
[profile.release]
lto = "fat"
codegen-units = 1
strip = true
panic = "unwind"
[workspace]
TOML
    (cd "$folder" && CARGO_TARGET_DIR=$folder/target cargo zigbuild -q --release --target "$target")
    said=$($runner "$folder/target/$target/release/unwinds" 2>/dev/null) || true
    [ "$said" = "caught true" ] || fail "$target: a panic is not caught: '$said'"
}

# 8. What must hold for every binary.
check() {
    local target=$1 binary=$2 kind size status library name
    kind=$(file -b "$binary")
    case $kind in *"statically linked"* | *"static-pie linked"*) ;; *) fail "$target is not static: $kind" ;; esac
    [ -n "${WATRUNK_KEEP:-}" ] || case $kind in *", stripped"*) ;; *) fail "$target is not stripped: $kind" ;; esac
    if [ "${target%%-*}" = "${host%%-*}" ] || [ -n "$runner" ]; then
        $runner "$binary" --version >&2 || fail "$target doesn't start"
        status=0
        $runner "$binary" demo >/dev/null 2>&1 || status=$?
        [ "$status" = 2 ] || fail "$target knows \`watrunk demo\` (exit $status): it must not be in a binary for boxes"
    fi
    # Debug information, which WATRUNK_KEEP leaves in, is full of paths.
    if [ -z "${WATRUNK_KEEP:-}" ] && grep -aqF -e "$cache" -e "$cargo_home" -e "$here/" -e "$HOME/" "$binary"; then fail "$target tells where it was built"; fi
    case $target in
        aarch64-* | armv7-*)
            # shellcheck disable=SC2012  # the newest: the cache may hold older ones
            library=$(ls -t "$CARGO_TARGET_DIR/$target"/release/build/audiopus_sys-*/out/lib/libopus.a | head -n 1)
            nm "$library" >"$cache/symbols" 2>/dev/null || fail "$target: no symbols in $library"
            for name in silk_NSQ_del_dec_neon celt_pitch_xcorr_float_neon; do
                grep -q " U $name\$" "$cache/symbols" || fail "$target: libopus doesn't call $name"
            done
            grep -q " U SILK_NSQ_DEL_DEC_IMPL" "$cache/symbols" && fail "$target: libopus looks for NEON at run time"
            ;;
    esac
    size=$(stat -c %s "$binary")
    [ -n "${WATRUNK_KEEP:-}" ] || [ "$size" -le $largest ] || fail "$target has $size bytes, at most $largest are allowed"
    printf '%-34s %9d bytes  sha256 %s\n' "$target" "$size" "$(sha256sum "$binary" | cut -d' ' -f1)"
}

mkdir -p target/dist
: >target/dist/commands                  # what `make cross-test` starts: target, emulator if any, binary
for target in "${targets[@]}"; do
    std_for "$target"
    environment "$target"
    unwinds "$target"
    # Without the default features there is no demo. --locked: what was tested is what is shipped.
    cargo-zigbuild rustc -q --locked --release --no-default-features --bin watrunk --target "$target" \
        ${WATRUNK_KEEP:+-- -Cstrip=none}
    mkdir -p "target/dist/$target"
    cp "$CARGO_TARGET_DIR/$target/release/watrunk" "target/dist/$target/watrunk.new"
    mv "target/dist/$target/watrunk.new" "target/dist/$target/watrunk"
    lap "$target"
    check "$target" "target/dist/$target/watrunk"
    printf '%s %s\n' "$target" "${runner:+${runner@Q} }${here@Q}/target/dist/$target/watrunk" >>target/dist/commands
done
