"""Loader workers: they decode images and cut the crop of each view out of them."""

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

from infomax.data.augmentation.draws import FLIP, crop_boxes, draw_uniform
from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import View, ViewSet
from infomax.data.decoding import Decoding, DivisorChooser
from infomax.data.images import ArrayImages, Images, PillowImages, Subset
from infomax.data.streams import EncodedImages, Stream
from infomax.runtime.checks import check_count
from infomax.runtime.signals import end_with_parent
from infomax.runtime.stages import Stage
from infomax.runtime.threads import cores_of_this_process

# A JPEG is decoded at a smaller size only if, along both sides, each crop keeps so many pixels for a pixel of its view.
OVERSAMPLING = 1.5
MAX_REPLACEMENTS = 20  # images that are tried in place of an unreadable one


class Batch(NamedTuple):
    """A microbatch: the images that go through the networks at once."""

    images: Tensor | list[Tensor]
    """Bytes [B, H, W, 3]; or a list with, for each view, its crops [B, size, size, 3], cut and flipped by workers."""
    epoch: int
    """Epoch that the images belong to, from 0."""
    index: np.ndarray
    """Key of each image (``Images.key``) [B]: its index in the data set; in a stream, a hash of its bytes. With the
    seed and the epoch, it decides the random numbers of the image's views."""
    unreadable: dict[int, str]
    """The images that could not be decoded and were replaced: from their keys to the error messages."""
    views: list[Tensor] | None = None
    """The finished views [B, 3, size, size], if they have been made already."""


class TrainingImages(Dataset):
    """A data set, for a ``DataLoader``, of chunks of images that are decoded and cropped.

    An item is asked for by an epoch and a chunk: the indices of some images, or the encoded images of a stream. If an
    image cannot be read, another one takes its place and the reason is kept in ``Batch.unreadable``. The replacement is
    drawn from the seed, the epoch and the image's index; in a stream it is one of the next images of the same chunk.

    Args:
        images: The images of the data set; None for a stream, whose encoded images come with each request.
        views: The views whose crops are cut, global crops first.
        seed: Decides the crops and the replacements.
        decoding: What the user decided about how the images of a stream become pixels.
    """

    def __init__(
        self,
        images: Images | None,
        views: ViewSet,
        seed: int,
        decoding: Decoding = Decoding(),  # noqa: B008
    ):
        self.decoding = decoding
        self.images, self.views, self.seed = images, (*views.global_crops, *views.local_crops), seed

    def __getitem__(self, key: tuple[int, Any]) -> Batch:  # pyrefly: ignore[bad-override-param-name]
        epoch, chunk = key
        images, rows = self.images, chunk
        if images is None:
            images, rows = EncodedImages(chunk, decoding=self.decoding), range(len(chunk))
        index = np.array([images.key(int(row)) for row in rows])
        random = np.stack([draw_uniform(self.seed, epoch, index, number) for number in range(len(self.views))])
        batch_crops = [np.empty((len(index), view.size, view.size, 3), np.uint8) for view in self.views]
        unreadable: dict[int, str] = {}
        for position, row in enumerate(rows):
            first_error = ""
            for candidate in (int(row), *self._replacements(epoch, int(row), len(images))):
                try:
                    crops = cut_views(partial(images.open, candidate), random[:, position], self.views)
                    break
                except ValueError as error:
                    first_error = first_error or str(error)
                    unreadable[images.key(candidate)] = str(error)
            else:
                raise ValueError(f"{first_error}; nor could any of the images that were tried in its place be read")
            for view_crops, crop in zip(batch_crops, crops, strict=True):
                view_crops[position] = crop
        return Batch([torch.from_numpy(x) for x in batch_crops], epoch, index, unreadable)

    def _replacements(self, epoch: int, row: int, count: int) -> list[int]:
        """Returns the rows of the images to try in place of this one, out of ``count``."""
        if self.images is None:
            return [(row + i) % count for i in range(1, min(count, MAX_REPLACEMENTS + 1))]
        return np.random.default_rng([self.seed, epoch, row]).integers(count, size=MAX_REPLACEMENTS).tolist()


def cut_views(
    open_image: Callable[[DivisorChooser], Image.Image], random: np.ndarray, views: Sequence[View]
) -> list[np.ndarray]:
    """Returns the crop of each view of one image, flipped or not, as bytes [size, size, 3].

    The image is decoded once for all views. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if each crop then still
    has :data:`OVERSAMPLING` pixels for each of its view's. At full size, the crops differ from those of
    :func:`infomax.data.augmentation.make_views.crop` only by rounding to bytes.

    Args:
        open_image: Decodes the image; it may call the function it is given to learn how far to reduce a JPEG.
        random: A row of random numbers for each view [views, columns]; see
            :func:`infomax.data.augmentation.draws.draw_uniform`.
        views: The views, in the order of the rows.

    Raises:
        ValueError: if the image cannot be decoded, or its pixels have another size than its header says.
    """
    from infomax.data.augmentation.kernels import cut_crop

    full_size, divisor, boxes = (0, 0), 1, np.empty((0, 4))

    def choose_divisor(width: int, height: int) -> int:
        nonlocal full_size, divisor, boxes
        full_size, boxes = (width, height), crop_boxes(random, height, width, views)
        pixels_per_result = min(min(box[2:]) / view.size for box, view in zip(boxes, views, strict=True))
        divisor = max(d for d in (1, 2, 4, 8) if d == 1 or d * OVERSAMPLING <= pixels_per_result)
        return divisor

    image = open_image(choose_divisor)
    if not len(boxes):  # not a JPEG: the image is decoded in full, and nobody asked for the divisor
        choose_divisor(*image.size)
    if image.size != (-(-full_size[0] // divisor), -(-full_size[1] // divisor)):
        divisor = 1  # the decoder did not reduce the image
    if image.size != (-(-full_size[0] // divisor), -(-full_size[1] // divisor)):
        raise ValueError(f"an image said to be of {full_size} pixels has {image.size}")
    pixels, crops = np.asarray(image), [np.empty((view.size, view.size, 3), np.uint8) for view in views]
    for view, box, flip, crop in zip(views, boxes / divisor, random[:, FLIP], crops, strict=True):
        cut_crop(pixels, box, view.bicubic, flip < view.flip, crop)
    return crops


def load_kernels(views: ViewSet) -> None:
    """Compiles the functions that cut crops and make views, or loads them from disk.

    Called before workers are forked, so that each of them need not do it again.
    """
    from infomax.data.augmentation import kernels

    if kernels.make_views.signatures:  # they are loaded
        _call_kernels(views)
        return
    with Stage("preparing view kernels, which takes longer the first time", at_once=True) as stage:
        _call_kernels(views)
        stage.detail = "compiled" if kernels.make_views.stats.cache_misses else "loaded"


def _call_kernels(views: ViewSet) -> None:
    """Makes all views of one small image, from the image itself and from crops."""
    all_views, index = (*views.global_crops, *views.local_crops), np.zeros(1, int)
    random = draw_uniform(0, 0, np.arange(len(all_views)), 0)
    cut_views(lambda _: Image.new("RGB", (8, 8)), random, all_views)
    make_views(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), views, seed=0, epoch=0, index=index)


def worker_count(images: Images | Stream, workers: int | None) -> int:
    """Returns the number of processes that decode ``images``.

    Args:
        images: Images in memory take no worker: it would only copy them.
        workers: The number that the user asked for; None takes one for each core, at most 8.

    Raises:
        ValueError: if ``workers`` is negative.
    """
    if workers is None:
        workers = min(8, cores_of_this_process())
    check_count("--workers", workers, low=0)
    base = images.base if isinstance(images, Subset) else images
    return 0 if isinstance(base, ArrayImages | PillowImages) else workers


class LockFreeEvent:
    """An event that tells workers to end, without the lock of ``multiprocessing.Event``.

    A worker that is killed while it looks at a ``multiprocessing.Event`` keeps its lock. The loader sets the event
    before it reports that a worker was lost, so it would then wait for that lock for ever.
    """

    def __init__(self) -> None:
        self.flag = multiprocessing.RawValue("b", 0)

    def set(self) -> None:
        """Tells the workers to end."""
        self.flag.value = 1

    def is_set(self) -> bool:
        """Returns whether the workers have been told to end."""
        return bool(self.flag.value)


def worker_context() -> multiprocessing.context.BaseContext:
    """Returns the context in which a loader starts its workers: this machine's default, with :class:`LockFreeEvent`."""
    default = type(multiprocessing.get_context(multiprocessing.get_start_method()))
    return type("Workers", (default,), {"Event": lambda self: LockFreeEvent()})()


def isolate_from_signals(worker: int) -> None:
    """Moves a worker into a process group of its own and lets it ignore SIGINT and SIGUSR1.

    Signals to a whole process group are meant for the training process, which ends its workers itself, by SIGTERM. If
    it is killed, each worker ends by itself: a worker that waits for a full pipe to be read would wait for ever.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_parent(parent.pid or 0, grace=0.0)


def identity_collate(batch: Any) -> Any:
    """Returns the batch as it is: what a loader collates by if its data set returns whole batches."""
    return batch
