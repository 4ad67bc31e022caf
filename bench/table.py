#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rounds into a table.

usage: bench/table.py FILE.tsv GOAL...

FILE has lines "round, row, rival, NAME=VALUE ...", separated by tabs. What a
rival has several times in a round counts as its mean. A GOAL is one of

  'iops strata/nbdkit >= 1.2 [rows REGEX]'   the median ratio reaches it
  'cpu strata/fio <= 1.05'                   the median ratio stays below it
  'iops strata/fio ~ 1.0'                    the interval reaches 1.0
  'wakeups strata <= 0'                      no ratio: the value itself
  'iops strata/file'                         no goal: only shown

For each row and goal: the median over the rounds, their range, and a 95 %
interval of the median (bootstrap, 10,000 draws, always the same ones).
"""

import random
import re
import statistics
import sys

DRAWS = 10000


def read(path):
    """Give {row: {round: {(rival, name): mean}}}, rows in order."""
    found = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("#"):
                continue
            number, row, rival, values = line.rstrip("\n").split("\t")
            cell = found.setdefault(row, {}).setdefault(int(number), {})
            for pair in values.split():
                name, value = pair.split("=")
                cell.setdefault((rival, name), []).append(float(value))
    return {row: {n: {k: statistics.fmean(v) for k, v in cell.items()}
                  for n, cell in rounds.items()}
            for row, rounds in found.items()}


def interval(values):
    """The 95 % interval of the median of VALUES."""
    dice = random.Random(1)
    medians = sorted(statistics.median(dice.choices(values, k=len(values)))
                     for _ in range(DRAWS if len(values) > 1 else 1))
    return medians[int(0.025 * len(medians))], medians[int(0.975 *
                                                           len(medians))]


def verdict(median, high, sign, goal):
    """Is the goal met, and if not, by how much is it missed?"""
    value = high if sign == "~" else median
    if value <= goal if sign == "<=" else value >= goal:
        return "met"
    return f"missed by {abs(value - goal) / (goal or 1) * 100:.0f} %"


def number(x):
    return f"{x:.3f}" if abs(x) < 100 else f"{x:,.0f}"


class Goal:
    """A GOAL's words: name, above, below ("" for none), sign and goal ("" and
    0 for none), and the regular expression of its rows."""

    def __init__(self, text):
        words = text.split()
        self.name, self.ratio = words[:2]
        self.above, _, self.below = self.ratio.partition("/")
        self.sign, self.text = words[2:4] \
            if len(words) > 3 and words[2] in (">=", "<=", "~") else ("", "")
        self.goal = float(self.text or 0)
        self.rows = words[words.index("rows") + 1] if "rows" in words else "."

    def values(self, data):
        """Give (row, values of all rounds), in order, of rows that have any."""
        for row, rounds in data.items():
            if not re.search(self.rows, row):
                continue
            values = [cell[self.above, self.name] /
                      (cell[self.below, self.name] if self.below else 1)
                      for cell in rounds.values()
                      if (self.above, self.name) in cell and
                      (not self.below or cell.get((self.below, self.name)))]
            if values:
                yield row, values


def main(path, *goals):
    data = read(path)
    print(f"{'row':<34} {'ratio':<28} {'n':>3} {'median':>9} "
          f"{'min..max':>19} {'95 %':>19}  goal")
    for goal in map(Goal, goals):
        printed = False
        for row, values in goal.values(data):
            printed = True
            median, (low, high) = statistics.median(values), interval(values)
            print(f"{row:<34} {goal.name + ' ' + goal.ratio:<28} "
                  f"{len(values):>3} {number(median):>9} "
                  f"{number(min(values)) + '..' + number(max(values)):>19} "
                  f"{number(low) + '..' + number(high):>19}  "
                  + (f"{goal.sign} {goal.text}: "
                     f"{verdict(median, high, goal.sign, goal.goal)}"
                     if goal.sign else ""))
        if printed:
            print()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
