"""Says which range of values a run's images were read with. No torch is imported."""

from os import PathLike, fspath

from infomax.runs.run_folder import run_of
from infomax.runtime.text import note


def trained_value_range(encoder: str | PathLike[str]) -> str | None:
    """Returns the range of values that a run's images were read with, and prints a line that it is taken.

    Args:
        encoder: A run folder, or any other encoder.

    Returns:
        ``LOW,HIGH``; None if it is no run, or one that took the range of its images' format.
    """
    if (run := run_of(encoder)) is None:
        return None
    value_range = run.location.value_range
    if value_range is not None:
        note(f"--value-range {value_range} is taken, with which {fspath(encoder)} was trained")
    return value_range
