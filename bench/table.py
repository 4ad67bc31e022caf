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


def main(path, *goals):
    data = read(path)
    print(f"{'row':<34} {'ratio':<28} {'n':>3} {'median':>9} "
          f"{'min..max':>19} {'95 %':>19}  goal")
    for text in goals:
        words = text.split()
        name, ratio = words[:2]
        sign, goal = (words[2], float(words[3])) \
            if len(words) > 3 and words[2] in (">=", "<=", "~") else ("", 0)
        rows = words[words.index("rows") + 1] if "rows" in words else "."
        above, _, below = ratio.partition("/")
        printed = False
        for row, rounds in data.items():
            if not re.search(rows, row):
                continue
            values = [cell[above, name] / (cell[below, name] if below else 1)
                      for cell in rounds.values()
                      if (above, name) in cell and
                      (not below or cell.get((below, name)))]
            if not values:
                continue
            printed = True
            median, (low, high) = statistics.median(values), interval(values)
            print(f"{row:<34} {name + ' ' + ratio:<28} {len(values):>3} "
                  f"{number(median):>9} "
                  f"{number(min(values)) + '..' + number(max(values)):>19} "
                  f"{number(low) + '..' + number(high):>19}  "
                  + (f"{sign} {words[3]}: {verdict(median, high, sign, goal)}"
                     if sign else ""))
        if printed:
            print()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
