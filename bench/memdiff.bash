# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# Reads that fall through an empty RAM layer, beside the raw file: as Strata
# reads it and as fio does.
#
#   strata bench disk memdiff:file:X --rw randread --bs 4K --iodepth 32
#   strata bench disk file:X ...
#   fio --ioengine=io_uring --registerfiles=1 --filename=X ...
need fio jq python3

if ! $only_table; then
    calibrate_fio
    folder memory /dev/shm
    path=$memory/disk
    random_file "$path"
fi

each_row() {
    row read-4K-d1 4K 1
    row read-4K-d32 4K 32
    row read-256K-d8 256K 8
}

measure() {
    local rival=$1 bs=$2 depth=$3 spec
    case $rival in
    fio)
        fio_job --ioengine=io_uring --registerfiles=1 --filename="$path" \
            --rw=randread --bs="${bs,,}" --iodepth="$depth"
        return
        ;;
    memdiff) spec=memdiff:file:$path ;;
    *) spec=file:$path ;;
    esac
    "$strata" bench disk "$spec" --rw randread --bs "$bs" --iodepth "$depth" \
        --runtime "$runtime" --json |
        jq -r '"iops=\(.iops) cpu=\(.cpu_ns_per_io)"'
}

race memdiff file fio
table 'iops memdiff/fio ~ 1.0' 'cpu memdiff/fio <= 1.05' 'iops memdiff/file' \
    'cpu memdiff/file'
