"""What a worker does for training: decodes images and cuts the crop of each view out of them."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from infomax.data.draws import FLIP, crop_boxes, draw
from infomax.data.images import ArrayImages, Images, Shrink, decode
from infomax.data.kernels import cut
from infomax.data.streams import Stream
from infomax.data.views import View, ViewSet

SPARE = 1.5  # pixels across a crop for each of its view's, at least, where a JPEG is decoded at a smaller size
STAND_INS = 20  # tries to find a readable image in place of an unreadable one


class Batch(NamedTuple):
    """Images that go through the networks at once."""

    images: Tensor | list[Tensor]
    """Bytes [B, H, W, 3]; or for each view its crops [B, size, size, 3], cut and flipped by workers."""
    epoch: int
    index: np.ndarray
    """Of each image in its data set; in a stream, a hash of its bytes. It decides the view's random numbers."""
    unreadable: dict[int, str]
    """What is wrong with images that another one stands in for, by their index."""
    views: list[Tensor] | None = None
    """Where they are made already."""


class TrainingImages(Dataset):
    """What a worker does: takes an epoch and the indices of some images, or their bytes; decodes and crops them.

    An image that cannot be read is replaced by another one, drawn by the seed, the epoch and its index, and named.
    """

    def __init__(self, images: Images | Stream, views: ViewSet, seed: int):
        self.images, self.views, self.seed = images, (*views.full, *views.local), seed

    def __getitem__(self, key: tuple[int, Any]) -> Batch:  # pyrefly: ignore[bad-override-param-name]
        epoch, wanted = key
        index = np.array([sample.key for sample in wanted]) if isinstance(self.images, Stream) else wanted
        random = np.stack([draw(self.seed, epoch, index, number) for number in range(len(self.views))])
        crops = [np.empty((len(index), view.size, view.size, 3), np.uint8) for view in self.views]
        unreadable: dict[int, str] = {}
        for row in range(len(index)):
            made = self._cut_first_readable(epoch, wanted, row, random[:, row], unreadable)
            for all_rows, crop in zip(crops, made, strict=True):
                all_rows[row] = crop
        return Batch([torch.from_numpy(x) for x in crops], epoch, index, unreadable)

    def _cut_first_readable(
        self, epoch: int, wanted: Any, row: int, random: np.ndarray, unreadable: dict[int, str]
    ) -> list[np.ndarray]:
        failure = ""
        for candidate, open_image in self._candidates(epoch, wanted, row):
            try:
                return cut_views(open_image, random, self.views)
            except ValueError as error:
                failure = failure or str(error)
                unreadable[candidate] = str(error)
        raise ValueError(f"{failure}; nor could {STAND_INS} other images be read in its place")

    def _candidates(self, epoch: int, wanted: Any, row: int) -> Iterator[tuple[int, Callable[[Shrink], Image.Image]]]:
        """The image that is wanted, and those that may stand in for it."""
        if isinstance(self.images, Stream):
            for sample in [*wanted[row:], *wanted[:row]][: STAND_INS + 1]:
                yield sample.key, partial(decode, BytesIO(sample.content), sample.name)
            return
        index = int(wanted[row])
        others = np.random.default_rng([self.seed, epoch, index]).integers(len(self.images), size=STAND_INS)
        for candidate in (index, *others.tolist()):
            yield candidate, partial(self.images.open, candidate)


def cut_views(
    open_image: Callable[[Shrink], Image.Image], random: np.ndarray, views: Sequence[View]
) -> list[np.ndarray]:
    """The crop of each view of one image, mirrored or not, as bytes [size, size, 3]; decoded once for all of them.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves each crop pixels to spare. They differ from
    :func:`infomax.data.augment.crop` by rounding to bytes alone.

    Args:
        random: A row of numbers for each view; see :func:`infomax.data.draws.draw`.
    """
    size, boxes = (0, 0), np.empty((0, 4))

    def shrink(width: int, height: int) -> int:
        nonlocal size, boxes
        size, boxes = (width, height), crop_boxes(random, height, width, views)
        spare = min(min(box[2:]) / view.size for box, view in zip(boxes, views, strict=True))
        return max(by for by in (1, 2, 4, 8) if by == 1 or by * SPARE <= spare)

    image = open_image(shrink)
    if not len(boxes):
        shrink(*image.size)
    by = round(size[0] / image.width)  # 1, but for what was decoded at a smaller size
    pixels, crops = np.asarray(image), [np.empty((view.size, view.size, 3), np.uint8) for view in views]
    for view, box, flip, out in zip(views, boxes / by, random[:, FLIP], crops, strict=True):
        cut(pixels, box, view.bicubic, flip < view.flip, out)
    return crops


def load_kernels(views: ViewSet) -> None:
    """Compile or load what cuts crops, so that workers which are forked from here need not do it each."""
    each = (*views.full, *views.local)
    cut_views(lambda _: Image.new("RGB", (8, 8)), draw(0, 0, np.arange(len(each)), 0), each)


def worker_count(images: Images | Stream, workers: int | None) -> int:
    """Processes that decode: as many as asked for, or one a core and at most 8; none for arrays."""
    if isinstance(images, ArrayImages):
        return 0  # nothing to decode: a worker would only copy
    if workers is not None:
        return workers
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def leave_signals_alone(worker: int) -> None:
    """Signals to a whole group are for the process that trains, which ends its workers itself, by SIGTERM."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def as_is(batch: Any) -> Any:
    """What a loader needs in place of its own way to make batches."""
    return batch
