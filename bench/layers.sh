#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Instructions, mallocs and nanoseconds per request through 0, 1, 4 and 8 empty
# decorators. Instructions are the difference of two callgrind runs, so that
# starting up does not count. Goal: at most 30 instructions a layer, 0 mallocs.
set -euo pipefail
layers=${1:-build/bench/layers}
ir() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$layers" "$1" \
        "$2" 2>&1 >/dev/null | sed -n 's/.*Collected : //p'
}
printf '%-8s %14s %14s %10s %8s\n' layers instructions per-layer ns mallocs
base=
for n in 0 1 4 8; do
    a=$(ir $n 20000)
    b=$(ir $n 120000)
    i=$(((b - a) / 1000))
    base=${base:-$i}
    read -r _ _ _ ns _ m < <("$layers" $n 3000000)
    per=-
    if ((n > 0)); then per=$(((i - base) / n)); fi
    printf '%-8s %14s %14s %10s %8s\n' "$n" "$((i / 100)).$((i % 100))" \
        "$per" "$ns" "$m" | sed "s/ $per / $(awk -v p="$per" \
        'BEGIN{if (p == "-") print p; else printf "%.2f", p / 100}') /"
done
