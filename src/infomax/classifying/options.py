"""Options of ``infomax classify``: fit, run and test. Torch is not imported."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from infomax.data.options import DataOptions
from infomax.evaluation.options import ComputeOptions
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.options import Shown, option_names

PREDICTION_SUFFIXES = (".csv", ".jsonl", ".parquet", ".html")
"""Suffixes of the files that ``infomax classify run`` writes."""
NONE_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class ClassifyFitOptions(DataOptions, ComputeOptions):
    """Fits a classifier of your classes on the features of an encoder, and keeps all that it needs in a folder."""

    encoder: Annotated[str, Shown(metavar="ENCODER", positional=True)]
    """A run folder; timm:NAME, torchvision:NAME or hf:NAME; or a checkpoint file."""
    data: Annotated[str, Shown(metavar="DIR|FILE|NAME")] = field()
    """Images with labels: a folder with a sub-folder for each class; a .csv with a line path,label for each image, its
    paths relative to itself; an .npz of arrays; a data set's name, as cifar10; or hf:NAME."""
    labels: Annotated[Path | None, Shown(metavar="FILE", default="those of --data")] = None
    """CSV with a line path,label for each image, its paths relative to the folder that --data names."""
    out: Annotated[Path, Shown(metavar="DIR")] = field()
    """Folder to make, which holds the classifier."""
    none_share: Annotated[float, Shown(metavar="SHARE")] = NONE_SHARE
    """Share of images like those that it is fitted on that may be called none of these, because their features are far
    from those of all classes; a larger share finds more images of other things. At 0 no image is."""
    penalty: Annotated[float | None, Shown(metavar="X", default="the best of five on held-out images")] = None
    """Penalty on half the squared weights, beside the mean cross-entropy."""
    finetune: bool = False
    """Train the encoder together with the classifier, on four fifths of the images; the last fifth is held out."""
    epochs: Annotated[int | None, Shown(metavar="N", default="20, or as many as make 500 steps")] = None
    """Passes over the images of --finetune."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed by which images are held out, and of the order and the crops of --finetune."""
    overwrite: bool = False
    """Replace a classifier that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.none_share)
        check_count("--seed", self.seed, low=0)
        if self.penalty is not None:
            check_number("--penalty", self.penalty, low=0, open_low=True)
        if self.epochs is not None:
            check_count("--epochs", self.epochs, low=1)
            if not self.finetune:
                raise ValueError(f"--epochs {self.epochs} is for --finetune; without it, the classifier has no epochs")


@dataclass(frozen=True, kw_only=True)
class ClassifyRunOptions(DataOptions, ComputeOptions):
    """Names the class of each image, with a calibrated probability, or none of these."""

    classifier: Annotated[str, Shown(metavar="CLASSIFIER", positional=True)]
    """Folder that infomax classify fit wrote."""
    data: Annotated[str, Shown(metavar="DIR|FILE|NAME")] = field()
    """Images to classify; no labels are needed: a folder of images or one image; an .npz or .npy of arrays; a .txt or
    .csv of paths; a data set's name, as cifar10; or hf:NAME."""
    out: Annotated[Path, Shown(metavar="FILE")] = Path("labels.csv")
    """File to write: .csv is a table, .jsonl has a line of JSON for each image, .parquet is a table with types, .html a
    page with images of each label."""
    none_share: Annotated[float | None, Shown(metavar="SHARE", default="the classifier's")] = None
    """Share of images like those that it was fitted on that may be called none of these; at 0 no image is."""
    overwrite: bool = False
    """Replace the file if it exists."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.none_share)


@dataclass(frozen=True, kw_only=True)
class ClassifyTestOptions(DataOptions, ComputeOptions):
    """Measures a classifier on labelled images that it was not fitted on."""

    classifier: Annotated[str, Shown(metavar="CLASSIFIER", positional=True)]
    """Folder that infomax classify fit wrote."""
    data: Annotated[str, Shown(metavar="DIR|FILE|NAME")] = field()
    """Images with labels, as for infomax classify fit. If they have a test split, that is taken, and else all of
    them."""
    labels: Annotated[Path | None, Shown(metavar="FILE", default="those of --data")] = None
    """CSV with a line path,label for each image, its paths relative to the folder that --data names."""
    out: Annotated[Path, Shown(metavar="DIR|FILE.html")] = Path("classify-test")
    """Folder to make: the confusion matrix as a picture and a table, the scores of each class, and all of it as JSON.
    Or a page to write, which ends in .html: the same with the calibration and the most confident mistakes."""
    none_share: Annotated[float | None, Shown(metavar="SHARE", default="the classifier's")] = None
    """Share of images like those that it was fitted on that may be called none of these; at 0 no image is."""
    overwrite: bool = False
    """Replace the folder if it is of an earlier test, or the page."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.none_share)


def check_names(words: Iterable[str], options: type) -> None:
    """Raises ValueError if a keyword is no field of an options class."""
    for name in words:
        choose("a keyword", name, option_names(options))


def check_share(share: float | None) -> None:
    """Raises ValueError unless a share of images that may be called none of these is from 0 to 1, or not given."""
    if share is not None:
        check_number("--none-share", share, low=0, high=1)
