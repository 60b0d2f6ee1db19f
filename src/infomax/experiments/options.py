"""Options of sweeps, comparisons and the demo, shared by the command and Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infomax.data.options import DataOptions
from infomax.evaluation.options import ComputeOptions
from infomax.runtime.checks import check_count, choose
from infomax.runtime.options import Shown
from infomax.training.options import ExecutionOptions, KeptEncoderOptions, MachineOptions, RecipeChangeOptions

DEFAULT_COMPARE_FOLDER = Path("runs/compare")
LEAST_IMAGES = 16  # of fewer, no measure says anything
MEASURE_NAMES = (
    *("rankme", "effective_rank", "participation_ratio", "stable_rank", "alpha_req", "spectrum_auc"),
    *("self_clustering", "lidar", "embedding_rankme", "embedding_effective_rank", "embedding_uniformity"),
    *("embedding_alignment", "assignment_mutual_information", "loss"),
)
"""The measures that rank runs, by name: those of features, and those that the metrics of the runs have."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(KeptEncoderOptions, ExecutionOptions, MachineOptions, RecipeChangeOptions, DataOptions):
    """A frozen dataclass that holds all options of ``infomax sweep`` and :func:`infomax.sweep`."""

    what: Annotated[tuple[str, ...], Shown(metavar="TABLE|RECIPE [RECIPE ...]", positional=True)]
    """A published table, as mira-14, for all recipes with a number in it (infomax report --table list names them), or
    for those of them that follow, as mira-5 'mira/*'; or recipes, as carl/small, or patterns, as 'carl/stl10*'."""
    out: Annotated[Path, Shown(metavar="DIR")]
    """Folder for all runs, the table, its figure and a page. The same command goes on if it was stopped."""
    vary: Annotated[tuple[str, ...], Shown(metavar="KEY=VALUE,VALUE", repeatable=True)] = ()
    """Values of a setting to try with each recipe, as method.prototypes=100,300,1000."""
    seeds: Annotated[int, Shown(metavar="N")] = 1
    """Number of runs of each recipe, with the seeds from 0 up."""
    evaluation_seeds: Annotated[
        int | None, Shown(metavar="N", default="as many as the table's numbers are the mean of, else 1")
    ] = None
    """Number of times that each run is evaluated, with the seeds of the evaluation from its own up; what is not random
    is evaluated once."""
    evaluate: Annotated[
        tuple[str, ...],
        Shown(metavar="WORDS", repeatable=True, default="as the table or the recipe's paper measured it, else knn"),
    ] = ()
    """Evaluation of each run, in the words of infomax evaluate, as 'linear --probe mira'."""
    commands: bool = False
    """Only list the commands that are left, one line for each run, instead of carrying them out; for a cluster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--seeds", self.seeds, low=1)
        if self.evaluation_seeds is not None:
            check_count("--evaluation-seeds", self.evaluation_seeds, low=1)


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ExecutionOptions, MachineOptions, RecipeChangeOptions, DataOptions):
    """A frozen dataclass that holds all options of ``infomax compare`` and :func:`infomax.compare`."""

    methods: Annotated[
        tuple[str, ...],
        Shown(metavar="NAME,NAME", repeatable=True, default="papers, and a few strong baselines"),
    ] = ()
    """Methods to compare, with commas between; papers are those of the four papers, baselines all others, and all both.
    """
    budget: Annotated[str | None, Shown(metavar="30m|20epochs", default="10m")] = None
    """What each run has: training time, as 90s, 30m or 2h, or passes over the images, as 20epochs. The schedule of each
    run ends with it."""
    seeds: Annotated[int, Shown(metavar="N")] = 3
    """Number of runs of each method, with the seeds from 0 up, which are the same for all methods."""
    recipe: Annotated[str | None, Shown(metavar="NAME", default="one that suits the images and the machine")] = None
    """Recipe of each method to start from, without the method's name, as small."""
    epochs: Annotated[int | None, Shown(metavar="N", default="as the budget says")] = None
    """Passes over the images of each run: the same as --budget Nepochs."""
    evaluate: Annotated[
        tuple[str, ...],
        Shown(metavar="WORDS", repeatable=True, default="linear, and knn; without labels none"),
    ] = ()
    """Evaluation of each run, in the words of infomax evaluate, as 'linear --probe mira'. Methods are ranked by the
    first."""
    out: Annotated[Path, Shown(metavar="DIR")] = DEFAULT_COMPARE_FOLDER
    """Folder for all runs, compare.json and the page compare.html. The same command goes on if it was stopped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--seeds", self.seeds, low=1)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """A frozen dataclass that holds all options of ``infomax demo``."""

    out: Annotated[
        Path | None, Shown(metavar="DIR", default="runs/demo, or the first free one of runs/demo-2, ...")
    ] = None
    """Folder for the run folders, one for each method. A demo that was interrupted there goes on, and so does the one
    that was begun last if no folder is named."""


@dataclass(frozen=True, kw_only=True)
class ChooseOptions(ComputeOptions):
    """A frozen dataclass that holds all options of :func:`infomax.choose`."""

    runs: Annotated[tuple[Path, ...], Shown(metavar="RUN [RUN ...]", positional=True)] = ()
    """Run folders, which were trained on the same images."""
    epochs: bool = False
    """Rank the encoders that the runs kept on the way too, as --keep-epochs made them."""
    by: Annotated[str | None, Shown(metavar="MEASURE", default="for each method the one that the study found best")] = (
        None
    )
    """Measure that ranks: rankme, effective_rank, participation_ratio, stable_rank, alpha_req, spectrum_auc,
    self_clustering, lidar, or one that the metrics of the runs have, as loss."""
    images: Annotated[int, Shown(metavar="N")] = 1000
    """Images to measure on, of those that the runs were trained on, at equal distances."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("--images", self.images, low=LEAST_IMAGES)
        if self.by is not None:
            choose("--by", self.by, MEASURE_NAMES)


@dataclass(frozen=True, kw_only=True)
class ChooseFileOptions(ChooseOptions):
    """A frozen dataclass that holds all options of ``infomax choose``."""

    out: Annotated[Path | None, Shown(metavar="FILE", default="none")] = None
    """File to write: .html is a page with the order, how far to trust it and charts; .jsonl and .csv have a line for
    each encoder with all of its measures."""
    overwrite: bool = False
    """Replace the file."""
