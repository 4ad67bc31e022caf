# shellcheck shell=dash disable=SC1091,SC2034,SC2154 # set here or in env
# SPDX-License-Identifier: MIT
#
# What a guest's script can call, beside busybox and the tools it named. Lines
# on descriptor 3 go to the harness.
#
#   $disk, $disks    the disks that came through the door: /dev/nvme0n1, ...
#   $door            the door's name
#   $rounds          how often, where a script repeats itself

. /guest/env

# ours: is it strata's controller?
ours() {
    case $door in vfio-user | machine) ;; *) false ;; esac
}

say() {
    echo "$*" >&3
    echo "$*"
}

ok() {
    say "ok: $*"
}

fail() {
    say "FAILED: $*"
    return 1
}

skip() {
    say "skip: $*"
}

# check SENTENCE COMMAND...: a test; what COMMAND says is shown if it fails.
check() {
    sentence=$1
    shift
    if "$@" >/tmp/said 2>&1; then
        ok "$sentence"
    else
        fail "$sentence (exit $?: $*)"
        tail -n 15 /tmp/said | sed 's/^/    /' >&3
        cat /tmp/said
        if [ -n "$log" ] && [ -f "$log" ]; then
            tail -n 5 "$log" | sed 's/^/    server: /' >&3
        fi
        return 1
    fi
}

# refused WORDS COMMAND...: COMMAND fails, and its output has WORDS.
refused() {
    words=$1
    shift
    if "$@" >/tmp/refused 2>&1; then
        cat /tmp/refused
        return 1
    fi
    cat /tmp/refused
    grep -q -e "$words" /tmp/refused
}

# await COMMAND...: until it succeeds; 600 tries, at least a minute.
await() {
    tries=0
    while [ $tries -lt 600 ]; do
        "$@" >/dev/null 2>&1 && return 0
        tries=$((tries + 1))
        sleep 0.1
    done
    return 1
}

# host NAME ARGUMENT...: run the function NAME of the script's host part, out
# there. Gives its status, and prints what it said.
host() {
    echo "host: $*" >&3
    while IFS= read -r answer <&3; do
        case $answer in
        says:*) echo "${answer#says: }" ;;
        done:*) return "${answer#done: }" ;;
        esac
    done
    return 1
}

# die: QEMU, or the machine, is killed, as when the power goes, and the script
# begins anew in the next guest: of the same server, if that is another process.
die() {
    echo kill >&3
    sleep 600
}

# send FILE [NAME]: give a file to the harness, which puts it into its folder.
send() {
    echo "file: ${2:-$(basename "$1")}" >&3
    base64 "$1" >&3
    echo "." >&3
}

# serve ARGUMENT...: start `strata nbd` here, on a Unix socket, and wait until
# it says that it is ready. Sets server (its id), socket, uri, api and log.
serve() {
    served=$((served + 1))
    api=/run/api$served
    socket=/run/nbd$served.sock
    uri="nbd+unix:///?socket=$socket"
    log=/tmp/strata$served.log
    : >"$log"
    strata nbd --unix "$socket" --api "$api" "$@" 2>"$log" &
    server=$!
    await ready && grep -q serving "$log"
}
served=0

ready() {
    grep -q serving "$log" || ! kill -0 "$server"
}

# stop: end the server; gives its exit status.
stop() {
    kill -TERM "$server"
    wait "$server"
}

# ctl VERB ...: strata ctl, to the server that was started last.
ctl() {
    strata ctl --api "$api" "$@"
}

# value PATH: of the tree of `strata ctl inspect`.
value() {
    ctl inspect "$1" | awk '{ print $NF }'
}

# device TABLE-LINE NAME: a device-mapper device; sets nothing, makes
# /dev/mapper/NAME.
device() {
    echo "$1" | dmsetup create "$2" --noudevsync &&
        dmsetup mknodes "$2" && [ -b "/dev/mapper/$2" ]
}

# namespace NSID: what the kernel calls it, /dev/nvme0n1, once it is there. A
# newer kernel numbers disks as it finds them, several at a time.
namespace() {
    await found_namespace "$1" && found_namespace "$1"
}
found_namespace() {
    grep -lx "$1" /sys/block/nvme0n*/nsid | sed 's,/sys/block,/dev,; s,/nsid,,' |
        grep .
}

# Faults on demand of the controller that came through the door.
#
#   rules RULES      instead of all others; the kernel's log begins anew
#   given RULES      the same, and they must be right
#   hits NAME        prints how often that rule has hit
#   hit NAME COUNT   succeeds if it was so often
#   release          what is stuck goes on, what is gone comes back
rules() {
    dmesg -c >/dev/null
    outside fault "'{\"rules\": [$(echo "$1" | tr '\n' ' ')]}'"
}
given() {
    rules "$1" >/tmp/given || fail "$(cat /tmp/given)"
}
hits() {
    outside inspect "controllers/nvme0/faults/$1" | awk '{ print $NF }'
}
hit() {
    test "$(hits "$1")" -eq "$2"
}
release() {
    outside release
}

# outside VERB ...: strata ctl, to the strata behind the door.
outside() {
    host "\"\$strata\" ctl --api \"\$api\" $*"
}

# logged REGEX: the kernel has said so; never REGEX: it has not.
logged() {
    dmesg >/tmp/dmesg
    cat /tmp/dmesg
    grep -q -E -e "$1" /tmp/dmesg
}
never() {
    ! logged "$1"
}

# sectors DEVICE: its size in units of 512 bytes.
sectors() {
    blockdev --getsz "$1"
}

# backing SIZE: a loop device above a file in memory; prints its name.
backing() {
    image=$(mktemp /dev/shm/backing.XXXXXX) && truncate -s "$1" "$image" &&
        loop=$(losetup -f) && losetup "$loop" "$image" && echo "$loop"
}
