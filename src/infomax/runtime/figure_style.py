"""Draws figures in matplotlib's own style, whatever file of settings lies in the working folder."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def default_style() -> Generator[None]:
    """Gives figures that are made until the block ends the style of matplotlib, and then restores the caller's.

    A file ``matplotlibrc`` in the working folder would change pictures, and may have text set by another program.
    """
    import matplotlib

    # The backend is not ours to change; figures that are written to a file need none.
    style = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(style):
        yield
