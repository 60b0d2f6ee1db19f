"""Images to features: of an encoder, and of none."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.arguments import choose_device
from infomax.data.images import ArrayImages, Images
from infomax.data.inference import evaluation_batches
from infomax.data.sources import open_source
from infomax.data.splits import Labelled, Source, labelled_splits
from infomax.data.streams import Stream
from infomax.data.views import Preprocessing
from infomax.encoders import Encoder, load_encoder, untrained_encoder

PIXEL_SIDE = 32
SETTLING = 10_000  # images that set an untrained encoder's BatchNorm statistics


@torch.no_grad()
def extract(
    encoder: Encoder,
    images: Images,
    index: np.ndarray,
    how: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    lenient: bool = False,
) -> Float[Tensor, "n d"]:
    """Features of the images at ``index``, in this order, on the CPU. The encoder is left as it was found.

    Args:
        lenient: As in :func:`infomax.data.inference.evaluation_batches`.
    """
    training, home = encoder.training, next(encoder.parameters()).device
    encoder.eval().to(device)
    try:
        batches = evaluation_batches(images, index, how, workers=workers, lenient=lenient)
        dtype = next(encoder.parameters()).dtype
        return torch.cat([encoder(batch.to(device, dtype)).float().cpu() for batch in batches])
    finally:
        encoder.train(training).to(home)


def pixels(
    images: Images, index: np.ndarray, how: Preprocessing, *, workers: int | None = None
) -> Float[Tensor, "n d"]:
    """The preprocessed images themselves, as rows; larger ones are first averaged down to at most 32 pixels a side."""
    shrink = math.ceil(how.size / PIXEL_SIDE)
    batches = evaluation_batches(images, index, how, workers=workers)
    return torch.cat([F.avg_pool2d(batch, shrink).flatten(1) for batch in batches])


@dataclass(frozen=True)
class Features:
    """One representation of the images to classify by and of those to classify, on the CPU."""

    name: str
    train: Float[Tensor, "n d"]
    train_labels: Int[Tensor, " n"]
    test: Float[Tensor, "m d"]
    test_labels: Int[Tensor, " m"]
    classes: int


@torch.no_grad()
def settle(
    encoder: Encoder,
    part: Labelled,
    how: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
) -> Encoder:
    """``encoder`` with BatchNorm's statistics set to those of these images; its weights stay.

    Without it an untrained encoder would be judged with statistics that were never measured, a weaker opponent.
    """
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average over batches
    encoder.train().to(device)
    for batch in evaluation_batches(part.images, part.index, how, workers=workers):
        if len(batch) > 1:  # one image has no statistics where the network has shrunk it to one pixel
            encoder(batch.to(device))
    return encoder.eval().cpu()


def compare_features(
    folder: str | PathLike[str], source: Source, *, device: torch.device | str = "cpu", workers: int | None = None
) -> list[Features]:
    """The run folder's encoder, and what it must beat: the same encoder untrained, and the pixels themselves.

    Raises:
        ValueError: if the images have no labels, or the folder no encoder.
    """
    splits = labelled_splits(source)
    if splits is None:
        raise ValueError(
            f"--data {source.name} has no labels to evaluate by, one for each image; want a sub-folder for each class, "
            "or an array of labels, and at least 5 images of a class where there is no test split"
        )
    train, test = splits
    trained = load_encoder(folder)
    how = Preprocessing(**trained.preprocessing)
    untrained = settle(untrained_encoder(folder), train.evenly(SETTLING), how, device=device, workers=workers)

    def encode(encoder: Encoder) -> Callable[[Labelled], Tensor]:
        return lambda part: extract(encoder, part.images, part.index, how, device=device, workers=workers)

    represent: dict[str, Callable[[Labelled], Tensor]] = {
        "trained encoder": encode(trained),
        "untrained encoder": encode(untrained),
        "raw pixels": lambda part: pixels(part.images, part.index, how, workers=workers),
    }
    train_labels, test_labels = (torch.from_numpy(part.labels) for part in splits)
    classes = len(train.images.classes)
    return [Features(n, f(train), train_labels, f(test), test_labels, classes) for n, f in represent.items()]


def embed(
    run: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    device: str = "auto",
    workers: int | None = None,
) -> tuple[Float[Tensor, "n d"], list[str]]:
    """Features of all images of ``data`` by a run's encoder, and the name of each image.

    A name is the file's, relative to ``data``, or the image's number in its array. Where ``data`` has a test split, its
    images follow those to train on.
    """
    encoder, device = load_encoder(run), choose_device(device)
    source = data if isinstance(data, Source) else open_source(str(data))
    if isinstance(source.train, Stream):
        raise ValueError(f"--data {source.name} is a stream, for training; its images cannot be counted off")
    how = Preprocessing(**encoder.preprocessing)
    splits = {name: images for name, images in (("train", source.train), ("test", source.test)) if images is not None}
    features = [
        extract(encoder, images, np.arange(len(images)), how, device=device, workers=workers)
        for images in splits.values()
    ]
    numbered = len(splits) > 1 and isinstance(source.train, ArrayImages)  # two arrays count from 0 each
    names = [
        f"{split}/{images.name(i)}" if numbered else images.name(i)
        for split, images in splits.items()
        for i in range(len(images))
    ]
    return torch.cat(features), names
