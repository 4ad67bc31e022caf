# SPDX-License-Identifier: MIT
"""A newer libnbd and extended headers: lengths over 32 bits, in one request.

usage: python3 extended.py SOCKET SIZE CONTENT

SIZE bytes are served on the Unix SOCKET; CONTENT is a file that was copied to
their beginning. Prints `ok: SENTENCE` or raises.
"""

import sys

import nbd # pylint: disable=import-error

GIB = 1 << 30


def ok(sentence, holds):
    if not holds:
        raise SystemExit(f"FAILED: {sentence}")
    print(f"ok: {sentence}")


def connect(socket, extended=True):
    h = nbd.NBD()
    h.set_request_extended_headers(extended)
    h.add_meta_context("base:allocation")
    h.connect_unix(socket)
    ok(f"extended headers: {extended}",
       h.get_extended_headers_negotiated() == extended)
    return h


def extents(h, length, offset, flags=0):
    """Give [(length, flags)], of one reply."""
    got = []
    h.block_status_64(length, offset,
                      lambda name, at, found, error: got.extend(found), flags)
    return got


def refused(call, *args):
    try:
        call(*args)
    except nbd.Error as e:
        return e.errno
    return None


def main(socket, size, content):
    h = connect(socket)
    far = size - GIB
    data = content[:65536]
    got = extents(h, size, 0)
    ok("one reply tells the whole disk",
       sum(n for n, _ in got) == size and len(got) > 1)
    ok("... of which one extent is longer than 4 GiB",
       max(n for n, _ in got) > 4 * GIB)
    ok("REQ_ONE tells one extent",
       len(extents(h, size, 0, nbd.CMD_FLAG_REQ_ONE)) == 1)
    h.pwrite(data, far)
    ok("what is written far out is read", h.pread(len(data), far) == data)
    ok("... and is no hole", extents(h, len(data), far)[0] ==
       (len(data), 0))
    h.zero(size - 8 * GIB, 8 * GIB)
    ok("zeroes over more than 4 GiB, in one request",
       h.pread(len(data), far) == bytes(len(data)))
    ok("... touch nothing before", h.pread(len(content), 0) == content)
    h.pwrite(data, far)
    h.trim(size - 5 * GIB, 5 * GIB, nbd.CMD_FLAG_FUA)
    ok("a trim over more than 4 GiB, in one request",
       h.pread(len(data), far) == bytes(len(data)))
    ok("... gives a hole", extents(h, len(data), far)[0][1] & 1 == 1)
    h.cache(5 * GIB, 0)
    ok("a cache request over more than 4 GiB", True)
    h.set_strict_mode(0)
    ok("zeroes past the end are ENOSPC",
       refused(h.zero, size, GIB) == "ENOSPC")
    ok("a trim past the end is EINVAL", refused(h.trim, size, GIB) == "EINVAL")
    ok("a length of 2^63 is refused",
       refused(h.zero, (1 << 63) - 1, GIB) is not None)
    ok("the connection lives on", h.pread(512, 0) == content[:512])
    h.shutdown()

    h = connect(socket, False)
    got = extents(h, 0xfffff000, 8 * GIB)
    ok("without extended headers: at most 32 bits, as before",
       0 < sum(n for n, _ in got) <= 0xffffffff)
    ok("... and the same bytes", h.pread(len(content), 0) == content)
    h.shutdown()


with open(sys.argv[3], "rb") as f:
    main(sys.argv[1], int(sys.argv[2]), f.read())
