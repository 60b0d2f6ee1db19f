"""Options of figures, shared by the command and Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.evaluation.options import ComputeOptions
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown

PICTURE_SUFFIXES = (".png", ".svg")
ANIMATION_SUFFIX = ".gif"


@dataclass(frozen=True, kw_only=True)
class FigureOptions(ComputeOptions):
    """A frozen dataclass that holds all options of ``infomax figure`` and :func:`infomax.figure`."""

    name: Annotated[str | None, Shown(metavar="NAME", default="list all figures", positional=True)] = None
    """Figure to make, as mira-convergence."""
    runs: Annotated[tuple[Path, ...], Shown(metavar="RUN|SWEEP [RUN|SWEEP ...]", positional=True)] = ()
    """Run folders, or folders of sweeps, which stand for all of their runs; infomax figure NAME --about says which
    ones the figure takes, and what makes them."""
    out: Annotated[Path | None, Shown(metavar="FILE", default="NAME.png in this folder")] = None
    """File to write: .png or .svg, or .gif for an animation if the figure has one. A .csv with all numbers is written
    beside it."""
    overwrite: bool = False
    """Replace both files if they exist."""
    about: bool = False
    """Print what the figure shows, the runs that it takes and what makes them, its settings and its columns."""
    data: Annotated[str | None, Shown(metavar="DIR|FILE|NAME", default="what each run was trained on")] = None
    """The images, if they are elsewhere now, or others: as infomax pretrain takes them."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of what the figure draws at random, as batches of images."""
    overrides: Annotated[tuple[str, ...], Shown(name="set", metavar="KEY=VALUE", repeatable=True)] = ()
    """Setting of the figure, as batches=1000; --about lists them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--seed", self.seed, low=0)
