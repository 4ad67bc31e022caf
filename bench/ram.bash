# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# Bytes of RAM per byte stored in a RAM disk, as the kernel counts them
# (resident pages of the process), see ram.c.
need python3
mib=${size%[MG]}
[[ $size == *G ]] && mib=$((mib * 1024))

each_row() {
    row "sequential-fill" sequential "$mib"
    row "random-4k-over-1T" random "$mib"
    row "lone-512-bytes-in-1T" lone 0
}

measure() {
    "$programs/ram" "$2" "$3"
}

rounds=1 # of two measurements: nothing here varies by chance
race strata
echo "percent_over: beyond the data and 4 MiB, in percent of the data"
table 'percent_over strata <= 2 rows (sequential|random)' \
    'over_bytes strata' 'left_after_unmap strata'
