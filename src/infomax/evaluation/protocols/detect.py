"""Detection and instance segmentation by Mask R-CNN (MIRA's Table 13, CorInfoMax's Table 11, MVEB's Table 5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from infomax.evaluation.detection.detect_row import PAPERS_PROTOCOLS, DetectRow
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.options import EvaluationData, EvaluationOptions
from infomax.evaluation.protocol import EncoderName, Protocol, ProtocolOptions
from infomax.runtime.options import Shown

if TYPE_CHECKING:
    from infomax.data.sources.location import DataLocation
    from infomax.data.splits import Source
    from infomax.papers.published import Column


@dataclass(frozen=True, kw_only=True)
class DetectData(EvaluationData):
    """A frozen dataclass that says which images with objects a detector is trained and tested on."""

    data: Annotated[str | None, Shown(metavar="DIR", default="coco below --data-dir")] = None
    """Folder in COCO's format: images, and a JSON of objects for train and val, as
    annotations/instances_train2017.json."""


@dataclass(frozen=True, kw_only=True)
class DetectOptions(DetectorSetting, ProtocolOptions):
    """Trains Mask R-CNN on the encoder and tests it by COCO's AP, as MIRA's Table 13 and MVEB's Table 5."""

    @property
    def uses_labels(self) -> bool:
        """Returns False: objects are no classes of images, and the notes on the data say all of them."""
        return False


def open_data(location: "DataLocation") -> "Source":
    """Opens a folder in COCO's format; see :func:`infomax.evaluation.detection.coco_folder.open_coco`."""
    from infomax.evaluation.detection.coco_folder import open_coco
    from infomax.evaluation.detection.masks import check_packages

    check_packages()
    return open_coco(location)


def run(
    encoder: EncoderName, source: "Source", options: DetectOptions, evaluation: EvaluationOptions
) -> Iterator[DetectRow]:
    """Yields one row; see :func:`infomax.evaluation.detection.detect.detect`."""
    from infomax.evaluation.detection.coco_folder import CocoSource
    from infomax.evaluation.detection.detect import detect

    if not isinstance(source, CocoSource):
        raise ValueError("data must be a folder in COCO's format: infomax evaluate detect takes no images themselves")
    yield detect(encoder, source, DetectorSetting(**vars(options)), evaluation=evaluation)


def options_for(column: "Column") -> DetectOptions | None:
    """Returns the options of the paper's own detector and schedule."""
    if column.protocol not in PAPERS_PROTOCOLS or not column.detector:
        return None
    arch, _, schedule = column.detector.partition("-")
    return DetectOptions(arch=arch, schedule=schedule)


PROTOCOL = Protocol(
    name="detect",
    title="detection and segmentation",
    options=DetectOptions,
    rows=(DetectRow,),
    run=run,
    data=DetectData,
    default_data=lambda _: ("coco",),
    open_data=open_data,
    options_for=options_for,
)
