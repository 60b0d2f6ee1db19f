"""A classifier: an encoder, a linear layer on its features, and what is known of the images that it was fitted on.

Its folder holds all of it, in files of JSON and safetensors: nothing in it can run code, and nothing outside of it is
needed to use it.
"""

import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.classifying.calibration import calibrated
from infomax.classifying.known_features import SKETCH, ClassShapes, KnownFeatures
from infomax.classifying.options import check_share
from infomax.classifying.outputs import CLASSIFIER, check_classifier
from infomax.models.encoders import Encoder, fingerprint, load_encoder
from infomax.models.foreign_files import read_tensors
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_value, read_json

WEIGHTS = "classifier.safetensors"
NONE = "none of these"


@dataclass(frozen=True, kw_only=True)
class EncoderOrigin:
    """A frozen dataclass that says where a classifier's encoder came from."""

    name: str
    """Name by which it was opened, without folders of the machine."""
    hash: str
    """Hash of its architecture and weights."""
    licence: str
    """Words for the licence of its weights."""


@dataclass(frozen=True, kw_only=True)
class HeldOutScores:
    """A frozen dataclass that holds scores on images that were held out: each was classified without being fitted on.

    Attributes:
        images: Number of these images.
        accuracy: Share that is right.
        interval: 95 % interval of the accuracy.
        calibration_error: Expected calibration error.
        uncalibrated_error: The same without the temperature.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    calibration_error: float
    uncalibrated_error: float


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """A frozen dataclass that says how a classifier was fitted."""

    data: str
    """Name of the images, without folders of the machine."""
    split: str
    """Name of the split; empty if the data has none."""
    fingerprint: str
    """Hash of the images and their order."""
    images: int
    class_counts: tuple[int, ...]
    """Number of images of each class."""
    unreadable: int
    """Number of images that could not be read, and were left out."""
    notes: tuple[str, ...]
    """Decisions about the data, a line each."""
    value_range: str | None
    """The numbers that became black and white, if not the format's own."""
    seed: int
    penalty: float
    folds: int
    """Number of classifiers that were fitted on a part of the images, to hold out the others."""
    epochs: int | None
    """Epochs of fine-tuning; None if the encoder stayed as it was."""
    held_out: HeldOutScores | None
    """None if no image could be held out."""


@dataclass(frozen=True, kw_only=True)
class ClassifierDescription:
    """A frozen dataclass that holds the content of ``classifier.json``."""

    kind: Literal["linear", "fine-tuned"]
    classes: tuple[str, ...]
    features: int
    """Number of features of an image."""
    temperature: float | None
    """Number that logits are divided by; None if probabilities are not calibrated."""
    none_share: float
    """Share of usual images that may be called none of these."""
    encoder: EncoderOrigin
    fit: FitRecord
    versions: dict[str, str]
    created: str

    def __post_init__(self) -> None:
        check_share(self.none_share)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be two or more different names, but are {list(self.classes)}")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {self.temperature}")


class ImageClassifier(nn.Module):
    """A module that maps normalised images [B, 3, H, W] to the probabilities of the classes [B, classes].

    Args:
        encoder: The encoder, with its ``preprocessing``.
        weight: Weights of the linear layer.
        bias: Its biases.
        known: The features of the images that it was fitted on.
        description: What is known of it beside.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        encoder: Encoder,
        weight: Float[Tensor, "c d"],
        bias: Float[Tensor, " c"],
        known: KnownFeatures,
        description: ClassifierDescription,
    ):
        super().__init__()
        self.encoder, self.known, self.description = encoder, known, description
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self.description.classes

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        return self.probabilities(self.encoder(images))

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Returns the logits of the classes, before the temperature."""
        return features @ self.weight.T + self.bias

    def probabilities(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Returns the probabilities of the classes for images with these features."""
        return calibrated(self.logits(features), self.description.temperature).to(features.dtype)

    def with_head(self) -> "EncoderWithHead":
        """Returns the encoder with the linear layer, the temperature inside, as exports hold it."""
        return EncoderWithHead(self)


class EncoderWithHead(Encoder):
    """An encoder whose output is the logits of a classifier; their softmax gives its probabilities.

    Args:
        classifier: The classifier, whose temperature divides weights and biases.
    """

    def __init__(self, classifier: ImageClassifier):
        encoder = classifier.encoder
        super().__init__(encoder.backbone, encoder.width)
        temperature = classifier.description.temperature or 1.0
        self.architecture, self.settings = encoder.architecture, encoder.settings
        self.preprocessing, self.classes = encoder.preprocessing, classifier.classes
        self.head = nn.Linear(encoder.width, len(classifier.classes))
        with torch.no_grad():
            self.head.weight.copy_(classifier.weight / temperature)
            self.head.bias.copy_(classifier.bias / temperature)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        return self.head(self.backbone(images))


def write_classifier(classifier: ImageClassifier, folder: Path) -> None:
    """Writes what a classifier holds beside its encoder into a folder that has the encoder's files already."""
    known = classifier.known
    tensors = {
        "weight": classifier.weight,
        "bias": classifier.bias,
        "class_means": known.shapes.means,
        "whitening": known.shapes.whitening,
        "held_out_distances": known.held_out,
        "sketches": known.sketches,
    }
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / WEIGHTS, safetensors.torch.save(content))
    write_atomic(folder / CLASSIFIER, json.dumps(asdict(classifier.description), indent=1).encode())


def is_classifier(folder: str | PathLike[str]) -> bool:
    """Returns whether a folder is one that ``infomax classify fit`` wrote."""
    return (Path(folder) / CLASSIFIER).is_file()


def read_description(folder: str | PathLike[str]) -> ClassifierDescription:
    """Reads the ``classifier.json`` of a folder.

    Raises:
        ValueError: naming the folder or the key, if it is missing or not what :func:`write_classifier` writes.
    """
    check_classifier(folder)
    file = Path(folder) / CLASSIFIER
    try:
        return parse_value(read_json(file), ClassifierDescription, "")
    except (OSError, ValueError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(file)) else f"{file}: {text}") from error


def load_classifier(folder: str | PathLike[str]) -> ImageClassifier:
    """Loads the classifier in a folder that ``infomax classify fit`` wrote.

    Args:
        folder: The folder.

    Returns:
        A module that maps normalised images [B, 3, H, W] to the probabilities of its ``classes``, in evaluation mode on
        the CPU; ``classifier.encoder.preprocessing`` says how an image becomes its input.

    Raises:
        ValueError: if it is no such folder, a file in it is missing or damaged, or the files do not fit each other.

    Example:
        >>> import infomax
        >>> classifier = infomax.load_classifier("flowers/")  # doctest: +SKIP
        >>> classifier.classes  # doctest: +SKIP
        ('rose', 'tulip')
    """
    description = read_description(folder)
    encoder = load_encoder(folder)
    if (identity := fingerprint(encoder)) != description.encoder.hash:
        raise ValueError(
            f"{folder} is damaged: its encoder is another one ({identity}) than the classifier was fitted on "
            f"({description.encoder.hash})"
        )
    file = Path(folder) / WEIGHTS
    tensors = read_tensors(file)
    width, classes = description.features, len(description.classes)
    _check_tensors(file, tensors, width, classes)
    if encoder.width != width:
        raise ValueError(
            f"{folder} is damaged: its encoder gives {encoder.width} features, the classifier takes {width}"
        )
    shapes = ClassShapes(tensors["class_means"], tensors["whitening"])
    known = KnownFeatures(shapes, tensors["held_out_distances"], tensors["sketches"])
    return ImageClassifier(encoder, tensors["weight"], tensors["bias"], known, description).eval()


def _check_tensors(file: Path, tensors: Any, width: int, classes: int) -> None:
    """Raises ValueError if a file does not hold the tensors of a classifier of this size."""
    wanted: dict[str, tuple[int | None, ...]] = {
        "weight": (classes, width),
        "bias": (classes,),
        "class_means": (classes, width),
        "whitening": (width, width),
        "held_out_distances": (None,),
        "sketches": (None, SKETCH),
    }
    shapes = {name: tuple(value.shape) for name, value in tensors.items()} if isinstance(tensors, dict) else {}
    for name, shape in wanted.items():
        own = shapes.get(name, ())
        is_right = len(own) == len(shape) and all(size in (None, n) for size, n in zip(shape, own, strict=True))
        if not is_right:
            words = f"is of shape {list(own)}" if name in shapes else "is missing"
            raise ValueError(f"{file} is damaged: {name} {words}, for {classes} classes and {width} features")
        if not tensors[name].isfinite().all():
            raise ValueError(f"{file} is damaged: {name} has values that are infinite or NaN")
