# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# What a guest's doorbells cost: messages to the server for each I/O, in a stock
# kernel with 2 CPUs, fio reading at random with 32 I/Os at a time, 512 bytes
# and 4 KiB, by each kind of doorbell:
#
#   shadow   the default: the kernel shadows them, and rings who sleeps
#   mapped   doorbells=mapped: stores in a page that the server looks at
#   trap     each one is a message: a fault rule refuses to shadow them
#
#   strata serve --poll-us 0|32|200 --nvme-pci id=nvme0,vfio-user=S
#   qemu-system-x86_64 ... -device vfio-user-pci       (tests/guest/run)
#   fio --rw=randread --bs=512 --iodepth=32            (bench/doorbells.guest)
#
# Interrupts and sleeps are those for each I/O, too. Where the guest's CPUs are
# emulated its I/O comes slower than anywhere else, and a loop sleeps more often.
need python3 jq apt-get dpkg-deb

refuse='{"rules": [{"name": "no shadows", "on": "admin.sqe",
    "opcode": "doorbell-buffer-config", "do": {"status": "invalid-opcode"}}]}'

each_row() {
    local poll
    for poll in 0 32 200; do
        row "poll-$poll" "$poll"
    done
}

measure() {
    local rival=$1 words="--poll-us $2" option=() by=$1
    case $rival in
    mapped) option=(--controller doorbells=mapped) ;;
    trap)
        echo "$refuse" >"$work/refuse"
        words+=" --faults $work/refuse"
        by=register
        ;;
    esac
    if ! tests/guest/run --strata "$strata" --script bench/doorbells.guest \
        --serve="$words" "${option[@]}" --variable "seconds=$runtime" \
        >"$work/said" || ! grep -q "^result by=$by " "$work/said"; then
        tail -n 20 "$work/said" >&2
        return 1
    fi
    sed -n "s/^result by=$by //p" "$work/said" | xargs
}

rounds=1 # of two guests for each figure: each takes half a minute
race shadow mapped trap
table '512-messages shadow <= 0.05 rows poll-200' \
    '4k-messages shadow <= 0.05 rows poll-200' \
    '512-messages shadow rows poll-(0|32)' \
    '4k-messages shadow rows poll-(0|32)' '512-messages mapped' \
    '4k-messages mapped' '512-messages trap' '4k-messages trap' \
    '512-sleeps shadow' '4k-sleeps shadow' '512-interrupts shadow' \
    '4k-interrupts shadow' '512-iops shadow' '512-iops mapped' \
    '512-iops trap' '4k-iops shadow' '4k-iops mapped' '4k-iops trap'
