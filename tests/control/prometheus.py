#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Is standard input Prometheus text format 0.0.4, and by its conventions?

Every metric has one HELP and one TYPE line, before all of its samples, which
stand together; names, labels, escapes and values are well formed; no series
comes twice; counters end with _total and are not negative; the buckets of a
histogram do not fall, and end with +Inf, which is _count. Prints how many
samples there were.
"""

import re
import sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL}(?:,{LABEL})*)?)\}})? (\S+)")
HEAD = re.compile(rf"# (HELP|TYPE) ({NAME}) (.+)")
TYPES = ("counter", "gauge", "histogram")


def family(name, kinds):
    """The metric that the sample NAME belongs to."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name[:-len(suffix)]
        if name.endswith(suffix) and kinds.get(base) == "histogram":
            return base
    return name


def check_histograms(buckets, counts):
    for series, rows in buckets.items():
        les = [float(le.replace("+Inf", "inf")) for le, _ in rows]
        values = [v for _, v in rows]
        assert les == sorted(les) and len(set(les)) == len(les), series
        assert values == sorted(values), f"{series}: {values}"
        assert les[-1] == float("inf"), f"{series}: no +Inf"
        assert counts[series] == values[-1], f"{series}: _count"


def main():
    text = sys.stdin.buffer.read().decode("utf-8")
    assert text.endswith("\n"), "no newline at the end"
    kinds, helps, seen, closed = {}, set(), set(), set()
    buckets, counts, now, n = {}, {}, None, 0
    for line in text[:-1].split("\n"):
        head = HEAD.fullmatch(line)
        if head:
            what, name, rest = head.groups()
            assert name not in closed, f"{name} comes in pieces"
            if now and now != name:
                closed.add(now)
            now = name
            if what == "HELP":
                assert name not in helps, f"HELP twice: {name}"
                helps.add(name)
            else:
                assert name not in kinds and rest in TYPES, line
                kinds[name] = rest
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, f"no sample: {line}"
        name, labels, value = sample[1], sample[2] or "", float(sample[7])
        base = family(name, kinds)
        assert base == now and base in kinds and base in helps, line
        assert (name, labels) not in seen, f"twice: {line}"
        seen.add((name, labels))
        pairs = re.findall(LABEL, labels)
        assert len({k for k, _ in pairs}) == len(pairs), f"label twice: {line}"
        if kinds[base] == "counter":
            assert name.endswith("_total") and value >= 0, line
        else:
            assert not name.endswith("_total"), line
        if kinds[base] == "histogram":
            series = (base, tuple(p for p in pairs if p[0] != "le"))
            if name.endswith("_bucket"):
                buckets.setdefault(series, []).append((dict(pairs)["le"], value))
            elif name.endswith("_count"):
                counts[series] = value
        n += 1
    assert helps == set(kinds), helps ^ set(kinds)
    check_histograms(buckets, counts)
    print(n)


if __name__ == "__main__":
    main()
