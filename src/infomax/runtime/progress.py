"""A progress bar, for a terminal and for a log file."""

import sys

from tqdm import tqdm


def progress_bar(what: str, total: int, *, done: int = 0, unit: str = "images", quiet: bool = False) -> tqdm:
    """A bar on the standard error; in a file, which keeps every line, one every ten seconds at most.

    Args:
        what: Is being done.
        done: Of ``total``, before now.
        quiet: No bar.
    """
    every = 0.1 if sys.stderr.isatty() else 10  # seconds
    form = "{desc} {percentage:3.0f}%|{bar:10}| {elapsed} done, {remaining} left, {rate_fmt}{postfix}"
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=f" {unit}",
        disable=quiet or done >= total,
        dynamic_ncols=True,
        mininterval=every,
        bar_format=form,
    )
