"""Batches of images for training and for evaluation, the same whatever the number of workers."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from infomax.data.augment import FLIP, crop_boxes, draw, preprocess
from infomax.data.datasets import ArrayImages, FolderImages, Images
from infomax.data.views import Preprocessing, View, ViewSet


class Batch(NamedTuple):
    """Images of one step before their views are finished."""

    images: Tensor | list[Tensor]
    """Bytes [B, H, W, 3]; or for each view its crops [B, size, size, 3], cut and flipped by workers."""
    epoch: int
    index: np.ndarray
    """Of each image in its data set."""


class EpochSampler(Sampler):
    """Every image once an epoch, in an order that (seed, epoch) decides. Yields (epoch, index).

    Lightning calls ``set_epoch``; carrying the epoch with the index keeps workers without state.
    """

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return ((self.epoch, int(index)) for index in order)


class _Training(Dataset):
    """Takes whole batches of (epoch, index) at a time; for files, does here what a worker should: decode and crop."""

    def __init__(self, images: Images, views: ViewSet, seed: int):
        self.images, self.views, self.seed = images, (*views.full, *views.local), seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        epoch, index = keys[0][0], np.array([index for _, index in keys])
        if isinstance(self.images, ArrayImages):
            return Batch(torch.from_numpy(self.images.pixels[index]), epoch, index)
        numbers = [draw(self.seed, epoch, index, number) for number in range(len(self.views))]
        crops = [np.empty((len(index), view.size, view.size, 3), np.uint8) for view in self.views]
        for row, i in enumerate(index):
            image = self.images.open(int(i))  # once for all of its views
            for view, random, out in zip(self.views, numbers, crops, strict=True):
                out[row] = _cut(image, random[row : row + 1], view)
        return Batch([torch.from_numpy(x) for x in crops], epoch, index)


def _cut(image: Image.Image, random: np.ndarray, view: View) -> np.ndarray:
    """One random resized crop, mirrored or not; PIL's, which differs from augment.crop by rounding to bytes alone."""
    ((top, left, height, width),) = crop_boxes(random, image.height, image.width, view)
    method = Image.Resampling.BICUBIC if view.bicubic else Image.Resampling.BILINEAR
    # Cut first: resize(box=...) would let pixels beyond the crop's edges in.
    cut = image.crop((left, top, left + width, top + height)).resize((view.size, view.size), method)
    return np.asarray(cut)[:, ::-1] if random[0, FLIP] < view.flip else np.asarray(cut)


def _workers(images: Images, workers: int | None) -> int:
    if isinstance(images, ArrayImages):
        return 0  # nothing to decode: a worker would only copy
    if workers is not None:
        return workers
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def training_loader(
    images: Images, views: ViewSet, *, batch_size: int, seed: int, workers: int | None = None
) -> DataLoader:
    """Shuffled batches of ``batch_size`` images; an incomplete last one is left out.

    Args:
        workers: Processes that decode files; None takes one a core, at most 8.
    """
    count = _workers(images, workers)
    return DataLoader(
        _Training(images, views, seed),
        batch_size=batch_size,
        sampler=EpochSampler(len(images), seed),
        drop_last=True,
        collate_fn=_as_is,
        num_workers=count,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _as_is(batch: Any) -> Any:
    return batch


class _Evaluation(Dataset):
    def __init__(self, images: Images, index: np.ndarray, how: Preprocessing):
        self.images, self.index, self.how = images, index, how

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, positions: list[int]) -> Tensor:
        index = self.index[positions]
        if isinstance(self.images, ArrayImages):
            return torch.from_numpy(self.images.pixels[index])
        return torch.from_numpy(np.stack([_centre(self.images.open(int(i)), self.how) for i in index]))


def _centre(image: Image.Image, how: Preprocessing) -> np.ndarray:
    scale = how.resize / min(image.size)
    width, height = (max(how.resize, round(side * scale)) for side in image.size)
    left, top = (width - how.size) // 2, (height - how.size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + how.size, top + how.size)))


def evaluation_batches(
    images: Images, index: np.ndarray, how: Preprocessing, *, batch_size: int = 256, workers: int | None = None
) -> Iterator[Float[Tensor, "b 3 size size"]]:
    """The images at ``index``, in this order, preprocessed, on the CPU."""
    loader = DataLoader(
        _Evaluation(images, index, how),
        batch_size=batch_size,
        collate_fn=_as_is,
        num_workers=_workers(images, workers),
    )
    ready = replace(how, resize=how.size) if isinstance(images, FolderImages) else how
    return (preprocess(batch, ready) for batch in loader)
