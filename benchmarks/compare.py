"""Compares two results of benchmarks/speed.py, to see whether a change has made something slower.

python benchmarks/compare.py OLD.json NEW.json

Prints the change of each ratio of our time or memory to the other library's, and exits with 1 if one has become more
than 10 % worse. Ratios are compared and not seconds, because the machine may not have been equally fast on both days.
"""

import json
import sys
from pathlib import Path

WORSE = 1.1  # measured again on the same machine, ratios of medians differ by less


def ratios(file: Path) -> dict[str, float]:
    """Returns all ratios by section and name; sections that are not lists hold no ratios."""
    sections = json.loads(file.read_text())
    rows = {name: rows for name, rows in sections.items() if isinstance(rows, list)}
    return {f"{name}: {row['name']}": row["ratio"] for name, rows in rows.items() for row in rows if "ratio" in row}


def main(old: str, new: str) -> int:
    before, after = ratios(Path(old)), ratios(Path(new))
    worse = 0
    for name in sorted(before.keys() & after.keys()):
        change = after[name] / before[name]
        worse += change > WORSE
        print(f"{before[name]:8.3f} -> {after[name]:8.3f}  x {change:.2f}  {'WORSE ' if change > WORSE else ''}{name}")
    for name in sorted(before.keys() ^ after.keys()):
        print(f"only in {old if name in before else new}: {name}")
    if not before.keys() & after.keys():
        print("the files have no ratio in common")
    return int(worse > 0 or not before.keys() & after.keys())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
