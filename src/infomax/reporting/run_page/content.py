"""What the sections of a page are made of: runs, results, and for some runs their images and features.

No torch is imported here, so that what is shown of a run folder alone takes no seconds to import.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from infomax.data.splits import Source
from infomax.reporting.comparison import Report
from infomax.reporting.options import ReportOptions
from infomax.reporting.run_page.decisions import Decisions
from infomax.reporting.run_page.images import ShownImages
from infomax.reporting.run_page.shown_runs import Places, ShownRun
from infomax.runs.public_words import without_folders

if TYPE_CHECKING:
    from torch import Tensor

    from infomax.methods.base import Method
    from infomax.reporting.run_page.grouping import Groups


NAMES = ("infomax ", "k-NN", "k-means", "t-SNE")
"""What begins with a small letter at the beginning of a sentence too."""


@dataclass(frozen=True)
class ShownEncoder:
    """A frozen dataclass that holds a run whose images are shown, with their features."""

    shown: ShownRun
    images: ShownImages
    features: "Tensor" = field(repr=False)
    """In float32, [n, d]."""
    reference: str
    """Name of the encoder that it is compared with: ``initial encoder`` or ``untrained encoder``."""
    reference_features: "Tensor" = field(repr=False)
    """In float32, [n, d]."""
    seed: int
    """Seed of k-means."""
    side: int
    """Longer side of its thumbnails, in pixels."""
    method: "Method | None" = field(repr=False)
    """The method as it was trained, on the CPU; None if it cannot be opened."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.shown.name

    @cached_property
    def prototypes(self) -> "Groups | None":
        """The images by prototypes; None if the method has none, or nothing but its encoder is kept."""
        from infomax.reporting.run_page.grouping import by_prototypes

        return None if self.method is None else by_prototypes(self.method, self.features)

    @cached_property
    def clusters(self) -> "Groups":
        """The images by k-means; of at least two images."""
        from infomax.reporting.run_page.grouping import by_k_means

        return by_k_means(self.features, self.seed)


@dataclass(frozen=True)
class Content:
    """A frozen dataclass that holds all that the sections of a page are made of."""

    places: Places
    options: ReportOptions
    report: Report | None
    """The tables of results; None if there are no results."""
    sources: Mapping[str, Source]
    """The images of each run by its name, if they are there."""
    encoders: tuple[ShownEncoder, ...]
    """The runs whose images are shown."""
    missing: Mapping[str, str]
    """Why the images of a run are not shown, by its name."""
    other_images: Mapping[str, str]
    """How the images that are shown differ from those that a run was trained on, by its name."""
    decisions: Decisions

    @property
    def runs(self) -> tuple[ShownRun, ...]:
        """All runs."""
        return self.places.runs

    def prefix(self, shown: ShownRun) -> str:
        """Returns what stands before words about a run: its name, as ``a: ``, if there are several."""
        return f"{shown.name}: " if len(self.runs) > 1 else ""


def headed(prefix: str, words: str) -> str:
    """Returns a heading or a sentence: the prefix and the words, or the words alone with a capital.

    Args:
        prefix: As ``a: ``, or empty.
        words: Words that begin with a small letter.
    """
    if prefix or words.startswith(NAMES):
        return f"{prefix}{words}"
    return f"{words[:1].upper()}{words[1:]}"


def public(text: str) -> str:
    """Returns words as they stand on the page: absolute paths are cut down to their last name."""
    return without_folders(text)
