"""Defines the command ``infomax figure``."""

from infomax.cli.command import Command
from infomax.figures.options import FigureOptions
from infomax.runtime.text import note, show


def figure(options: FigureOptions) -> None:
    """Carries out ``infomax figure``."""
    from infomax.figures.about import about_figure, list_figures

    if options.name is None:
        show(list_figures())
        note("infomax figure NAME --about says how to make one, and lists its settings")
        return
    if options.about:
        show(about_figure(options.name))
        return
    from infomax.figures.make import make_figure

    made = make_figure(options, quiet=False)
    show(f"written to {made.picture}, and its numbers to {made.data}")


FIGURE = Command(
    "figure",
    FigureOptions,
    "Make one of the papers' figures, with its numbers as CSV; or list them all.",
    figure,
)
