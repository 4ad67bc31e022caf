# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034 # the cases use these
#
# What the cases share. A case is a script that bench/run sources; it defines
#
#   each_row       call `row NAME WORDS...` for each row, the words are its own
#   measure RIVAL WORDS...   print "NAME=VALUE ..." of one measurement
#
# and calls `race RIVAL...`, then `table GOAL...` (see table.py).

# From bench/run.
: "${rounds:?}" "${runtime:?}" "${size:?}" "${rows:?}" "${build:?}"
: "${strata:?}" "${programs:?}" "${results:?}" "${fresh:?}" "${only_table:?}"

ticks=$(getconf CLK_TCK)
need() {
    local tool
    for tool; do
        if ! command -v "$tool" >/dev/null; then
            echo "skip: no $tool here (tools/setup --dev)"
            exit 0
        fi
    done
}

# ---- What ends with the case -------------------------------------------------

clean_up() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null
        kill -CONT "$pid" 2>/dev/null # a case may have stopped it
    done
    for pid in "${started[@]}"; do
        wait "$pid" 2>/dev/null
    done
    rm -rf "${folders[@]}"
}

# folder VARIABLE PARENT: a new folder below PARENT.
folder() {
    printf -v "$1" %s "$(mktemp -d -p "$2" strata-bench.XXXXXX)"
    folders+=("${!1}")
}

started=() folders=() work=
trap clean_up EXIT
trap 'exit 130' INT TERM
folder work "${TMPDIR:-/tmp}"

# start COMMAND...: in the background; sets pid.
start() {
    "$@" </dev/null >>"$work/servers.log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# await COMMAND...: until it succeeds, 10 s at most.
await() {
    local i
    for ((i = 0; i < 100; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "bench: gave up waiting for: $*" >&2
    tail -n 5 "$work/servers.log" >&2
    exit 1
}

# random_file PATH: SIZE random bytes (blocks of 1 MiB that differ).
random_file() {
    local mib=${size%[MG]}
    [[ $size == *G ]] && mib=$((mib * 1024))
    dd if=/dev/urandom of="$1" bs=1M count="$mib" status=none
}

# cpu_ticks PID: user and system time so far, with all its threads.
cpu_ticks() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'
}

# fio's own CPU in ms, with all its threads (those of the kernel's io_uring too,
# which fio itself leaves out).
fio_cpu() {
    local TIMEFORMAT='%3U %3S' user system
    { time fio --name=j --thread --output-format=json "$@" \
        2>>"$work/fio.log" >"$work/fio.json" || return 1; } 2>"$work/fio.time"
    read -r user system <"$work/fio.time"
    echo "$((10#${user/./} + 10#${system/./}))"
}

# What starting fio takes; a case that shows fio's CPU calls it first.
calibrate_fio() {
    local i ms
    for i in 1 2 3; do
        ms=$(fio_cpu --ioengine=null --size=4k --io_size=4k)
        if ((i == 1 || ms < fio_start)); then
            fio_start=$ms
        fi
    done
}
fio_start=0

# fio_job ARGUMENT...: run fio; print "iops=N ios=N cpu=NS", CPU per I/O.
fio_job() {
    local cpu
    cpu=$(fio_cpu --time_based --runtime="$runtime" --norandommap \
        --randrepeat=0 --invalidate=0 --group_reporting --gtod_reduce=1 \
        "$@") || {
        tail -n 5 "$work/fio.log" >&2
        return 1
    }
    # The nbd engine prints a line of its own before.
    sed -n '/^{/,$p' "$work/fio.json" | jq -r --argjson cpu \
        "$((cpu > fio_start ? cpu - fio_start : 0))" '.jobs[0] |
        (.read.total_ios + .write.total_ios) as $n |
        "iops=\(.read.iops + .write.iops) ios=\($n) cpu=\($cpu * 1e6 / $n)"'
}

# ---- Rounds ----------------------------------------------------------------

row() {
    [[ $1 =~ $rows ]] && printf '%s\n' "$*"
    return 0
}

# Measure in a palindrome that alternates its beginning: A B B A, B A A B, ...
one_round() {
    local round=$1 name words rival order=() back=() i line
    shift
    for rival; do
        order+=("$rival")
        back=("$rival" "${back[@]}")
    done
    if ((round % 2)); then
        order+=("${back[@]}")
    else
        order=("${back[@]}" "${order[@]}")
    fi
    while read -r name words <&3; do
        for i in "${!order[@]}"; do
            # shellcheck disable=SC2086 # words are words
            line=$(measure "${order[i]}" $words) || return 1
            printf '%s\t%s\t%s\t%s\n' "$round" "$name" "${order[i]}" "$line"
            [[ -t 2 ]] && printf '\r\033[Kround %s of %s: %s %s' "$round" \
                "$rounds" "$name" "${order[i]}" >&2
        done
    done 3< <(each_row)
    [[ -t 2 ]] && printf '\r\033[K' >&2
    return 0
}

# race RIVAL...: the rounds that are missing in $tsv.
race() {
    local have round settings="# runtime=$runtime size=$size rows=$rows"
    tsv=$results/${name:?}.tsv
    $only_table && return
    mkdir -p "$results"
    $fresh && rm -f "$tsv"
    [[ -s $tsv ]] || printf '%s\n' "$settings" >"$tsv"
    if [[ $(head -n 1 "$tsv") != "$settings" ]]; then
        echo "$tsv was measured with '$(head -n 1 "$tsv")';" \
            "--fresh begins anew" >&2
        exit 2
    fi
    have=$(tail -n 1 "$tsv" | grep -o '^[0-9]*' || echo 0)
    for ((round = have + 1; round <= rounds; round++)); do
        # A round is kept whole or not at all.
        one_round "$round" "$@" >"$work/round" || exit 1
        cat "$work/round" >>"$tsv"
    done
}

table() {
    tsv=$results/${name:?}.tsv
    if [[ ! -s $tsv ]]; then
        echo "nothing was measured yet"
        return 0
    fi
    python3 bench/table.py "$tsv" "$@"
    if [[ $chart ]]; then
        (
            IFS=$'\t'
            echo "$name"$'\t'"$tsv"$'\t'"$*"
        ) >>"${chart_list:?}"
    fi
}
