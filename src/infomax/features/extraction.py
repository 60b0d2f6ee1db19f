"""Computes features of images by an encoder, or takes the pixels themselves as features."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.contract import Images
from infomax.data.loading.evaluation import KeptBatches, evaluation_batches
from infomax.data.splits import LabelledImages
from infomax.models.encoders import Encoder
from infomax.runtime.devices import place_network, to_network

RECALIBRATION_IMAGES = 10_000  # at most, that set the BatchNorm statistics of an untrained encoder
PIXEL_SIDE = 32  # largest side of an image whose pixels are features
CHUNK_PIXELS = 2**18  # that pass an encoder on a CPU at once: 5 images of 224 pixels
CHUNK_PIXELS_OF_CIFAR_STEMS = 2**15  # 32 images of 32 pixels; their first layers keep the image's size
"""Larger chunks do not fit the caches: networks take 1.4 to 3 times as long for 256 images at once. Features are the
same bits for all networks that were tried but EfficientNets, where they differ by rounding."""


def encode_batches(
    encoder: Encoder,
    images: Images,
    index: np.ndarray,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    lenient: bool = False,
    kept: KeptBatches | None = None,
) -> Iterator[Float[Tensor, "b d"]]:
    """Yields the features of the images at ``index``, batch by batch, in float32 on the CPU.

    The encoder computes in evaluation mode on ``device``. At the end it is back in its mode and on its device.

    Args:
        encoder: Maps images [b, 3, size, size] to features [b, d].
        images: All images.
        index: Numbers of the images to encode, in the order of the result.
        preprocessing: How an image becomes the encoder's input.
        device: Where the encoder computes.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        lenient, kept: As in :func:`infomax.data.loading.evaluation.evaluation_batches`.
    """
    was_training, previous_device = encoder.training, next(encoder.parameters()).device
    place_network(encoder.eval(), device)
    try:
        dtype = next(encoder.parameters()).dtype
        for batch in evaluation_batches(images, index, preprocessing, workers=workers, lenient=lenient, kept=kept):
            chunks = cache_sized_chunks(to_network(batch, device, dtype), encoder)
            with torch.no_grad():
                features = torch.cat([encoder(chunk) for chunk in chunks]).float().cpu()
            yield features
    finally:
        encoder.train(was_training).to(previous_device)


def cache_sized_chunks(batch: Float[Tensor, "b 3 height width"], encoder: Encoder) -> tuple[Tensor, ...]:
    """Returns a batch in chunks whose features fit the caches of a CPU; on another device, the batch as it is."""
    if batch.device.type != "cpu":
        return (batch,)
    settings = getattr(encoder, "settings", None)  # networks of a user's own have none
    keeps_size = settings is not None and settings.stem != "imagenet"
    pixels = CHUNK_PIXELS_OF_CIFAR_STEMS if keeps_size else CHUNK_PIXELS
    return batch.split(max(1, pixels // batch[0, 0].numel()))


def extract_features(
    encoder: Encoder,
    images: Images,
    index: np.ndarray,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    lenient: bool = False,
    kept: KeptBatches | None = None,
) -> Float[Tensor, "n d"]:
    """Returns the features of the images at ``index`` in one tensor, in that order; see :func:`encode_batches`."""
    options = {"device": device, "workers": workers, "lenient": lenient, "kept": kept}
    batches = encode_batches(encoder, images, index, preprocessing, **options)
    return torch.cat(list(batches))


def pixel_batches(
    images: Images,
    index: np.ndarray,
    preprocessing: Preprocessing,
    *,
    workers: int | None = None,
    lenient: bool = False,
    kept: KeptBatches | None = None,
) -> Iterator[Float[Tensor, "b d"]]:
    """Yields the preprocessed images at ``index`` as rows of pixels, batch by batch.

    An image of more than 32 pixels a side is averaged down first, to at most 32. The arguments are those of
    :func:`encode_batches`.
    """
    shrink = math.ceil(preprocessing.size / PIXEL_SIDE)
    for batch in evaluation_batches(images, index, preprocessing, workers=workers, lenient=lenient, kept=kept):
        yield F.avg_pool2d(batch, shrink).flatten(1)


@torch.no_grad()
def recalibrate_batch_norm(
    encoder: Encoder,
    part: LabelledImages,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    lenient: bool = False,
    kept: KeptBatches | None = None,
) -> Encoder:
    """Sets the statistics of BatchNorm to those of the images of ``part``, and returns the encoder on the CPU.

    The weights stay as they are. Without it an untrained encoder would be evaluated with statistics that were never
    measured, and would be a weaker baseline than it is. ``lenient`` and ``kept`` are those of
    :func:`infomax.data.loading.evaluation.evaluation_batches`.
    """
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # makes torch average plainly over batches
    place_network(encoder.train(), device)
    options = {"workers": workers, "lenient": lenient, "kept": kept}
    for batch in evaluation_batches(part.images, part.index, preprocessing, **options):
        if len(batch) > 1:  # a single image has no variance in a layer that has shrunk it to one pixel
            encoder(to_network(batch, device))
    return encoder.eval().cpu()
