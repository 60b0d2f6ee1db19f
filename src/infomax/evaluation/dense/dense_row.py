"""The row of a dense classification: mean IoU, and that of each class. Torch is not imported."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from infomax.evaluation.result_row import Condition, Outcome, ResultRow, Score


class ClassIou(TypedDict):
    """A typed dictionary that holds how well one class that occurs in the masks is found."""

    name: str
    iou: float
    pixels: int
    """Pixels of the class in the masks to test on."""


@dataclass(frozen=True, kw_only=True)
class DenseRow(ResultRow):
    """A frozen dataclass that holds the mean IoU of one classifier of the places of images."""

    protocol: str = "dense"
    classifier: Annotated[str, Condition("classifier")]
    """``linear`` or ``knn``."""
    image_size: Annotated[int, Condition("size")]
    """Side of the square that images are resized to, in pixels."""
    cells: Annotated[tuple[int, int], Outcome()]
    """Rows and columns of the feature map, which the encoder and the size decide."""
    ignore_background: Annotated[bool, Condition("without background")] = False
    k: int | None = None
    temperature: float | None = None
    penalty: Annotated[float | None, Outcome()] = None
    """Penalty of logistic regression on half the squared weights, beside the mean cross-entropy."""
    positions: int
    """Cells of training images that were to be classified by."""
    used_positions: Annotated[int, Outcome()]
    """Cells that it is classified by, fewer if the images have no more."""
    seed: int
    """Seed of the choice of these cells."""
    mean_iou: Annotated[float, Score("mean IoU")]
    pixel_accuracy: Annotated[float, Score("pixel accuracy")]
    iou_by_class: Annotated[tuple[ClassIou, ...], Outcome()]
    """IoU of each class that occurs in the masks to test on."""

    @property
    def variant(self) -> str:
        """Name of the classifier."""
        return self.classifier

    @property
    def image_counts(self) -> dict[str, int]:
        """Numbers of images by the word for them."""
        return {"train": self.labelled_images or 0, "test": self.test_images}
