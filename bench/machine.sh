# shellcheck shell=bash
# shellcheck disable=SC2128,SC2154 # $dir is its first; machine.py sets the rest
# SPDX-License-Identifier: MIT
#
# One life of a virtual machine, and what is counted in it; run by machine.py
# where KVM is.
#
#   measure RIVAL boots|reads
#       prints "POINT NAME=VALUE ..." for each point of its life
#
# The function RIVAL_boots or RIVAL_reads becomes the machine. Its guest says
# "user space", and obeys "read DEPTH COUNT" and "off". The counters are those
# that the kernel has in debugfs for the machine of one process.

# I/O exits are those for ports, and for memory as far as the monitor hears of
# them; interrupts are those that the CPU was given. Nothing is started here: it
# would be a part of the seconds.
point() { # NAME [NAME=VALUE...]
    local seconds=$EPOCHREALTIME exits io mmio interrupts
    local dir=(/sys/kernel/debug/kvm/"$pid"-*) # it has one machine
    if [[ -r $dir/exits ]]; then
        read -r exits <"$dir/exits"
        read -r io <"$dir/io_exits"
        read -r mmio <"$dir/mmio_exits"
        read -r interrupts <"$dir/irq_injections"
        set -- "$@" "exits=$exits" "io_exits=$((io + mmio))" \
            "interrupts=$interrupts"
    fi
    echo "$@" "seconds=$seconds"
}

# What the guest says, up to a line that begins with WORDS; sets heard to it.
hear() { # WORDS
    local all=
    heard=
    while [[ $heard != "$1"* ]]; do
        if ! IFS=$'\r' read -r -t 120 heard <&"$from"; then
            echo "the guest does not say '$1', but:" "${all:-nothing}" >&2
            echo "the machine says: $(tail -n 5 "$work/machine.log")" >&2
            kill -KILL "$pid"
            return 1
        fi
        all+=$heard$'\n'
    done
}

reads() { # DEPTH COUNT
    echo "read $1 $2" >&"$to"
    hear iops
}

# What the process PID holds in pages beside its guest's memory, in all and not
# counting those of files, such as its program: these it shares with others.
held() { # PID
    awk -v guest=$((memory << 10)) '
        /^[0-9a-f]+-/ { name = $6 }
        $1 == "Size:" { theirs = name ~ /^\/memfd:/ && $2 >= guest }
        $1 == "Rss:" && !theirs { rss += $2 }
        $1 ~ /^Anonymous:/ && !theirs { own += $2 }
        END { printf "mib=%.3f own_mib=%.3f\n", rss / 1024, own / 1024 }
    ' "/proc/$1/smaps"
}

measure() { # RIVAL boots|reads
    local to from pid=none heard depth
    rm -f "$work/to" "$work/from"
    mkfifo "$work/to" "$work/from"
    exec {to}<>"$work/to" {from}<>"$work/from"
    point exec
    "$1_$2" <"$work/to" >"$work/from" 2>"$work/machine.log" &
    pid=$!
    hear "user space" || return
    point user-space
    echo "held $(held "$pid")"
    if [[ $2 = reads ]]; then
        reads 32 "$few" || return # what happens once has happened
        for depth in 1 32; do
            point "begin-$depth"
            reads "$depth" "$few" || return
            point "few-$depth"
            reads "$depth" $((few + count)) || return
            point "many-$depth" "iops=${heard#iops }"
        done
    fi
    echo off >&"$to"
    wait "$pid"
    exec {to}>&- {from}>&-
}
