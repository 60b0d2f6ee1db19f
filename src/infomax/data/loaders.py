"""Batches of images for training and for evaluation, the same whatever the number of workers."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    """Images that go through the networks at once, before their views are finished."""

    images: Tensor | list[Tensor]
    """Bytes [B, H, W, 3]; or for each view its crops [B, size, size, 3], cut and flipped by workers."""
    epoch: int
    index: np.ndarray
    """Of each image in its data set. It decides the view's random numbers."""
    unreadable: dict[int, str]
    """What is wrong with images that another one stands in for, by their index."""


@dataclass(frozen=True)
class Steps(Sampler):
    """What one rank reads at each step of a run: a function of the seed, the step and the number of ranks alone.

    Each epoch takes every image once in an order of its own, ``batch_size`` a step, and leaves out what is too little
    for a last step. Each rank takes an equal share of consecutive images of it; they go through the networks in parts
    of ``part`` images. Yields (epoch, indices) for each part.
    """

    length: int
    """Of the data set."""
    batch_size: int
    seed: int
    start: int
    """Step to start from."""
    stop: int
    part: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        steps_per_epoch, order, epoch = self.length // self.batch_size, np.empty(0), -1
        first, last = (r * self.batch_size // self.world for r in (self.rank, self.rank + 1))
        for step in range(self.start, self.stop):
            if epoch != step // steps_per_epoch:
                epoch = step // steps_per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            offset = step % steps_per_epoch * self.batch_size
            share = order[offset + first : offset + last]
            for begin in range(0, len(share), self.part):
                yield epoch, share[begin : begin + self.part]


STAND_INS = 20  # tries to find a readable image in place of an unreadable one


class TrainingImages(Dataset):
    """Takes (epoch, indices) of one part at a time; for files, does what a worker should: decode and crop.

    An image that cannot be read is replaced by another one, drawn by the seed, the epoch and its index, and named.
    """

    def __init__(self, images: Images, views: ViewSet, seed: int):
        self.images, self.views, self.seed = images, (*views.full, *views.local), seed

    def __getitem__(self, key: tuple[int, np.ndarray]) -> Batch:  # pyrefly: ignore[bad-override-param-name]
        epoch, index = key
        if isinstance(self.images, ArrayImages):
            return Batch(torch.from_numpy(self.images.pixels[index]), epoch, index, {})
        numbers = [draw(self.seed, epoch, index, number) for number in range(len(self.views))]
        crops = [np.empty((len(index), view.size, view.size, 3), np.uint8) for view in self.views]
        unreadable: dict[int, str] = {}
        for row, i in enumerate(index):
            image = self._open(epoch, int(i), unreadable)  # once for all of its views
            for view, random, out in zip(self.views, numbers, crops, strict=True):
                out[row] = _cut(image, random[row : row + 1], view)
        return Batch([torch.from_numpy(x) for x in crops], epoch, index, unreadable)

    def _open(self, epoch: int, index: int, unreadable: dict[int, str]) -> Image.Image:
        others = np.random.default_rng([self.seed, epoch, index]).integers(len(self.images), size=STAND_INS)
        for candidate in (index, *others):
            try:
                return self.images.open(int(candidate))
            except ValueError as error:
                unreadable[int(candidate)] = str(error)
        raise ValueError(f"{unreadable[index]}; nor could {STAND_INS} other images be read in its place")


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
    images: Images,
    views: ViewSet,
    *,
    batch_size: int,
    seed: int,
    steps: range,
    part: int | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    pin_memory: bool = False,
) -> DataLoader:
    """The parts of these steps that one rank trains on, one after another; see :class:`Steps`.

    Args:
        part: Images that go through the networks at once; None takes the rank's whole share of a step.
        workers: Processes that decode files; None takes one a core, at most 8.
        pin_memory: For batches that go to a GPU.
    """
    count = _workers(images, workers)
    return DataLoader(
        TrainingImages(images, views, seed),
        batch_size=None,
        sampler=Steps(len(images), batch_size, seed, steps.start, steps.stop, part or batch_size, rank, world),
        collate_fn=_as_is,
        num_workers=count,
        worker_init_fn=_leave_signals_alone,
        pin_memory=pin_memory,
    )


def _leave_signals_alone(worker: int) -> None:
    """Signals to a whole group are for the process that trains, which ends its workers itself, by SIGTERM."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _as_is(batch: Any) -> Any:
    return batch


class _Evaluation(Dataset):
    def __init__(self, images: Images, index: np.ndarray, how: Preprocessing, lenient: bool):
        self.images, self.index, self.how, self.lenient = images, index, how, lenient

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, positions: list[int]) -> Tensor:
        index = self.index[positions]
        if isinstance(self.images, ArrayImages):
            return torch.from_numpy(self.images.pixels[index])
        return torch.from_numpy(np.stack([_centre(self._open(int(i)), self.how) for i in index]))

    def _open(self, index: int) -> Image.Image:
        try:
            return self.images.open(index)
        except ValueError:
            if not self.lenient:
                raise
            return Image.new("RGB", (self.how.resize, self.how.resize))


def _centre(image: Image.Image, how: Preprocessing) -> np.ndarray:
    scale = how.resize / min(image.size)
    width, height = (max(how.resize, round(side * scale)) for side in image.size)
    left, top = (width - how.size) // 2, (height - how.size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + how.size, top + how.size)))


def evaluation_batches(
    images: Images,
    index: np.ndarray,
    how: Preprocessing,
    *,
    batch_size: int = 256,
    workers: int | None = None,
    lenient: bool = False,
) -> Iterator[Float[Tensor, "b 3 size size"]]:
    """The images at ``index``, in this order, preprocessed, on the CPU.

    Args:
        lenient: Take black in place of an image that cannot be read, instead of raising ValueError.
    """
    loader = DataLoader(
        _Evaluation(images, index, how, lenient),
        batch_size=batch_size,
        collate_fn=_as_is,
        num_workers=_workers(images, workers),
    )
    ready = replace(how, resize=how.size) if isinstance(images, FolderImages) else how
    return (preprocess(batch, ready) for batch in loader)
