#!/bin/bash
# Fuzzes whatever strangers may send: run.sh SECONDS [TARGET…]. The seconds are shared out among the targets, or, if
# they are 0, every target only reads its corpus again. What fails is kept in target/fuzz/found/, what was new in
# target/fuzz/grown/.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?how many seconds?}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for target in targets/*.rs; do targets+=("$(basename "$target" .rs)"); done

# What cargo-fuzz does, on the stable compiler: LLVM counts edges and shows comparisons to libFuzzer. With --target,
# so that build scripts and macros are not counted too.
coverage=(-sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table
    -sanitizer-coverage-trace-compares)
export RUSTFLAGS="-Cpasses=sancov-module ${coverage[*]/#/-Cllvm-args=}"
host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/../../target/fuzz
mkdir -p "$out"
out=$(cd "$out" && pwd)
cargo build --locked --quiet --release --target "$host" --target-dir "$out"

feed() {
    local target=$1 seconds=$2 log="$out/$1.log"
    local limit=(-max_total_time="$seconds")
    [ "$seconds" != 0 ] || limit=(-runs=0)
    mkdir -p "$out/grown/$target" "$out/found"
    [ ! -e "words/$target" ] || limit+=(-dict="words/$target")
    # An input may take five seconds and a gigabyte, not more: what is slow or large is found too.
    if "$out/$host/release/$target" "${limit[@]}" -max_len=8192 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$out/found/$target-" "$out/grown/$target" "corpus/$target" >"$log" 2>&1; then
        awk -v target="$target" '/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
            /number_of_executed_units/ { units = $2 } /average_exec_per_sec/ { rate = $2 } /new_units_added/ { new = $2 }
            END { printf "%-8s %9d inputs, %6d a second, %5d edges, %d new\n", target, units, rate, edges, new }' "$log"
    else
        tail -n 60 "$log"
        echo "fuzz: $target failed; the input is in target/fuzz/found/. Again: target/fuzz/$host/release/$target FILE"
        return 1
    fi
}
export -f feed
export out host
each=$((seconds * $(nproc) / ${#targets[@]}))
[ "$seconds" = 0 ] || [ "$each" -gt 0 ] || each=1
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euc "feed {} $each"
