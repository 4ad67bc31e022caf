# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# A file as a disk, beside fio's io_uring engine on the very same file, on a
# file system in memory and on that of the build directory; through the page
# cache and past it.
#
#   strata bench disk 'file:X;direct' --rw randread --bs 4K --iodepth 32
#   fio --ioengine=io_uring --registerfiles=1 --filename=X --direct=1 ...
need fio jq python3

if ! $only_table; then
    calibrate_fio
    folder memory /dev/shm
    folder medium "$results"
    random_file "$memory/disk"
    cp "$memory/disk" "$medium/disk"
    sync "$medium/disk"
fi

each_row() {
    local where way rw size_depth
    for where in tmpfs disk; do
        for way in buffered direct; do
            for rw in read write; do
                for size_depth in "4K 1" "4K 32" "256K 8"; do
                    row "$where-$way-$rw-${size_depth/ /-d}" \
                        "$where" "$way" "rand$rw" "$size_depth"
                done
            done
        done
    done
}

measure() {
    local rival=$1 path=$medium/disk option="" direct=0 rw=$4 bs=$5 depth=$6
    if [[ $2 == tmpfs ]]; then
        path=$memory/disk
    fi
    if [[ $3 == direct ]]; then
        option=";direct" direct=1
    fi
    if [[ $rival == strata ]]; then
        "$strata" bench disk "file:$path$option" --rw "$rw" --bs "$bs" \
            --iodepth "$depth" --runtime "$runtime" --json |
            jq -r '"iops=\(.iops) cpu=\(.cpu_ns_per_io)"'
    else
        fio_job --ioengine=io_uring --registerfiles=1 --filename="$path" \
            --direct="$direct" --rw="$rw" --bs="${bs,,}" --iodepth="$depth"
    fi
}

race strata fio
table 'iops strata/fio ~ 1.0' 'cpu strata/fio <= 1.05' 'iops strata' \
    'cpu strata'
