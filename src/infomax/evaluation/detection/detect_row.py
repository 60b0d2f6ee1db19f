"""The row of a detection: AP of boxes and masks, and by which detector and schedule. Torch is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.result_row import Condition, Outcome, ResultRow, Score
from infomax.runtime.identity import specification_hash
from infomax.runtime.json_lines import append_json_line, read_json_lines
from infomax.runtime.json_values import parse_value
from infomax.runtime.text import note

if TYPE_CHECKING:
    from infomax.papers.published import Column

PAPERS_PROTOCOLS = ("detection", "segmentation")


class DrawnImage(TypedDict):
    """A typed dictionary that holds the pictures of one image, JPEGs in base64."""

    name: str
    true: str
    """With the true objects drawn over it."""
    detected: str
    """With the detected objects drawn over it."""
    true_objects: int
    detected_objects: int


class DetectionPoint(TypedDict):
    """A typed dictionary that holds the scores after some iterations, from 0 to 1."""

    iteration: int
    loss: float
    """Mean over the iterations since the last point."""
    box_ap: float
    box_ap50: float
    box_ap75: float
    mask_ap: float
    mask_ap50: float
    mask_ap75: float


@dataclass(frozen=True, kw_only=True)
class DetectRow(ResultRow):
    """A frozen dataclass that holds the AP of boxes and masks after the last iteration, and by which detector."""

    protocol: str = "detect"
    arch: Annotated[str, Condition("arch")]
    schedule: Annotated[str, Condition("schedule")]
    budget: Annotated[int | None, Condition("budget")] = None
    """Iterations in place of the schedule's."""
    iterations: int
    batch_size: int
    micro_batch_size: int | None = None
    learning_rate: float
    norm: Annotated[str, Condition("norm")]
    freeze: int
    head: str
    """Head for boxes: ``res5``, ``conv`` or ``fc``."""
    boxes_per_image: int
    train_sides: tuple[int, ...]
    test_side: int
    precise_batches: int
    precision: str
    seed: int
    ranks: int
    scorer: str
    """What computed the scores, with its version."""
    box_ap: Annotated[float, Score("box AP")]
    box_ap50: Annotated[float, Score("box AP50")]
    box_ap75: Annotated[float, Score("box AP75")]
    mask_ap: Annotated[float, Score("mask AP")]
    mask_ap50: Annotated[float, Score("mask AP50")]
    mask_ap75: Annotated[float, Score("mask AP75")]
    points: Annotated[tuple[DetectionPoint, ...], Outcome()]
    """Scores on the way."""
    pictures_hash: Annotated[str | None, Outcome()] = None
    """Hash of ``pictures``, under which the file of pictures beside the results has them."""
    pictures: Annotated[tuple[DrawnImage, ...] | None, Outcome()] = field(default=None, compare=False, repr=False)
    """Pictures of some test images. They are kept in a file of their own, and a row that is read has none."""

    @property
    def variant(self) -> str:
        """Name of the detector and its schedule."""
        return f"{self.arch}-{self.schedule}"

    @property
    def image_counts(self) -> dict[str, int]:
        """Numbers of images by the word for them."""
        return {"train": self.labelled_images or 0, "test": self.test_images}

    @property
    def setting(self) -> DetectorSetting:
        """How the detector was built and trained."""
        names = ("arch", "schedule", "budget", "batch_size", "micro_batch_size", "learning_rate", "norm", "freeze")
        names += ("boxes_per_image", "train_sides", "test_side", "precise_batches", "precision", "seed")
        box_head = None if self.arch == "c4" else self.head
        return DetectorSetting(**{name: getattr(self, name) for name in names}, box_head=box_head)

    def fits(self, column: "Column") -> bool:
        """Returns whether a column of a published table measures the same, by the same detector and schedule."""
        if column.protocol not in PAPERS_PROTOCOLS or column.detector != self.variant:
            return False
        is_same = (self.data, self.subset) == (column.data, column.subset) and not self.setting.departures
        return is_same and getattr(self, column.metric, None) is not None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain values for a line of JSON, without the pictures."""
        return {name: value for name, value in super().to_json().items() if name != "pictures"}

    def write_beside(self, results: Path) -> Path | None:
        """Adds the pictures to a file of their own, and returns it; None, and a line says why, if that fails."""
        if not self.pictures or self.pictures_hash is None:
            return None
        file = pictures_file(results)
        try:
            append_json_line(file, {"hash": self.pictures_hash, "pictures": list(self.pictures)})
        except OSError as error:
            note(f"{file} cannot be written ({error.strerror or error}): the result is kept without its pictures")
            return None
        return file

    @property
    def words_beside(self) -> str:
        """What the file holds that :meth:`write_beside` returns."""
        return "pictures of some test images, which infomax report --out shows, are kept in"


def pictures_file(results: Path) -> Path:
    """Returns the file of pictures beside a file of results: ``results.pictures.jsonl`` beside ``results.jsonl``."""
    return results.with_suffix(".pictures.jsonl")


def hash_pictures(pictures: Sequence[DrawnImage]) -> str:
    """Returns the hash of some pictures."""
    return specification_hash(list(pictures))


def read_pictures(results: Path, wanted: str) -> tuple[DrawnImage, ...]:
    """Reads the pictures with a hash that stand beside a file of results; none if they are not there.

    Raises:
        ValueError: naming the file and the key, if a value is of another type.
    """
    file = pictures_file(results)
    for line in reversed(read_json_lines(file) if file.is_file() else []):
        if line.get("hash") == wanted:
            pictures = parse_value(line.get("pictures"), tuple[DrawnImage, ...], f"{file}: pictures")
            return pictures if hash_pictures(pictures) == wanted else ()
    return ()
