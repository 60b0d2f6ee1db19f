"""Reads images with their masks, chooses cells of feature maps to train on, and scores maps at the masks' own size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.contract import Images
from infomax.data.loading.unreadable import unreadable_error
from infomax.evaluation.dense.masks import IGNORED, Masks
from infomax.evaluation.detection.loading import read_ahead

IMAGES_AT_ONCE = 16
STRIP_NUMBERS = 2**24
"""Numbers of a strip of enlarged scores, of all classes, so that memory does not grow with the mask."""


@dataclass(frozen=True)
class MaskedImage:
    """A frozen dataclass that holds an image as the encoder takes it, and the classes of its pixels."""

    pixels: Float32[Tensor, "c size size"]
    mask: UInt8[np.ndarray, "h w"]


def read_masked(
    images: Images, masks: Masks, index: int, preprocessing: Preprocessing, ignored_class: int | None
) -> MaskedImage:
    """Reads an image and its mask; the image is resized to a square of the preprocessing's size, the mask is not.

    Args:
        images: The images, in the preprocessing's pixel format.
        masks: Their masks.
        index: Index of the image.
        preprocessing: Side, interpolation and normalisation.
        ignored_class: Position of a class whose pixels are ignored; None for none.

    Raises:
        ValueError: naming the file, if one cannot be read, or the mask is not as large as the image.
    """
    try:
        pixels = images.open_pixels(index)
    except ValueError as error:
        raise unreadable_error(error) from error
    mask = masks.read(index)
    if mask.shape != pixels.shape[:2]:
        raise ValueError(
            f"the mask of {images.name(index)} in {masks.name(index)} has {mask.shape[1]} x {mask.shape[0]} pixels, "
            f"but the image has {pixels.shape[1]} x {pixels.shape[0]} when it is turned upright"
        )
    if ignored_class is not None:
        mask = np.where(mask == ignored_class, np.uint8(IGNORED), mask)
    return MaskedImage(_to_square(pixels, preprocessing), mask)


def _to_square(pixels: np.ndarray, preprocessing: Preprocessing) -> Float32[Tensor, "c size size"]:
    """Returns the whole image, resized to a square without regard to its proportions, and normalised."""
    scaled = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
    sides, mode = (preprocessing.size,) * 2, "bicubic" if preprocessing.bicubic else "bilinear"
    resized = scaled if scaled.shape[2:] == sides else F.interpolate(scaled, sides, mode=mode, antialias=True)
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    return (resized[0].clamp(0, 1) - mean) / std


def masked_batches(
    images: Images,
    masks: Masks,
    indices: Int[np.ndarray, " n"],
    preprocessing: Preprocessing,
    *,
    ignored_class: int | None,
    workers: int | None,
) -> Iterator[list[MaskedImage]]:
    """Yields images with their masks in the order of ``indices``, batch by batch, as threads have read them."""
    images = images.in_format(preprocessing.pixel_format)

    def calls() -> Iterator[list[Callable[[], MaskedImage]]]:
        for start in range(0, len(indices), IMAGES_AT_ONCE):
            yield [
                lambda index=int(index): read_masked(images, masks, index, preprocessing, ignored_class)
                for index in indices[start : start + IMAGES_AT_ONCE]
            ]

    return read_ahead(calls(), workers=workers)


def cell_labels(mask: UInt8[np.ndarray, "h w"], cells: tuple[int, int]) -> UInt8[np.ndarray, "rows columns"]:
    """Returns the class of the pixel at the centre of each cell of a feature map.

    Example:
        >>> import numpy as np
        >>> from infomax.evaluation.dense.cells import cell_labels
        >>> cell_labels(np.arange(16, dtype=np.uint8).reshape(4, 4), (2, 2)).tolist()
        [[5, 7], [13, 15]]
    """
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(cells, mask.shape, strict=True))
    return mask[rows[:, None], columns]


def cell_quota(positions: int, images: int) -> np.ndarray:
    """Returns how many cells each image gives, so that all together give ``positions``, and no image many more."""
    bounds = np.arange(images + 1, dtype=np.int64) * positions // images
    return np.diff(bounds)


def choose_cells(labels: UInt8[np.ndarray, "rows columns"], count: int, seed: tuple[int, int]) -> np.ndarray:
    """Returns the positions of at most ``count`` cells that are not ignored, drawn at random, in rising order."""
    labelled = np.flatnonzero(labels.ravel() != IGNORED)
    if len(labelled) <= count:
        return labelled
    return np.sort(np.random.default_rng(seed).choice(labelled, count, replace=False))


def best_at_pixels(scores: Float[Tensor, "c rows columns"], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Returns the best class at each pixel, of scores that are enlarged bilinearly.

    The enlarged scores are those of ``torch.nn.functional.interpolate`` with ``align_corners=False``; they are made
    strip by strip.
    """
    down, across = (_enlarging(n, side, scores) for n, side in zip(scores.shape[1:], (height, width), strict=True))
    wide = scores @ across.T
    step = max(1, STRIP_NUMBERS // (len(scores) * width))
    strips = [torch.einsum("yr,crx->cyx", part, wide).argmax(0) for part in down.split(step)]
    return torch.cat(strips).to(torch.uint8).cpu().numpy()


def _enlarging(cells: int, pixels: int, like: Tensor) -> Float[Tensor, "pixels cells"]:
    """Returns the matrix of linear interpolation from cells to pixels."""
    identity = torch.eye(cells, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], size=pixels, mode="linear", align_corners=False)[0].T
