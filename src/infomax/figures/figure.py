"""The contract of a figure: what it needs, what it computes, part by part, and how it is drawn. No torch is imported.

A figure is one file of :mod:`infomax.figures.catalogue` with ``FIGURE = Figure(...)`` at its end, and one line in the
list there. How it is made:

1. ``check(request)`` refuses runs of which the figure cannot be made, before torch is imported.
2. ``parts(request)`` returns the parts of the work. What a part computed is kept at once, so that an interruption
   loses the part under way alone: a part is made as small as the work allows.
3. ``draw(figure, rows)`` draws the rows of all parts, and nothing but what stands in them. The same rows are the CSV.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infomax.figures.options import FigureOptions
from infomax.runs.run_folder import Run
from infomax.runtime.options import option_fields, parse_option

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure as Picture

Row = dict[str, Any]
"""A line of the CSV: a number or a text for each column; None leaves the cell empty."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """A frozen dataclass without fields: the settings of a figure that has none."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """A frozen dataclass that says which runs a figure takes, and what makes them."""

    runs: str = ""
    """Words for the runs, as ``a run of MIRA``; empty if the figure takes none."""
    commands: tuple[str, ...] = ()
    """Commands that make such runs as the paper's; then others that do it on a CPU."""
    required: bool = True
    """Whether the figure cannot be made without."""


@dataclass(frozen=True)
class FigureRequest:
    """A frozen dataclass that holds what one figure is made of."""

    options: FigureOptions
    runs: tuple[Run, ...]
    settings: Any
    """An object of the figure's class of settings."""

    @property
    def device(self) -> "torch.device":
        """The device to compute on."""
        return self.options.torch_device


@dataclass(frozen=True)
class Part:
    """A frozen dataclass that holds a part of a figure's work, which is computed in one go and then kept."""

    name: str
    """It tells the part from all others of the figure, and names it in a progress bar."""
    compute: Callable[[], list[Row]]


Parts = Callable[[FigureRequest], Sequence[Part]]
Draw = Callable[["Picture", Sequence[Row]], None]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A frozen dataclass that describes a figure, or a table that is measured, not trained for."""

    name: str
    """Its word after ``infomax figure``."""
    title: str
    """What it shows, in one line."""
    text: str
    """How it is computed, and how it is read: some sentences."""
    sources: tuple[str, ...]
    """What it makes of the papers, as ``MIRA Figure 2``: names of ``papers/*.toml``; empty for what is ours."""
    needs: Needs = field(default_factory=Needs)
    settings: type = NoSettings
    """A frozen dataclass of plain values, whose defaults are the paper's as far as a CPU allows."""
    columns: Mapping[str, str]
    """What each column of the CSV holds, with its unit."""
    check: Callable[[FigureRequest], None] = lambda request: None
    """Raises ValueError, in one line, if the figure cannot be made of the runs."""
    parts: Parts
    reads_only: bool = False
    """Whether it reads metrics and results alone, in no time: torch is then not imported, and nothing is kept."""
    count: Callable[[Sequence[Row]], str]
    """Returns words for what the numbers are of: n, as ``50 batches of 512 images``."""
    draw: Draw
    size: tuple[float, float] = (7.0, 4.2)
    """Inches."""
    animate: "Callable[[Picture, Sequence[Row]], Animation] | None" = None
    """Draws the first frame, and returns what changes it; None if the figure does not move."""
    minutes: float | None = None
    """Minutes that it took on two cores, with the runs there and the settings' defaults; None if not measured."""

    @property
    def paper_words(self) -> str:
        """Returns the sources in words, as ``MIRA Figure 2``."""
        return ", ".join(self.sources) or "ours"


@dataclass(frozen=True)
class Animation:
    """A frozen dataclass that holds the frames of a figure that moves."""

    frames: int
    show: Callable[[int], None]
    """Changes the picture to the frame of a number, from 0."""
    seconds: float
    """Duration of all frames."""


def parse_settings(figure: Figure, overrides: Sequence[str]) -> Any:
    """Returns the settings of a figure with changes.

    Args:
        figure: The figure.
        overrides: Words, as ``batches=1000``; values of several numbers have commas between them.

    Raises:
        ValueError: if there is no such setting, or a value is of another type or out of range.
    """
    fields = {known.name: known for known in option_fields(figure.settings)}
    values: dict[str, Any] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or key not in fields:
            known = f"the settings of {figure.name} are {', '.join(fields)}" if fields else f"{figure.name} has none"
            raise ValueError(f"--set {word}: {known}, as KEY=VALUE")
        several = fields[key].takes_several
        try:
            values[key] = parse_option(fields[key], text.split(",") if several else [text])
        except ValueError as error:
            raise ValueError(str(error).replace(fields[key].word, f"--set {key}")) from None
    return figure.settings(**values)
