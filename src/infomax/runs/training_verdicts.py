"""The verdicts on a run's training that stand at its end, as results, reports and the last lines of a run show them."""

from functools import lru_cache
from pathlib import Path

from infomax.analysis.verdict_rules.rule import Verdict
from infomax.analysis.verdicts import verdicts_of
from infomax.runs.run_folder import Run
from infomax.runtime.files import MOST_KEPT, state_of

STANDING = ("warning", "failed")
"""States of verdicts that were said and not withdrawn."""


def standing_verdicts(run: Run) -> tuple[Verdict, ...] | None:
    """Returns the verdicts that stand at the end of a run's metrics, the gravest first.

    Args:
        run: The run folder.

    Returns:
        The verdicts; None if the run's health was not measured, as before it could be.

    Raises:
        ValueError: if ``metrics.jsonl`` is damaged.
    """
    if not (file := run.path / "metrics.jsonl").is_file():
        return None
    return _standing_verdicts(run.path, state_of(file))


@lru_cache(maxsize=MOST_KEPT)
def _standing_verdicts(folder: Path, state: tuple[int, int, int]) -> tuple[Verdict, ...] | None:
    """Judges the metrics of a run, once for each state of their file: a comparison asks after each of its many runs."""
    run = Run(folder)
    if not any("health_rows" in row for row in run.read_rows("metrics.jsonl")):
        return None
    return tuple(verdict for verdict in verdicts_of(run) if verdict.state in STANDING)
