# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# Instructions per request do not vary, so they are counted once (layers.sh).
need valgrind

result=$results/layers.txt
mkdir -p "$results"
if $fresh || ! [[ -s $result && $result -nt $programs/layers ]]; then
    if $only_table; then
        echo "nothing was measured yet"
        exit 0
    fi
    bench/layers.sh "$programs/layers" >"$work/layers"
    mv "$work/layers" "$result"
fi
cat "$result"
echo
awk 'NR > 2 && ($3 > 30 || $5 > 0) { bad = 1 }
    END { print "goal: at most 30 instructions a layer, 0 mallocs: " \
        (bad ? "missed" : "met") }' "$result"
