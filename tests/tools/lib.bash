# shellcheck shell=bash disable=SC2034 # others use what is set here
# SPDX-License-Identifier: MIT
#
# What the scripts in this folder share. A script is called with the path of
# strata, sources this file, runs `check SENTENCE COMMAND...` as often as it
# likes, and ends with `finish`. It works in a new folder, $work, and ends only
# what it started.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
strata=$(realpath "${1:?usage: $0 PATH-OF-STRATA}")
work=$(mktemp -d)
passed=0 failed=0 skipped=0
started=() # process ids
export LC_ALL=C

clean_up() {
    local pid
    for pid in "${started[@]}"; do
        kill -KILL "$pid"
    done
    wait
    rm -rf "$work"
} 2>/dev/null
trap clean_up EXIT
cd "$work" || exit 1

# need TOOL...: skip the whole script where one is missing.
need() {
    local tool
    for tool; do
        if ! command -v "$tool" >/dev/null; then
            echo "skip: no $tool here"
            exit 77
        fi
    done
}

# check SENTENCE COMMAND...: a test; what COMMAND says is shown if it fails.
check() {
    local sentence=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        echo "ok: $sentence"
        passed=$((passed + 1))
    else
        echo "FAILED: $sentence (exit $?: $*)"
        tail -n 20 "$work/said" | sed 's/^/    /'
        if [[ -n ${log:-} && -f $log ]]; then
            tail -n 5 "$log" | sed 's/^/    server: /'
        fi
        failed=$((failed + 1))
    fi
}

skip() {
    echo "skip: $1"
    skipped=$((skipped + 1))
    return 1
}

finish() {
    echo "counts: $passed passed, $failed failed, $skipped skipped"
    exit $((failed > 0))
}

# await COMMAND...: wait for it to succeed; give up after 10 s.
await() {
    local i
    for ((i = 0; i < 200; i++)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    return 1
}

# serve NAME ARGUMENT...: start `strata nbd` on a Unix socket and wait until it
# says that it is ready. Sets server (its id), socket, uri and log.
serve() {
    local name=$1
    shift
    socket=$work/$name.sock
    uri="nbd+unix:///?socket=$socket"
    log=$work/$name.log
    : >"$log"
    "$strata" nbd --unix "$socket" "$@" 2>"$log" &
    server=$!
    started+=("$server")
    await ready
}

ready() {
    grep -q 'serving' "$log" || ! kill -0 "$server"
    grep -q 'serving' "$log"
}

# stop [SIGNAL]: end the server; gives its exit status, or 137 after 20 s.
stop() {
    local i
    kill "-${1:-TERM}" "$server"
    for ((i = 0; i < 400; i++)); do
        kill -0 "$server" || break # bash reaps it at once, and keeps its status
        sleep 0.05
    done
    [[ $i -lt 400 ]] || kill -KILL "$server"
    wait "$server"
} 2>/dev/null

# value NAME: a counter of the running server, after SIGUSR1; the sum if there
# are several.
value() {
    local before
    before=$(grep -c '^nbd ' "$log")
    kill -USR1 "$server"
    await eval "[ \$(grep -c '^nbd ' '$log') -gt $before ]"
    tac "$log" | sed '/^nbd /q' | grep -o "\<$1=[0-9]*" |
        awk -F= '{ n += $2 } END { print n + 0 }'
}

# has_engine NAME: counts a skip where the kernel has no such thing.
has_engine() {
    local why
    why=$(timeout 10 "$strata" bench disk mem:1M --runtime 1 --engine "$1" 2>&1) ||
        skip "engine $1: $why"
}

# same A B: the files are equal, byte by byte.
same() {
    cmp "$1" "$2"
}

# exits STATUS COMMAND...
exits() {
    local want=$1 got
    shift
    "$@"
    got=$?
    [[ $got -eq $want ]] || {
        echo "exit status $got, expected $want"
        return 1
    }
}

# verify_begin URI SIZE: fio writes, reads back and compares, again and again,
# until verify_end; that is 0 if it did so at least once and never was wrong.
verify_begin() {
    rm -f fio.enough fio.rounds
    until [[ -e fio.enough ]]; do
        fio --name=verify --ioengine=nbd --uri="$1" --rw=randwrite \
            --bs=512-64k --size="$2" --iodepth=8 --verify=crc32c \
            --verify_fatal=1 --verify_backlog=256 --randseed="$RANDOM" \
            --verify_state_save=0 >fio.out 2>&1 || exit 1
        echo >>fio.rounds
    done &
    fio=$!
    started+=("$fio")
}
verify_end() {
    : >fio.enough
    if ! wait "$fio" || [[ ! -s fio.rounds ]]; then
        tail -n 20 fio.out
        return 1
    fi
}

# noise FILE BYTES: a file of bytes that do not compress and have no holes.
noise() {
    head -c "$2" /dev/urandom >"$1"
}
