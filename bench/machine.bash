# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# strata run beside QEMU's microvm and q35: the same kernel, initrd and disk
# file, 256 MiB, one CPU.
#
#   boot         from exec to the first line of user space: seconds, exits,
#                those of them for ports and memory (io_exits), interrupts
#   memory       of the process, beside the guest's: mib is all pages, own_mib
#                those that it shares with nobody, as it shares its program
#   read-4k-dN   a read at depth N of an NVMe disk: exits, io_exits, interrupts;
#                and IOPS where the CPU is real
#
# A microvm boots from a virtio disk without PCI, and reads with pcie=on.
# Without hardware for KVM all run in an outer guest, whose CPU is emulated; for
# boots its clock counts instructions, so that seconds do not depend on here.
#
#   strata run --kernel K --initrd I --memory 256M --nvme-pci id=nvme0
#     --disk file:disk,on=nvme0
#   qemu-system-x86_64 -nodefaults -accel kvm -m 256 -kernel K -initrd I
#     -M q35,usb=off -drive file=disk,if=none,id=disk,aio=io_uring
#     -device nvme,drive=disk
need python3

# All rivals live in one place, in the order A B C C B A.
one_round() {
    local status=0
    python3 bench/machine.py "$1" "$strata" "$programs/reads" "${@:2}" ||
        status=$?
    ((status != 77)) || exit 0 # it has said why
    return $status
}

rounds=1 # of two lives each: these are counts
goals=()
for rival in microvm q35; do
    goals+=("seconds strata/$rival <= 1.0" "exits strata/$rival <= 1.0"
        "io_exits strata/$rival <= 1.0" "interrupts strata/$rival <= 1.0"
        "mib strata/$rival <= 0.25" "own_mib strata/$rival <= 0.25")
done
race strata microvm q35
table "${goals[@]}" 'mib strata <= 8' 'own_mib strata <= 8' \
    'iops strata/microvm >= 1.5' 'iops strata/q35 >= 1.5' 'seconds strata' \
    'exits strata' 'io_exits strata' 'interrupts strata'
