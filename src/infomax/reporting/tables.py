"""Plain-text tables for a terminal."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Aligned columns; numbers, which are shares, are shown in per cent with one digit."""
    cells = [list(header)] + [[f"{100 * x:.1f}" if isinstance(x, float) else x for x in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
