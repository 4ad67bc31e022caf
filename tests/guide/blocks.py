#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fenced code blocks of Markdown pages, by the words behind the fence.

usage: tests/guide/blocks.py PAGE WORDS...

Prints the one block of PAGE that opens with ```WORDS, as `c tally.c`.
"""

import re
import sys

FENCE = re.compile(r"^```(.*)$")


def blocks(text):
    """Give (line number, words behind the fence, text) of each block."""
    words = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and words is None:
            words, first, lines = fence.group(1).split(), number, []
        elif fence:
            yield first, words, "".join(x + "\n" for x in lines)
            words = None
        elif words is not None:
            lines.append(line)


def main(page, *words):
    with open(page, encoding="utf-8") as f:
        found = [text for _, w, text in blocks(f.read()) if w == list(words)]
    if len(found) != 1:
        sys.exit(f"{page}: {len(found)} blocks '{' '.join(words)}', not one")
    sys.stdout.write(found[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
