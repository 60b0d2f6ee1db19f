"""Dense features: a linear classifier and k-NN of the places of images, by masks (mean IoU)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from infomax.evaluation.dense.dense_row import DenseRow
from infomax.evaluation.options import EvaluationData, EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.sources.location import DataLocation
    from infomax.data.splits import Source

CLASSIFIERS = ("linear", "knn")
MAX_SIZE = 4096  # pixels


@dataclass(frozen=True, kw_only=True)
class DenseData(EvaluationData):
    """A frozen dataclass that says which images with masks an encoder is evaluated on."""

    data: Annotated[str | None, Shown(metavar="DIR", default="none: it must be named")] = None
    """Folder with train/images, train/masks, val/images and val/masks, whose masks are PNGs of class numbers, 255
    ignored; VOC's and ADE20K's folders; or a folder in COCO's format."""


@dataclass(frozen=True, kw_only=True)
class DenseOptions(ProtocolOptions):
    """Classifies each place of an image by the frozen feature map, linearly and by its nearest neighbours, and reports
    the mean IoU with masks."""

    classifier: Annotated[tuple[str, ...], Shown(metavar="NAME [NAME ...]")] = CLASSIFIERS
    """Classifiers of the places: linear, which is logistic regression with a penalty chosen on a fifth of the training
    images, and knn."""
    size: Annotated[int | None, Shown(metavar="N", default="the encoder's")] = None
    """Side of the square that each whole image is resized to, in pixels; a larger one gives a finer feature map."""
    positions: Annotated[int, Shown(metavar="N")] = 50_000
    """Places of training images to classify by, spread evenly over the images."""
    k: Annotated[int, Shown(metavar="N")] = 20
    """Neighbours that vote."""
    temperature: Annotated[float, Shown(metavar="T")] = 0.07
    """Temperature T of k-NN; a neighbour's vote weighs exp(cosine / T)."""
    ignore_background: bool = False
    """Neither train on nor score the pixels of class 0."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the choice of places."""

    def __post_init__(self) -> None:
        if not self.classifier:
            raise ValueError(f"--classifier wants one of {', '.join(CLASSIFIERS)}, or both")
        for name in self.classifier:
            choose("--classifier", name, CLASSIFIERS)
        for word, value in (("--positions", self.positions), ("--k", self.k)):
            check_count(word, value, low=1)
        if self.size is not None:
            check_count("--size", self.size, low=8)
            if self.size > MAX_SIZE:
                raise ValueError(f"--size must be at most {MAX_SIZE} pixels, but is {self.size}")
        check_number("--temperature", self.temperature, low=0, open_low=True)
        check_count("--seed", self.seed, low=0)

    @property
    def uses_labels(self) -> bool:
        """Returns False: masks are no classes of images, and the notes on the data say all of them."""
        return False


def open_data(location: "DataLocation") -> "Source":
    """Opens a folder of images and masks; see :func:`infomax.evaluation.dense.mask_folder.open_dense`."""
    from infomax.evaluation.dense.mask_folder import open_dense

    return open_dense(location)


def run(
    encoder: EncoderName, source: "Source", options: DenseOptions, evaluation: EvaluationOptions
) -> Iterator[DenseRow]:
    """Yields a row for each representation and classifier.

    See :func:`infomax.evaluation.dense.evaluate.evaluate_dense`.
    """
    from infomax.evaluation.dense.evaluate import DenseSetting, evaluate_dense
    from infomax.evaluation.dense.masks import DenseSource

    if not isinstance(source, DenseSource):
        raise ValueError("data must be a folder with masks: infomax evaluate dense takes no images themselves")
    yield from evaluate_dense(encoder, source, DenseSetting(**vars(options)), evaluation)


PROTOCOL = Protocol(
    name="dense",
    title="dense features",
    options=DenseOptions,
    rows=(DenseRow,),
    run=run,
    baselines=True,
    data=DenseData,
    open_data=open_data,
)
