"""Paired differences between the lines of a sweep's table: over the test images of one seed, or over several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from infomax.evaluation.intervals import SEEDED, Difference, compare_repeated
from infomax.evaluation.paired import compare_rows, why_not_paired
from infomax.evaluation.result_row import ResultRow
from infomax.reporting.tables import EMPTY, Cell, Table, make_table

ANY_SEED = -1
"""Seed of a result that runs of all seeds have in common, as that of the encoder that they started from."""


@dataclass(frozen=True)
class Measured:
    """A frozen dataclass that holds the results behind one cell of a sweep's table, with their hits."""

    metric: str
    """Name of the score."""
    by_seed: tuple[tuple[int, tuple[ResultRow, ...]], ...]
    """The rows of each run that is done, by its seed: one for each seed of the evaluation."""

    def pairs(self, reference: "Measured") -> list[list[tuple[ResultRow, ResultRow]]]:
        """Returns the rows that belong together: for each seed that both have, those with equal evaluation seeds."""
        others = dict(reference.by_seed)
        groups = []
        for seed, rows in self.by_seed:
            candidates = others.get(seed, others.get(ANY_SEED, ()))
            partners = {getattr(row, "seed", None): row for row in candidates}
            alike = [(row, partners.get(getattr(row, "seed", None))) for row in rows]
            if pairs := [(row, partner) for row, partner in alike if partner is not None]:
                groups.append(pairs)
        return groups


def compare_measured(measured: Measured, reference: Measured) -> Difference | str:
    """Compares the results of two cells.

    With several seeds, the difference is the mean over them, each seed's with the same seed's, with Student's interval.
    With one, it is that over the test images.

    Args:
        measured: The results that are compared.
        reference: Those that they are compared with, by the same evaluation.

    Returns:
        The difference; or a text that says why there is none, which is empty if there is nothing to compare.
    """
    seeds = measured.pairs(reference)
    pairs = [pair for of_seed in seeds for pair in of_seed]
    if not pairs or measured.metric != reference.metric or any(row.metric != measured.metric for row, _ in pairs):
        return ""
    if len(pairs) == 1:
        return compare_rows(*pairs[0])
    if reason := next((reason for pair in pairs if (reason := why_not_paired(*pair))), ""):
        return reason
    groups = seeds if len(seeds) > 1 else [[pair] for pair in pairs]  # one run is compared over its evaluations
    first, second = ([fmean(pair[i].score for pair in group) for group in groups] for i in (0, 1))
    return compare_repeated(first, second, SEEDED)


@dataclass(frozen=True)
class LineDifference:
    """A frozen dataclass that holds how much better one line of a sweep is than another, in one column."""

    line: str
    column: str
    reference: str
    """The line that it is compared with."""
    compared: Difference | str
    """The difference, or why there is none."""

    def record(self) -> dict[str, Any]:
        """Returns plain values for a file; the numbers are shares, from -1 to 1."""
        names = {"line": self.line, "over": self.reference, "column": self.column}
        if isinstance(self.compared, str):
            return {**names, "why_none": self.compared}
        return {**names, **asdict(self.compared), "verdict": self.compared.verdict}


def compare_lines(cells: Mapping[tuple[str, str], Measured], reference: str) -> list[LineDifference]:
    """Compares each line of a sweep's table with a reference, in each column that both have.

    Args:
        cells: The results in the sweep's table, by line and column.
        reference: The line that the others are compared with.

    Returns:
        The differences, line by line; none where there is nothing to compare.
    """
    differences = []
    for (line, column), measured in cells.items():
        against = cells.get((reference, column))
        if line == reference or against is None:
            continue
        if (compared := compare_measured(measured, against)) != "":
            differences.append(LineDifference(line, column, reference, compared))
    return differences


def differences_table(differences: Sequence[LineDifference]) -> Table | None:
    """Makes a table of the differences over one reference, with a line for each line and a column for each column.

    Args:
        differences: The differences, all over the same line.

    Returns:
        The table; None if there are none.
    """
    if not differences:
        return None
    columns = list(dict.fromkeys(difference.column for difference in differences))
    lines: dict[str, dict[str, Cell]] = {}
    kinds: dict[str, None] = {}
    reasons: dict[str, dict[str, None]] = {}
    for difference in differences:
        cells, compared = lines.setdefault(difference.line, {}), difference.compared
        if isinstance(compared, Difference):
            cells[difference.column] = Cell(str(compared), 100 * compared.value)
            kinds[compared.kind] = None
        else:
            reasons.setdefault(compared, {})[difference.line] = None
    notes = [f"no difference of {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    reference = differences[0].reference
    title = f"over {reference}: {'; '.join(kinds)}" if kinds else f"over {reference}"
    rows = [[line, *(cells.get(column, EMPTY) for column in columns)] for line, cells in lines.items()]
    return make_table(["", *columns], rows, title=title, notes=notes)
