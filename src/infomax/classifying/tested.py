"""What a test of a classifier has measured: scores of all images and of each class, and the answer on each image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from infomax.classifying.calibration import CalibrationBin
from infomax.classifying.classifier import NONE
from infomax.data.images.contract import Images
from infomax.data.splits import counted, listed
from infomax.reporting.tables import Cell, Table, make_table

SHOWN_CLASSES = 40
"""Classes that the table in a terminal shows."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """A frozen dataclass that holds the scores of one class."""

    name: str
    images: int
    """Number of its images."""
    recall: float | None
    """Share of its images that the most probable class is right for; None without images."""
    precision: float | None
    """Share that is right of the images whose most probable class it is; None if it is that of none."""
    none_of_these: int
    """Number of its images that are called none of these."""
    taken_for: str
    """The other class that most of its images are taken for; empty if none is."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTest:
    """A frozen dataclass that holds what was measured of a classifier."""

    data: str
    """Name of the images."""
    split: str
    images: int
    """Number of images of classes that the classifier knows."""
    accuracy: float
    """Share of them whose most probable class is right, also of those that are called none of these."""
    interval: tuple[float, float]
    """95 % interval of the accuracy."""
    mean_recall: float
    """Mean of the classes' recalls."""
    calibration_error: float
    """Expected calibration error."""
    mean_probability: float
    """Mean probability of the most probable class."""
    none_share: float
    """Share of usual images that may be called none of these."""
    none_of_these: int
    """Number of the images that are called none of these."""
    accuracy_of_others: float | None
    """Accuracy on those that are not; None if all are."""
    unknown_images: int
    """Number of images of classes that the classifier does not know, which count in nothing above."""
    unknown_classes: tuple[str, ...]
    unknown_none_of_these: int
    """Number of them that are called none of these."""
    fitted_images: int
    """Number of images that the classifier was fitted on, by their features."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """For each class, how many of its images got each label: the classes in their order, then none of these."""
    calibration: tuple[CalibrationBin, ...]
    """How often the most probable class is right, by its probability."""

    @property
    def label_accuracy(self) -> float:
        """Returns the share of the images whose label is right: it is wrong for those that are called none of these."""
        return sum(row[i] for i, row in enumerate(self.confusion)) / self.images

    @property
    def caveat(self) -> str:
        """Says that the scores are too high, as the classifier was fitted on some of the images; else empty."""
        if not self.fitted_images:
            return ""
        verb = "is" if self.fitted_images == 1 else "are"
        return (
            f"{counted(self.fitted_images)} of {self.images + self.unknown_images:,} {verb} the same as one that the "
            "classifier was fitted on, so the scores are too high"
        )

    def table(self) -> Table:
        """Returns the scores of each class as a table."""
        rows = [
            [
                x.name,
                _count(x.images),
                _per_cent(x.recall),
                _per_cent(x.precision),
                _count(x.none_of_these),
                x.taken_for,
            ]
            for x in self.classes
        ]
        return make_table(_COLUMNS, rows)

    def lines(self) -> list[str]:
        """Returns the scores of all images in words."""
        low, high = (100 * bound for bound in self.interval)
        lines = [
            f"accuracy {100 * self.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f}) on {counted(self.images)}, "
            f"by the most probable class; mean over classes {100 * self.mean_recall:.1f} %",
            f"calibration error {100 * self.calibration_error:.1f} %: the mean probability is "
            f"{100 * self.mean_probability:.1f} %",
        ]
        others = self.accuracy_of_others
        beside = "" if others is None else f"; accuracy on the others {100 * others:.1f} %"
        lines.append(
            f"{NONE}: {self.none_of_these:,} ({100 * self.none_of_these / self.images:.1f} %, --none-share "
            f"{self.none_share:g}){beside}"
        )
        if self.none_of_these:
            lines.append(f"accuracy by the label, for which {NONE} is wrong: {100 * self.label_accuracy:.1f} %")
        if self.unknown_images:
            lines.append(
                f"not counted: {counted(self.unknown_images)} of classes that the classifier does not know, "
                f"{listed(self.unknown_classes)}; {self.unknown_none_of_these:,} of them "
                f"({100 * self.unknown_none_of_these / self.unknown_images:.1f} %) are {NONE}"
            )
        return lines


_COLUMNS = ("class", "images", "recall, %", "precision, %", NONE, "most taken for")


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def _per_cent(share: float | None) -> Cell | str:
    return "" if share is None else Cell.per_cent(share)


@dataclass(frozen=True)
class ImageAnswers:
    """A frozen dataclass that holds what a classifier says of each image of a class that it knows."""

    images: Images
    rows: Int[np.ndarray, " n"]
    """Number of each of them in ``images``."""
    true: Int[np.ndarray, " n"]
    """Number of each image's class."""
    chosen: Int[np.ndarray, " n"]
    """Number of the most probable class."""
    probability: Float[np.ndarray, " n"]
    """Its probability."""
    is_fitted: Bool[np.ndarray, " n"]
    """Whether the classifier was fitted on the image."""

    def mistakes(self) -> Int[np.ndarray, " m"]:
        """Returns the numbers of the images that are named wrongly, the most probable answer first."""
        wrong = np.flatnonzero(self.chosen != self.true)
        return wrong[np.argsort(-self.probability[wrong], kind="stable")]
