"""Says what an evaluation did otherwise than the paper in whose table its result stands."""

from functools import singledispatch
from math import isclose

from infomax.evaluation.protocols.linear import SEARCHED_RATES
from infomax.evaluation.result_row import ResultRow
from infomax.evaluation.rows import FinetuneRow, LinearRow, TransferFinetuneRow
from infomax.papers.published import Column


@singledispatch
def departures(row: ResultRow, column: Column, paper: str) -> list[str]:
    """Returns words for what an evaluation did otherwise than the paper, which a report says beside the result.

    Args:
        row: The result.
        column: A published column that the result stands in.
        paper: Name of the column's paper, as ``MIRA``.
    """
    return [row.variant] if row.variant and not row.variant.startswith(paper.lower()) else []


@departures.register
def _(row: LinearRow, column: Column, paper: str) -> list[str]:
    """Returns another probe than the paper's, or what was changed in the paper's."""
    if row.probe is None or row.probe != column.probe:
        return [row.variant]
    from infomax.evaluation.probes import PROBES  # not before: it imports torch

    usual = PROBES[row.probe]
    words = [] if row.augmentation in (None, usual.augmentation) else ["probe without augmentation"]
    if row.epochs not in (None, usual.epochs):
        words.append(f"probe of {row.epochs} epochs")
    if row.batch_size not in (None, usual.batch_size):
        words.append(f"probe by batches of {row.batch_size}")
    if row.learning_rates is not None:  # the paper's search is no departure, whichever rate it chose
        if row.learning_rates != SEARCHED_RATES.get(row.probe):
            words.append(f"probe at rate {row.learning_rate:g}, the best of {len(row.learning_rates)}")
    elif row.learning_rate is not None and not isclose(row.learning_rate, usual.learning_rate):
        words.append(f"probe at rate {row.learning_rate:g}")
    return words


@departures.register
def _(row: FinetuneRow, column: Column, paper: str) -> list[str]:
    """Returns another setting than the paper's for this share of labels, or what was changed in it."""
    if row.setting != f"{paper.lower()}-{column.subset.removesuffix('percent')}":
        return [row.variant]
    from infomax.evaluation.finetune import SETTINGS  # not before: it imports torch

    usual = SETTINGS[row.setting]
    words = [] if row.epochs == usual.epochs else [f"fine-tuned for {row.epochs} epochs"]
    return words if row.batch_size == usual.batch_size else [*words, f"fine-tuned by batches of {row.batch_size}"]


@departures.register
def _(row: TransferFinetuneRow, column: Column, paper: str) -> list[str]:
    """Returns by how much the search is shorter than the paper's."""
    from infomax.evaluation.search import TRANSFER  # not before: it imports torch

    words = [] if len(row.tried) == row.grid else [f"{len(row.tried)} of {row.grid} pairs tried"]
    words += [] if row.steps == TRANSFER.steps else [f"fine-tuned for {row.steps} steps"]
    return words if row.batch_size == TRANSFER.batch_size else [*words, f"fine-tuned by batches of {row.batch_size}"]
