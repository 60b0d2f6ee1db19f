"""Images to features: of an encoder, and of none."""

import math
from collections.abc import Iterator
from os import PathLike

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images import ArrayImages, Images
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.sources.location import open_source
from infomax.data.splits import LabelledImages, Source
from infomax.data.streams import Stream
from infomax.models.encoders import Encoder
from infomax.runtime.checks import choose_device

PIXEL_SIDE = 32


def encoded(
    encoder: Encoder,
    images: Images,
    index: np.ndarray,
    how: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    lenient: bool = False,
) -> Iterator[Float[Tensor, "b d"]]:
    """Features of the images at ``index``, some at a time, on the CPU. The encoder is left as it was found.

    Args:
        lenient: As in :func:`infomax.data.loading.evaluation.evaluation_batches`.
    """
    training, home = encoder.training, next(encoder.parameters()).device
    encoder.eval().to(device)
    try:
        dtype = next(encoder.parameters()).dtype
        for batch in evaluation_batches(images, index, how, workers=workers, lenient=lenient):
            with torch.no_grad():
                made = encoder(batch.to(device, dtype)).float().cpu()
            yield made
    finally:
        encoder.train(training).to(home)


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
    """All that :func:`encoded` gives, in the order of ``index``."""
    return torch.cat(list(encoded(encoder, images, index, how, device=device, workers=workers, lenient=lenient)))


def pixels(
    images: Images, index: np.ndarray, how: Preprocessing, *, workers: int | None = None
) -> Iterator[Float[Tensor, "b d"]]:
    """The preprocessed images themselves, as rows, some at a time; larger ones are first averaged down to at most 32
    pixels a side."""
    shrink = math.ceil(how.size / PIXEL_SIDE)
    for batch in evaluation_batches(images, index, how, workers=workers):
        yield F.avg_pool2d(batch, shrink).flatten(1)


@torch.no_grad()
def recalibrate_batch_norm(
    encoder: Encoder,
    part: LabelledImages,
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


def embed(
    encoder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    device: str = "auto",
    workers: int | None = None,
) -> tuple[Float[Tensor, "n d"], list[str]]:
    """Features of all images of ``data``, and the name of each image.

    A name is the file's, relative to ``data``, or the image's number in its array. Where ``data`` has a test split, its
    images follow those to train on.

    Args:
        encoder: A run folder, or what else :func:`infomax.models.pretrained.open_encoder` takes.
    """
    from infomax.models.pretrained import open_encoder

    network, device = open_encoder(encoder), choose_device(device)
    source = data if isinstance(data, Source) else open_source(str(data))
    if isinstance(source.train, Stream):
        raise ValueError(f"--data {source.name} is a stream, for training; its images cannot be counted off")
    splits = {name: images for name, images in (("train", source.train), ("test", source.test)) if images is not None}
    features = [
        extract(network, images, np.arange(len(images)), network.preprocessing, device=device, workers=workers)
        for images in splits.values()
    ]
    numbered = len(splits) > 1 and isinstance(source.train, ArrayImages)  # two arrays count from 0 each
    names = [
        f"{split}/{images.name(i)}" if numbered else images.name(i)
        for split, images in splits.items()
        for i in range(len(images))
    ]
    return torch.cat(features), names
