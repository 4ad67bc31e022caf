#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rounds into a chart.

usage: bench/chart.py FILE.svg <LIST

LIST has a line "case, FILE.tsv, GOAL..." for each case, separated by tabs; the
rounds and the GOALs are those of table.py. Each ratio becomes a panel:

  nbd: iops of strata / nbdkit         goal >= 1.2
  read-4k-d1-c1   |=========:====|-+-|       2.10
  read-4k-d32-c1  |=========:=|-+--|         1.85
                  0         1   :            scale
                            |   the goal, dashed
                            as fast as the rival

A bar is the median of the rounds, the whisker the 95 % interval of it. GOALs
without a rival are no ratios, and left out. Nothing but the standard library.
"""

import itertools
import os
import statistics
import sys
from xml.sax.saxutils import escape, quoteattr

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import table # pylint: disable=wrong-import-position

WIDTH, LEFT, RIGHT = 960, 250, 150 # of the page; of row names; of numbers
BAR, GAP, HEAD, FOOT = 14, 8, 44, 26
COLOURS = {"met": "#2b7a4b", "missed": "#b3412e", "": "#4a6a8f"}
STYLE = """
text { font: 12px sans-serif; fill: #222 }
.head { font: bold 14px sans-serif }
.row, .value { font: 11px monospace }
.small { font-size: 10px; fill: #666 }
.one { stroke: #888 }
.goal { stroke: #222; stroke-dasharray: 5 3 }
.whisker { stroke: #222 }
"""


def step(longest):
    """The least of 0.1, 0.2, 0.5, 1, 2, ... that makes at most eight marks."""
    size = 0.1
    for factor in itertools.cycle((2, 2.5, 2)):
        if longest / size <= 8:
            return round(size, 3)
        size *= factor


class Panel:
    """One ratio of one case: bars, on a scale of their own."""

    def __init__(self, case, goal, rows):
        self.case, self.goal, self.rows = case, goal, rows
        self.height = HEAD + len(rows) * (BAR + GAP) + FOOT
        self.longest = 1.05 * max([1, goal.goal] +
                                  [high for *_, high in rows])

    def x(self, ratio):
        return LEFT + ratio * (WIDTH - LEFT - RIGHT) / self.longest

    def line(self, kind, ratio, top, bottom, words):
        return (f'<line class="{kind}" x1="{self.x(ratio):.2f}" y1="{top}" '
                f'x2="{self.x(ratio):.2f}" y2="{bottom}">'
                f'<title>{escape(words)}</title></line>')

    def bar(self, top, row, median, low, high):
        goal, middle = self.goal, top + BAR / 2
        verdict = table.verdict(median, high, goal.sign, goal.goal) \
            if goal.sign else ""
        colour = COLOURS[verdict.split()[0] if verdict else ""]
        said = f"{row}: {table.number(median)}, 95 % " \
               f"{table.number(low)} to {table.number(high)}"
        yield (f'<rect class="bar" data-row={quoteattr(row)} '
               f'x="{LEFT}" y="{top}" height="{BAR}" fill="{colour}" '
               f'width="{self.x(median) - LEFT:.2f}">'
               f'<title>{escape(said)}</title></rect>')
        yield (f'<path class="whisker" fill="none" d="M{self.x(low):.2f},'
               f'{middle - 4} v8 m0,-4 H{self.x(high):.2f} m0,-4 v8"/>')
        yield (f'<text class="row" text-anchor="end" x="{LEFT - 8}" '
               f'y="{top + BAR - 3}">{escape(row)}</text>')
        yield (f'<text class="value" x="{WIDTH - RIGHT + 8}" '
               f'y="{top + BAR - 3}">'
               f'{escape(f"{table.number(median)} {verdict}".strip())}</text>')

    def draw(self, top):
        goal, first = self.goal, top + HEAD
        last = first + len(self.rows) * (BAR + GAP)
        words = f"{self.case}: {goal.name} of {goal.above} / {goal.below}" + \
            (f", goal {goal.sign} {goal.text}" if goal.sign else "")
        yield f'<text class="head" x="16" y="{top + 24}">{escape(words)}</text>'
        for i, row in enumerate(self.rows):
            yield from self.bar(first + i * (BAR + GAP), *row)
        yield self.line("one", 1, first - 4, last, f"as {goal.below}")
        if goal.sign:
            yield self.line("goal", goal.goal, first - 8, last,
                            f"goal {goal.sign} {goal.text}")
        size, n = step(self.longest), 0
        while n * size <= self.longest:
            yield (f'<text class="small" text-anchor="middle" '
                   f'x="{self.x(n * size):.2f}" y="{last + 12}">'
                   f'{n * size:g}</text>')
            n += 1


def panels(lines):
    for line in lines:
        case, path, *goals = line.rstrip("\n").split("\t")
        data = table.read(path)
        for goal in map(table.Goal, goals):
            rows = [(row, statistics.median(values), *table.interval(values))
                    for row, values in goal.values(data)]
            if goal.below and rows:
                yield Panel(case, goal, rows)


def main(path, lines):
    drawn, top = [], 0
    for panel in panels(lines):
        drawn += panel.draw(top)
        top += panel.height
    if not drawn: # a case without a rival, say
        print("bench/chart.py: no ratios were measured, no chart",
              file=sys.stderr)
        return
    with open(path, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
                f'height="{top + 40}" viewBox="0 0 {WIDTH} {top + 40}">\n'
                f'<style>{STYLE}</style>\n'
                f'<rect width="{WIDTH}" height="{top + 40}" fill="#fff"/>\n')
        f.write("\n".join(drawn))
        f.write(f'\n<text class="small" x="16" y="{top + 24}">Bars: the median '
                "of paired rounds of one run; whiskers: its 95 % interval; "
                "line at 1: the rival; dashed: the goal.</text>\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.stdin)
