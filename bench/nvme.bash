# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# A RAM disk behind an NVMe controller, by vfio-user, beside the same bytes in a
# file in memory behind qemu-storage-daemon's vhost-user-blk, in three ways:
# `sleep`, neither side polls; `poll`, both do for up to 32 us (the daemon's
# default); `spin`, our loop never sleeps and doorbells are mapped, the daemon
# is that of `poll`, and both clients poll for 1 ms. Random I/O of 512 bytes
# and 4 KiB, sequential I/O of 128 KiB.
#
#   strata serve --threads 1 --poll-us 0|32|always
#     --nvme-pci id=n,vfio-user=S[,doorbells=mapped] --disk mem:1G,on=n
#   strata bench vfio-user S --rw randread --bs 512 --iodepth 32 --queues 1
#     --poll-us 0|32|1000
#   qemu-storage-daemon --object iothread,id=t,poll-max-ns=0|32000
#     --blockdev driver=file,node-name=f,filename=F
#     --blockdev driver=raw,node-name=d,file=f
#     --export type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path=S,
#       writable=on,num-queues=2,iothread=t
#   vhost_blk S randread 512 32 1 2 0|32|1000        (bench/vhost_blk.c)
#
# bench/nvme_core.c is the same without sockets and wake-ups, for profiles.
# One loop serves one queue or two, as the daemon's iothread does. CPU is the
# server's user and system time, divided by the I/Os that its client saw; calls
# are messages that ring a doorbell, and kicks, for each I/O.
need qemu-storage-daemon nbdcopy jq python3

client_poll() {
    case $1 in
    sleep) echo 0 ;;
    poll) echo 32 ;;
    spin) echo 1000 ;;
    esac
}

begin_strata() {
    local way=$1 poll=$2 doorbells=$3
    start "$strata" serve --threads 1 --poll-us "$poll" \
        --nvme-pci "id=n,vfio-user=$work/$way.sock,doorbells=$doorbells" \
        --nbd "id=fill,unix=$work/$way.nbd" --disk "mem:$size,on=n,on=fill"
    server[strata-$way]=$pid
    await nbdcopy --connections=1 "$image/disk" \
        "nbd+unix:///?socket=$work/$way.nbd"
    kill -STOP "$pid"
}

begin_qsd() {
    start qemu-storage-daemon --object "iothread,id=t,poll-max-ns=$2" \
        --blockdev "driver=file,node-name=f,filename=$image/disk" \
        --blockdev driver=raw,node-name=d,file=f \
        --export "type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path=$work/qsd-$1.sock,writable=on,num-queues=2,iothread=t"
    server[qsd-$1]=$pid
    await test -S "$work/qsd-$1.sock"
    kill -STOP "$pid"
}

if ! $only_table; then
    folder image /dev/shm
    random_file "$image/disk"
    declare -A server
    begin_strata sleep 0 trap
    begin_strata poll 32 trap
    begin_strata spin always mapped
    begin_qsd sleep 0
    begin_qsd poll 32000
fi

each_row() {
    local way rw bs depth queues
    for way in sleep poll spin; do
        for bs in 512 4K; do
            for rw in read write; do
                for depth in 1 32 128; do
                    for queues in 1 2; do
                        row "$way-$rw-$bs-d$depth-q$queues" \
                            "$way" "rand$rw" "$bs" "$depth" "$queues"
                    done
                done
            done
        done
        for rw in read write; do
            row "$way-$rw-128K-d8-q1" "$way" "$rw" 128K 8 1
        done
    done
}

# Prints "iops=N ios=N calls=N": calls for each I/O.
client() {
    local rival=$1 way=$2 rw=$3 bs=$4 depth=$5 queues=$6 poll
    poll=$(client_poll "$way")
    if [[ $rival == strata ]]; then
        "$strata" bench vfio-user "$work/$way.sock" --rw "$rw" --bs "$bs" \
            --iodepth "$depth" --queues "$queues" --runtime "$runtime" \
            --poll-us "$poll" --json |
            jq -r '"iops=\(.iops) ios=\(.reads + .writes)",
                "calls=\(.doorbells_per_io)"' | xargs
    else
        "$programs/vhost_blk" "$work/qsd-${way/spin/poll}.sock" "$rw" \
            "$(numfmt --from=iec "$bs")" "$depth" "$queues" "$runtime" \
            "$poll" | awk '{ for (i = 1; i <= NF; i++) {
                    split($i, v, "="); value[v[1]] = v[2] }
                print "iops=" value["iops"], "ios=" value["ios"],
                    "calls=" value["kicks"] / value["ios"] }'
    fi
}

measure() {
    local rival=$1 way=$2 of before after line
    of=${server[$rival-$way]:-${server[qsd-poll]}}
    kill -CONT "$of"
    before=$(cpu_ticks "$of")
    line=$(client "$@") || return 1
    after=$(cpu_ticks "$of")
    kill -STOP "$of"
    [[ $line =~ (iops=[^ ]*)\ ios=([0-9]+)\ (calls=.*) ]] || return 1
    echo "${BASH_REMATCH[1]} ${BASH_REMATCH[3]} cpu=$(awk \
        -v n="${BASH_REMATCH[2]}" \
        -v ns="$(((after - before) * 1000000000 / ticks))" \
        'BEGIN { printf "%.1f", ns / n }')"
}

race strata qsd
table 'iops strata/qsd >= 1.0 rows (sleep|poll)-.*-d1-' \
    'iops strata/qsd >= 2.0 rows (sleep|poll)-.*-d(32|128)-' \
    'iops strata/qsd >= 8.0 rows spin-.*-d1-' \
    'iops strata/qsd >= 6.0 rows spin-.*-d(32|128)-' \
    'iops strata/qsd rows 128K' 'cpu strata/qsd' 'cpu strata' 'iops strata' \
    'calls strata'
