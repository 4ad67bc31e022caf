# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# A RAM disk over NBD: strata, nbdkit's memory plugin, and qemu-storage-daemon
# on a file in memory; all three filled with the same random bytes first.
#
#   strata nbd --unix S mem:1G
#   nbdkit -U S memory 1G
#   qemu-storage-daemon --blockdev driver=file,node-name=f,filename=F \
#     --blockdev driver=raw,node-name=d,file=f \
#     --nbd-server addr.type=unix,addr.path=S,max-connections=0 \
#     --export type=nbd,id=e,node-name=d,name=,writable=on
#   fio --ioengine=nbd --uri=... --rw=randread --bs=4k --iodepth=32 --numjobs=4
#
# CPU is the server's user and system time, divided by the I/Os that fio saw.
need fio nbdkit qemu-storage-daemon nbdcopy jq python3

uri() {
    echo "nbd+unix:///?socket=$work/$1.sock"
}

if ! $only_table; then
    folder image /dev/shm
    random_file "$image/disk"

    declare -A server
    start "$strata" nbd --unix "$work/strata.sock" "mem:$size"
    server[strata]=$pid
    start nbdkit -f -U "$work/nbdkit.sock" memory "$size"
    server[nbdkit]=$pid
    start qemu-storage-daemon \
        --blockdev "driver=file,node-name=f,filename=$image/disk" \
        --blockdev driver=raw,node-name=d,file=f \
        --nbd-server \
        "addr.type=unix,addr.path=$work/qsd.sock,max-connections=0" \
        --export type=nbd,id=e,node-name=d,name=,writable=on
    server[qsd]=$pid
    for rival in strata nbdkit qsd; do
        await nbdinfo --size "$(uri $rival)"
        if [[ $rival != qsd ]]; then
            nbdcopy --connections=1 "$image/disk" "$(uri $rival)"
        fi
    done
fi

each_row() {
    local rw depth jobs
    for rw in read write; do
        for depth in 1 32; do
            for jobs in 1 4; do
                row "$rw-4k-d$depth-c$jobs" "rand$rw" 4k "$depth" "$jobs"
            done
        done
        row "$rw-256k-d8-c1" "$rw" 256k 8 1
    done
}

measure() {
    local rival=$1 rw=$2 bs=$3 depth=$4 jobs=$5 before after line
    before=$(cpu_ticks "${server[$rival]}")
    line=$(fio_job --ioengine=nbd --uri="$(uri "$rival")" --rw="$rw" \
        --bs="$bs" --iodepth="$depth" --numjobs="$jobs") || return 1
    after=$(cpu_ticks "${server[$rival]}")
    [[ $line =~ (iops=[^ ]*)\ ios=([0-9]+) ]] || return 1
    echo "${BASH_REMATCH[1]} cpu=$(awk -v n="${BASH_REMATCH[2]}" \
        -v ns="$(((after - before) * 1000000000 / ticks))" \
        'BEGIN { printf "%.1f", ns / n }')"
}

race strata nbdkit qsd
table 'iops strata/nbdkit >= 1.2' 'iops strata/qsd >= 2 rows d32' \
    'iops strata/qsd rows d(1|8)-' 'cpu strata/nbdkit <= 0.7' \
    'cpu strata/qsd' 'iops strata' 'cpu strata'
