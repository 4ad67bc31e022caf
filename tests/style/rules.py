# SPDX-License-Identifier: MIT
"""The rules of test-style, each a function of one file's text.

A rule gives a list of complaints, each (line number, sentence); an empty list
is contentment. None reads a file, so test-rules tries them on a few lines.
"""

import re

GUIDE_LINES = 400
SOURCE_LINES = 800
PROSE_COLUMNS = 80

FENCE = re.compile(r"^\s*(```|~~~)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
LINK = re.compile(r"\]\(|\]\[|https?://|^\s*\[[^]]+\]:|<img ")
CODE_SPAN = re.compile(r"`[^`]*`")
LINK_TEXT = re.compile(r"\[([^]]*)\](\([^)]*\)|\[[^]]*\])?")
CAPITALISED = re.compile(r"^[A-Z][a-z]+$")
WORD_EDGE = re.compile(r"^[^\w]+|[^\w]+$")

# Spelled in pieces, so that this file does not complain about itself.
TASK = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
ISSUE = re.compile(r"#\d+")


def outside_code(text):
    """Give (number, line) of the lines of Markdown outside fenced code."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        m = FENCE.match(line)
        if fence:
            if m and m.group(1) == fence:
                fence = None
        elif m:
            fence = m.group(1)
        else:
            yield number, line


def spdx(text):
    head = "\n".join(text.splitlines()[:3])
    if "SPDX-License-Identifier: MIT" in head:
        return []
    return [(1, "no SPDX-License-Identifier: MIT in the first three lines")]


def length(text, limit):
    lines = len(text.splitlines())
    if lines <= limit:
        return []
    return [(lines, f"{lines} lines, more than {limit}: split it")]


def wrapped(text):
    """Prose is wrapped; tables, code, links and headings may be longer."""
    found = []
    for number, line in outside_code(text):
        if len(line) <= PROSE_COLUMNS or line.lstrip().startswith("|") or \
                line.startswith("    ") or LINK.search(line) or \
                HEADING.match(line):
            continue
        found.append((number, f"{len(line)} columns, more than "
                              f"{PROSE_COLUMNS}: wrap it"))
    return found


def sentence_case(text, names):
    """A heading's words are small, but for the first one, the first one after
    a full stop or a colon, code, acronyms, and NAMES: a set of proper nouns."""
    found = []
    for number, line in outside_code(text):
        m = HEADING.match(line)
        if not m:
            continue
        heading = CODE_SPAN.sub("code", m.group(2))
        heading = LINK_TEXT.sub(r"\1", heading)
        may_be_capital = True
        for raw in re.split(r"[\s/]+", heading):
            for part in raw.split("-"):
                word = WORD_EDGE.sub("", part)
                word = re.sub(r"['’]s$", "", word)
                if not word:
                    continue
                if not may_be_capital and CAPITALISED.match(word) and \
                        word not in names:
                    found.append((number, f"heading says '{word}', "
                                          "wants a small letter"))
                may_be_capital = False
            if raw.endswith((".", ":", "?", "!")):
                may_be_capital = True
    return found


def tasks(text):
    """A task left in a file names its issue, on the same line."""
    return [(number, f"{m.group(1)} without an issue number")
            for number, line in enumerate(text.splitlines(), 1)
            for m in TASK.finditer(line) if not ISSUE.search(line)]


def is_shell(path, text):
    """Whether shellcheck knows this file: by its first line or its name."""
    first = text.split("\n", 1)[0]
    if re.match(r"#!.*\b(ba|da|)sh\b", first) or re.match(r"#!.*\bbats\b",
                                                          first):
        return True
    return path.endswith((".sh", ".bash", ".bats"))
