"""A column of paired differences: how much better a result of each line is than a reference, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

from infomax.evaluation.intervals import Difference
from infomax.evaluation.paired import PAIRED_METRICS, compare_rows, find_partner
from infomax.evaluation.result_row import ResultRow

BASELINES = ("initial encoder", "untrained encoder", "raw pixels")
"""Representations that a trained encoder is to surpass; they stand in no published table."""


@dataclass(frozen=True)
class DifferenceColumn:
    """A frozen dataclass that holds the last column of a table of results, and the lines that explain it."""

    header: str
    """Names the two that are compared, as ``a over it``."""
    cells: tuple[str, ...]
    """A text for each line of the table, as ``+1.9 (-0.8 to +4.6): not clearly better``; empty if there is none."""
    notes: tuple[str, ...]
    """Lines that say what the differences are."""
    reasons: tuple[str, ...]
    """Lines that say of which lines there is no difference, and why."""

    @property
    def is_empty(self) -> bool:
        """Returns whether no line has a difference."""
        return not any(self.cells)


def differences_over_baselines(
    rows: Sequence[ResultRow], names: Sequence[str], encoders: Sequence[str], encoder: str
) -> DifferenceColumn:
    """Returns how much better an encoder is than each of its baselines, in the lines of the baselines.

    Args:
        rows: The rows of a table, with their hits.
        names: The name of each in the table.
        encoders: The name of the encoder of each.
        encoder: The encoder that is compared with the others.
    """
    own = _rows_of(encoder, rows, encoders)
    pairs = []
    for row in rows:
        partner = find_partner(row, own) if row.representation in BASELINES else None
        pairs.append(None if partner is None else (partner, row))
    return _column(f"{encoder} over it", names, pairs)


def differences_over_run(
    rows: Sequence[ResultRow], names: Sequence[str], encoders: Sequence[str], reference: str
) -> DifferenceColumn:
    """Returns how much better each line is than one encoder, in its own line.

    Args:
        rows: The rows of a table, with their hits.
        names: The name of each in the table.
        encoders: The name of the encoder of each.
        reference: The encoder that all are compared with.
    """
    own = _rows_of(reference, rows, encoders)
    pairs = []
    for row, encoder in zip(rows, encoders, strict=True):
        partner = None if encoder == reference else find_partner(row, own)
        pairs.append(None if partner is None else (row, partner))
    return _column(f"over {reference}", names, pairs)


def _rows_of(encoder: str, rows: Sequence[ResultRow], encoders: Sequence[str]) -> list[ResultRow]:
    """Returns the rows of one encoder, the newest first."""
    return [row for row, name in zip(rows, encoders, strict=True) if name == encoder][::-1]


def _column(header: str, names: Sequence[str], pairs: Sequence[tuple[ResultRow, ResultRow] | None]) -> DifferenceColumn:
    """Returns the column of some pairs, of which the first row is compared with the second."""
    cells: list[str] = []
    kinds: dict[str, None] = {}
    reasons: dict[str, dict[str, None]] = {}
    for name, pair in zip(names, pairs, strict=True):
        compared = None if pair is None else compare_rows(*pair)
        if isinstance(compared, Difference):
            cells.append(str(compared))
            kinds[compared.kind] = None
        else:
            cells.append("")
            if compared and pair is not None and pair[0].metric in PAIRED_METRICS:
                reasons.setdefault(compared, {})[name] = None
    notes = tuple(f"{header}: {kind}" for kind in kinds)
    lines = tuple(f"no difference of {', '.join(lines)}: {reason}" for reason, lines in reasons.items())
    return DifferenceColumn(header, tuple(cells), notes, lines)
