"""Makes progress bars that suit a terminal and a log file."""

import sys

from tqdm import tqdm

from infomax.runtime.text import escape


def progress_bar(task: str, total: int, *, done: int = 0, unit: str = "images", quiet: bool = False) -> tqdm:
    """Returns a progress bar on the standard error.

    It is drawn up to ten times a second in a terminal, and every ten seconds if the standard error is a file, which
    keeps every line.

    Args:
        task: The word or two in front of the bar.
        total: Number of units in all.
        done: Number of units that were done before now.
        unit: Name of a unit, in the plural.
        quiet: Whether to show no bar.
    """
    seconds_between_updates = 0.1 if sys.stderr.isatty() else 10
    layout = "{desc} {percentage:3.0f}%|{bar:10}| {elapsed} done, {remaining} left, {rate_fmt}{postfix}"
    return tqdm(
        desc=escape(task),
        total=total,
        initial=done,
        unit=f" {unit}",
        disable=quiet or done >= total,
        dynamic_ncols=True,
        mininterval=seconds_between_updates,
        bar_format=layout,
    )
