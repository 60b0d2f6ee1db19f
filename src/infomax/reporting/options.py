"""Options of reports and of lists of recipes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.recipes.registry import methods_with_papers
from infomax.runtime.options import Shown


@dataclass(frozen=True, kw_only=True)
class RecipeListOptions:
    """A frozen dataclass that holds all options of ``infomax recipes``."""

    names: Annotated[tuple[str, ...], Shown(metavar="[NAME ...]", positional=True)] = ()
    """Recipes, or patterns of their names, as 'mveb/imagenet*'."""
    paper: Annotated[str | None, Shown(metavar="|".join(methods_with_papers()), default="all")] = None
    """List the recipes of this paper."""
    data: Annotated[str | None, Shown(metavar="NAME", default="all")] = None
    """List the recipes for this data set."""
    hours: Annotated[float | None, Shown(metavar="X", default="all")] = None
    """List the recipes whose arithmetic one GPU is likely to do in so many hours."""
    gpu: Annotated[str, Shown(metavar="NAME")] = "A100"
    """Kind of GPU for the hours."""
    overrides: Annotated[tuple[str, ...], Shown(name="set", metavar="KEY=VALUE", repeatable=True)] = ()
    """Changes to the one recipe that is printed; they are marked."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """A frozen dataclass that holds all options of ``infomax report``."""

    results: Annotated[tuple[Path, ...], Shown(metavar="RUN|FILE [RUN|FILE ...]", positional=True)] = ()
    """Run folders, or files of results."""
    table: Annotated[str | None, Shown(metavar="ID", default="all with a column for one of the results")] = None
    """Show this table of a paper alone, as mira-5; list names all tables."""
