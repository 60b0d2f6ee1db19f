"""Options of reports and of lists of recipes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.evaluation.options import ComputeOptions
from infomax.recipes.registry import methods_with_papers, named_methods
from infomax.runtime.checks import check_count
from infomax.runtime.options import Shown, option_fields


@dataclass(frozen=True, kw_only=True)
class RecipeListOptions:
    """A frozen dataclass that holds all options of ``infomax recipes``."""

    names: Annotated[tuple[str, ...], Shown(metavar="[NAME ...]", positional=True)] = ()
    """Recipes, or patterns of their names, as 'mveb/imagenet*'; or methods, as simclr, or baselines for all of these.
    """
    paper: Annotated[str | None, Shown(metavar="|".join(methods_with_papers()), default="all")] = None
    """List the recipes of this paper."""
    method: Annotated[str | None, Shown(metavar=f"{named_methods()}, baselines for all", default="all")] = None
    """List the recipes of this method."""
    data: Annotated[str | None, Shown(metavar="NAME", default="all")] = None
    """List the recipes for this data set."""
    hours: Annotated[float | None, Shown(metavar="X", default="all")] = None
    """List the recipes whose arithmetic one GPU is likely to do in so many hours."""
    gpu: Annotated[str, Shown(metavar="NAME")] = "A100"
    """Kind of GPU for the hours."""
    overrides: Annotated[tuple[str, ...], Shown(name="set", metavar="KEY=VALUE", repeatable=True)] = ()
    """Changes to the one recipe that is printed; they are marked."""


MOST_IMAGES = 200_000
"""Images that a page shows of a data set, at most: more points would make it too large for a phone."""
LEAST_IMAGES = 2
PAGE_SUFFIXES = (".html",)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(ComputeOptions):
    """A frozen dataclass that holds all options of ``infomax report``."""

    results: Annotated[tuple[Path, ...], Shown(metavar="RUN|FILE [RUN|FILE ...]", positional=True)] = ()
    """Run folders, or files of results."""
    table: Annotated[str | None, Shown(metavar="ID", default="all with a column for one of the results")] = None
    """Show this table of a paper alone, as mira-5; list names all tables."""
    out: Annotated[Path | None, Shown(metavar="FILE", default="print tables")] = None
    """File to write: one .html page with the verdicts on each training, its curves, its views, neighbours and groups of
    images, and the tables."""
    overwrite: bool = False
    """Replace the file if it exists."""
    data: Annotated[str | None, Shown(metavar="DIR|FILE|NAME", default="what each run was trained on")] = None
    """The images to show, if they are elsewhere now, or others: as infomax pretrain takes them."""
    max_images: Annotated[int, Shown(metavar="N")] = MOST_IMAGES
    """Images of a data set whose features are computed, at most; of more, so many are drawn over all of them."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of what is drawn: the images that are shown, and the starts of k-means."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--seed", self.seed, low=0)
        check_count("--max-images", self.max_images, low=LEAST_IMAGES)
        if self.max_images > MOST_IMAGES:
            raise ValueError(f"--max-images must be at most {MOST_IMAGES:,}, but is {self.max_images:,}")
        if self.out is not None and self.table == "list":
            raise ValueError("--table list prints the names of the tables; --out takes none or one of them")
        if self.out is None and (given := self._given_for_a_page()):
            raise ValueError(f"{given} is for a page of images; --out FILE.html writes one")

    def _given_for_a_page(self) -> str:
        """Returns the first option that was given and that a page alone has a use for; empty if there is none."""
        for field in option_fields(type(self)):
            if field.name not in ("results", "table", "out") and getattr(self, field.name) != field.default:
                return field.word
        return ""
