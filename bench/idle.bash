# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # bench/run and lib.bash share these
#
# A server with 100 exports and nothing to do, for 30 s: how often did one of
# its threads give up the CPU of its own accord?
need nbdinfo python3
exports=100 seconds=30

if ! $only_table; then
    arguments=()
    for ((i = 0; i < exports; i++)); do
        arguments+=(--export "disk$i=mem:1G")
    done
    start "$strata" nbd --unix "$work/idle.sock" "${arguments[@]}"
    server=$pid
    await nbdinfo --size "nbd+unix:///disk99?socket=$work/idle.sock"
    sleep 2 # what that woke has gone to sleep
fi

voluntary() {
    cat "/proc/$server"/task/*/status |
        awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }'
}

each_row() {
    row "$exports-exports-$seconds-s" "$seconds"
}

measure() {
    local before
    before=$(voluntary)
    sleep "$2"
    echo "wakeups=$(($(voluntary) - before))"
}

rounds=1 # of two measurements: nothing here varies by chance
race strata
table 'wakeups strata <= 0'
