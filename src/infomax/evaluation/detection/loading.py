"""Reads images with their objects, in an order that the seed alone decides; threads read ahead."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.data.loading.training import BatchSchedule
from infomax.data.loading.unreadable import unreadable_error
from infomax.evaluation.detection.coco_folder import CocoObjects
from infomax.evaluation.detection.masks import decode_segmentation
from infomax.runtime.threads import core_count

T = TypeVar("T")
MOST_THREADS = 8
AHEAD = 2  # batches that are read before they are asked for


@dataclass(frozen=True)
class LoadedImage:
    """A frozen dataclass that holds an image and the objects in it that are trained on."""

    pixels: UInt8[Tensor, "3 h w"]
    boxes: Float32[Tensor, "n 4"]
    """Left, top, right and bottom, within the image."""
    labels: Int64[Tensor, " n"]
    """Positions of the categories, from 1: 0 is the background."""
    masks: UInt8[Tensor, "n h w"]

    def to(self, device: torch.device) -> tuple[Float32[Tensor, "3 h w"], dict[str, Tensor]]:
        """Returns the image, from 0 to 1, and its objects by the names that torchvision takes, on a device."""
        target = {"boxes": self.boxes, "labels": self.labels, "masks": self.masks}
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in target.items()}
        return self.pixels.to(device, non_blocking=True).float() / 255, moved


def open_checked(images: Images, objects: CocoObjects, index: int) -> np.ndarray:
    """Decodes an image and checks its size.

    Raises:
        ValueError: naming the image, if it cannot be read, or is not of the size that the JSON says.
    """
    try:
        pixels = images.open_pixels(index)
    except ValueError as error:
        raise unreadable_error(error) from error
    width, height = objects.size_of_image(index)
    if pixels.shape[:2] != (height, width):
        own = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ValueError(
            f"{images.name(index)} has {own} pixels when it is turned upright, but {objects.file.shown} says "
            f"{width} x {height}: its objects would stand elsewhere"
        )
    return pixels


def load_to_train(images: Images, objects: CocoObjects, index: int, *, flip: bool) -> LoadedImage:
    """Reads an image and its objects, and mirrors them if wanted.

    Args:
        images: The images.
        objects: Their objects.
        index: Index of the image.
        flip: Whether left becomes right.
    """
    pixels, file = open_checked(images, objects, index), objects.file
    height, width = pixels.shape[:2]
    positions = objects.of_image(index)
    left, top, wide, high = file.boxes[positions].T
    sides = [left, top, left + wide, top + high]
    boxes = np.stack([np.clip(side, 0, (width, height)[i % 2]) for i, side in enumerate(sides)], axis=1)
    masks = np.stack([decode_segmentation(file.segmentation(p), width, height) for p in positions])
    if flip:
        pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return LoadedImage(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(file.object_categories[positions] + 1),
        torch.from_numpy(np.ascontiguousarray(masks)),
    )


def flipped(seed: int, iteration: int, count: int) -> np.ndarray:
    """Returns for each image of a batch, over all ranks, whether it is mirrored."""
    return np.random.default_rng([seed, iteration, 1]).random(count) < 0.5


def training_batches(
    images: Images,
    objects: CocoObjects,
    schedule: BatchSchedule,
    *,
    workers: int | None,
) -> Iterator[list[LoadedImage]]:
    """Yields this rank's images of each iteration.

    Args:
        images: The images.
        objects: Their objects.
        schedule: Which images each iteration takes; one microbatch an iteration.
        workers: Threads that read; None takes one for each core, at most 8.
    """
    first, last = schedule.share

    def calls() -> Iterator[list[Callable[[], LoadedImage]]]:
        for iteration, (_, indices) in enumerate(schedule, start=schedule.start):
            flips = flipped(schedule.seed, iteration, schedule.batch_size)[first:last]
            yield [
                lambda index=int(index), flip=bool(flip): load_to_train(images, objects, index, flip=flip)
                for index, flip in zip(indices, flips, strict=True)
            ]

    yield from read_ahead(calls(), workers=workers)


def read_ahead(groups: Iterator[Sequence[Callable[[], T]]], *, workers: int | None) -> Iterator[list[T]]:
    """Calls the functions of each group in threads, some groups ahead, and yields the results group by group."""
    threads = min(core_count(), MOST_THREADS) if workers is None else max(1, workers)
    waiting: deque[list[Future[T]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="infomax-detect") as pool:
        try:
            for group in groups:
                waiting.append([pool.submit(call) for call in group])
                if len(waiting) > AHEAD:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
