"""Evaluation batches: preprocessed images in the order that was asked for, none left out."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from infomax.data.augmentation.make_views import cap_aspect_ratio, centre_offset, preprocess, resized_sides
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.loading.unreadable import unreadable_error
from infomax.data.loading.workers import identity_collate, worker_context, worker_count
from infomax.data.pixel_format import OtherKindError
from infomax.runtime.ranks import safe_path_in_children

BATCH_SIZE = 256  # images that go through an encoder at once


class _EvaluationImages(Dataset):
    """Pixels [B, H, W, C]: of images in memory as they are, of files already resized and cropped."""

    def __init__(self, images: Images, index: np.ndarray, preprocessing: Preprocessing, lenient: bool):
        self.images, self.index, self.preprocessing, self.lenient = images, index, preprocessing, lenient

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, positions: list[int]) -> Tensor:
        index = self.index[positions]
        if isinstance(self.images, ArrayImages):
            return torch.from_numpy(self.images.batch(index))
        return torch.from_numpy(np.stack([self._open(int(i)) for i in index]))

    def _open(self, index: int) -> np.ndarray:
        """Returns the centre crop of the resized image, as pixels [size, size, C]."""
        size, pixels = self.preprocessing.size, self.preprocessing.pixel_format
        try:
            if pixels.is_rgb:
                return _resize_and_crop(self.images.open(index), self.preprocessing)
            return _resize_and_crop_pixels(self.images.open_pixels(index), self.preprocessing)
        except ValueError as error:
            if not self.lenient or isinstance(error, OtherKindError):  # no damage, and so nothing to be lenient with
                raise unreadable_error(error) from error
            return np.zeros((size, size, pixels.channels), np.uint16 if pixels.is_deep else np.uint8)


def _resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the centre crop of the resized image, as bytes [size, size, 3]."""
    top, left, height, width = cap_aspect_ratio(image.height, image.width)
    if (width, height) != image.size:
        image = image.crop((left, top, left + width, top + height))
    size = preprocessing.size
    height, width = resized_sides(image.height, image.width, preprocessing.resize)
    left, top = centre_offset(width, size), centre_offset(height, size)
    interpolation = Image.Resampling.BICUBIC if preprocessing.bicubic else Image.Resampling.BILINEAR
    resized = image.resize((width, height), interpolation)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _resize_and_crop_pixels(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the centre crop of the resized image, as pixels [size, size, C] of the same type.

    The interpolation is Pillow's, which resizes no images of other channels or depths than 8-bit RGB and gray.
    """
    unscaled = replace(preprocessing, mean=(0.0,) * pixels.shape[2], std=(1.0,) * pixels.shape[2])
    (crop,) = preprocess(torch.from_numpy(np.ascontiguousarray(pixels))[None], unscaled)
    return np.rint(crop.permute(1, 2, 0).numpy() * np.iinfo(pixels.dtype).max).astype(pixels.dtype)


class KeptBatches:
    """Evaluation images that are kept as bytes, resized and cropped, for evaluations that use the same ones again."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self.is_complete = False

    def keep(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yields all batches [B, size, size, C], and keeps a copy of each: they come in memory that workers share."""
        self.batches = []
        for batch in batches:
            self.batches.append(batch.clone())
            yield batch
        self.is_complete = True


def evaluation_batches(
    images: Images,
    index: np.ndarray,
    preprocessing: Preprocessing,
    *,
    workers: int | None = None,
    lenient: bool = False,
    kept: KeptBatches | None = None,
) -> Iterator[Float[Tensor, "b c size size"]]:
    """Yields the images at ``index``, in this order, preprocessed, on the CPU, in batches of :data:`BATCH_SIZE`.

    Args:
        images: The images of the data set.
        index: Indices of the images to take.
        preprocessing: Says how the images are resized, cropped and normalised.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        lenient: Whether a black image takes the place of one that cannot be read.
        kept: Keeps the images for the next time that the same ones are asked for with it; None reads them each time.

    Raises:
        ValueError: naming the first image that cannot be read, unless ``lenient``.
    """
    images = images.in_format(preprocessing.pixel_format)
    # Files come out of the loader resized and cropped already.
    remaining = preprocessing if isinstance(images, ArrayImages) else replace(preprocessing, resize=preprocessing.size)
    if kept is not None and kept.is_complete:
        return (preprocess(batch, remaining) for batch in kept.batches)
    workers = worker_count(images, workers)
    loader = DataLoader(
        _EvaluationImages(images, index, preprocessing, lenient),
        batch_size=BATCH_SIZE,
        collate_fn=identity_collate,
        num_workers=workers,
        multiprocessing_context=worker_context() if workers else None,
    )
    with safe_path_in_children():  # the workers start here
        batches = _end_with_error(iter(loader))
    return (preprocess(batch, remaining) for batch in (batches if kept is None else kept.keep(batches)))


def _end_with_error(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yields all batches of a loader; an error ends its workers before it is raised.

    torch raises an error of a worker in a frame that holds the error. In that cycle the loader and its queues would
    wait for Python to collect garbage, which may close the queues by which the loader then ends its workers.
    """
    try:
        yield from batches
    except ValueError as error:
        error.__traceback__ = None
        del batches
        raise
