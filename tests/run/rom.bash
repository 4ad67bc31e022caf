# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Firmware of a few instructions, for tests of strata run.

# rom FILE INSTRUCTIONS: 64 KiB whose reset vector jumps to its begin, which
# says "A" on the first serial port, and then is INSTRUCTIONS, in printf's words.
rom() {
    truncate -s 0 "$1"
    truncate -s 64K "$1"
    # shellcheck disable=SC2059 # that is what it is for
    # cli; mov $0x3f8, %dx; mov $'A', %al; out %al, %dx
    printf '\xfa\xba\xf8\x03\xb0A\xee'"$2" | dd of="$1" conv=notrunc status=none
    # jmp 0
    printf '\xe9\x0d\x00' | dd of="$1" conv=notrunc bs=1 seek=65520 status=none
}
