"""What a worker does for training: decodes images and cuts the crop of each view out of them."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from infomax.data.augmentation.draws import FLIP, crop_boxes, draw
from infomax.data.augmentation.kernels import cut
from infomax.data.augmentation.views import View, ViewSet
from infomax.data.images import ArrayImages, Images, Shrink
from infomax.data.streams import EncodedImages, Stream
from infomax.runtime.checks import check_count

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
    """What a worker does: takes an epoch and the indices of some images, or samples of a stream; decodes and crops.

    An image that cannot be read is replaced by another one, drawn by the seed, the epoch and its index, or of a stream
    by one that comes soon; and named.

    Args:
        images: None for a stream, whose images are handed over each time.
    """

    def __init__(self, images: Images | None, views: ViewSet, seed: int):
        self.images, self.views, self.seed = images, (*views.global_crops, *views.local_crops), seed

    def __getitem__(self, key: tuple[int, Any]) -> Batch:  # pyrefly: ignore[bad-override-param-name]
        epoch, wanted = key
        images, rows = (self.images, wanted) if self.images is not None else (EncodedImages(wanted), range(len(wanted)))
        index = np.array([images.key(int(row)) for row in rows])
        random = np.stack([draw(self.seed, epoch, index, number) for number in range(len(self.views))])
        crops = [np.empty((len(index), view.size, view.size, 3), np.uint8) for view in self.views]
        unreadable: dict[int, str] = {}
        for place, row in enumerate(rows):
            failure = ""
            for candidate in (int(row), *self._stand_ins(epoch, int(row), len(images))):
                try:
                    made = cut_views(partial(images.open, candidate), random[:, place], self.views)
                    break
                except ValueError as error:
                    failure = failure or str(error)
                    unreadable[images.key(candidate)] = str(error)
            else:
                raise ValueError(f"{failure}; nor could others be read that were to stand in for it")
            for all_rows, crop in zip(crops, made, strict=True):
                all_rows[place] = crop
        return Batch([torch.from_numpy(x) for x in crops], epoch, index, unreadable)

    def _stand_ins(self, epoch: int, row: int, count: int) -> list[int]:
        if self.images is None:
            return [(row + i) % count for i in range(1, min(count, STAND_INS + 1))]
        return np.random.default_rng([self.seed, epoch, row]).integers(count, size=STAND_INS).tolist()


def cut_views(
    open_image: Callable[[Shrink], Image.Image], random: np.ndarray, views: Sequence[View]
) -> list[np.ndarray]:
    """The crop of each view of one image, mirrored or not, as bytes [size, size, 3]; decoded once for all of them.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves each crop pixels to spare. They differ from
    :func:`infomax.data.augmentation.make_views.crop` by rounding to bytes alone.

    Args:
        random: A row of numbers for each view; see :func:`infomax.data.augmentation.draws.draw`.
    """
    size, by, boxes = (0, 0), 1, np.empty((0, 4))

    def shrink(width: int, height: int) -> int:
        nonlocal size, by, boxes
        size, boxes = (width, height), crop_boxes(random, height, width, views)
        spare = min(min(box[2:]) / view.size for box, view in zip(boxes, views, strict=True))
        by = max(by for by in (1, 2, 4, 8) if by == 1 or by * SPARE <= spare)
        return by

    image = open_image(shrink)
    if not len(boxes):
        shrink(*image.size)
    if image.size != (-(-size[0] // by), -(-size[1] // by)):  # not decoded smaller, as it might have been
        by = 1
    if image.size != (-(-size[0] // by), -(-size[1] // by)):
        raise ValueError(f"an image said to be of {size} pixels has {image.size}")
    pixels, crops = np.asarray(image), [np.empty((view.size, view.size, 3), np.uint8) for view in views]
    for view, box, flip, out in zip(views, boxes / by, random[:, FLIP], crops, strict=True):
        cut(pixels, box, view.bicubic, flip < view.flip, out)
    return crops


def load_kernels(views: ViewSet) -> None:
    """Compile or load what cuts crops, so that workers which are forked from here need not do it each."""
    each = (*views.global_crops, *views.local_crops)
    cut_views(lambda _: Image.new("RGB", (8, 8)), draw(0, 0, np.arange(len(each)), 0), each)


def worker_count(images: Images | Stream, workers: int | None) -> int:
    """Processes that decode: as many as asked for, or one a core and at most 8; none for arrays."""
    if workers is None:
        workers = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    check_count("--workers", workers, low=0)
    return 0 if isinstance(images, ArrayImages) else workers  # of arrays a worker would only make a copy


class Flag:
    """What tells workers to end, without the lock of multiprocessing's own.

    A worker that is killed while it looks whether to end would take that lock with it, and setting the flag, which
    is done before the loss of a worker can be reported, would wait for it for ever.
    """

    def __init__(self) -> None:
        self.raised = multiprocessing.RawValue("b", 0)

    def set(self) -> None:
        self.raised.value = 1

    def is_set(self) -> bool:
        return bool(self.raised.value)


def worker_processes() -> multiprocessing.context.BaseContext:
    """How a loader is to make its workers: as is the default here, with :class:`Flag`."""
    usual = type(multiprocessing.get_context(multiprocessing.get_start_method()))
    return type("Workers", (usual,), {"Event": lambda self: Flag()})()


def leave_signals_alone(worker: int) -> None:
    """Signals to a whole group are for the process that trains, which ends its workers itself, by SIGTERM."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def identity_collate(batch: Any) -> Any:
    """What a loader needs in place of its own way to make batches."""
    return batch
