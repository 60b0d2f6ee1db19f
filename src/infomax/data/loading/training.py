"""Batches of images to train on, by the road that suits the source; the same whatever the number of workers.

Arrays live on the device, if they fit. Files are decoded and cropped by workers, once for all views. Streams are read
by the process that trains, and decoded and cropped by workers. What is left of a view is made on the device.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from infomax.data.augmentation.operations import to_device
from infomax.data.augmentation.views import ViewSet
from infomax.data.images import ArrayImages, Images
from infomax.data.loading.workers import (
    Batch,
    TrainingImages,
    identity_collate,
    leave_signals_alone,
    load_kernels,
    worker_count,
    worker_processes,
)
from infomax.data.streams import Sample, Stream

PIECE = 32  # images that a worker hands over at once: little memory in flight, and all workers busy with one batch
READY = 128  # pieces that wait to be used, at most, if two parts are not more: some gigabytes of large crops
RESIDENT = 0.25  # of a GPU's free memory, at most, for images that stay on it


@dataclass(frozen=True)
class BatchSchedule:
    """What one rank reads at each step of a run: a function of the seed, the step and the number of ranks alone.

    Each epoch takes every image once in an order of its own, ``batch_size`` a step, and leaves out what is too little
    for a last step. Each rank takes an equal share of consecutive images of it; they go through the networks in parts
    of ``part`` images.
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

    @property
    def share(self) -> tuple[int, int]:
        """Where in a step's images those of this rank begin and end."""
        first, last = (r * self.batch_size // self.world for r in (self.rank, self.rank + 1))
        return first, last

    def parts(self) -> list[slice]:
        """Where in the rank's share of a step each part is."""
        first, last = self.share
        return [slice(b, min(b + self.part, last - first)) for b in range(0, last - first, self.part)]

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """The epoch and the indices of each part."""
        steps_per_epoch, order, epoch = self.length // self.batch_size, np.empty(0), -1
        first, last = self.share
        for step in range(self.start, self.stop):
            if epoch != step // steps_per_epoch:
                epoch = step // steps_per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            offset = step % steps_per_epoch * self.batch_size
            share = order[offset + first : offset + last]
            for part in self.parts():
                yield epoch, share[part]

    def read(self, stream: Stream) -> Iterator[tuple[int, list[Sample]]]:
        """The epoch and the images of each part, of a stream that each epoch begins anew in an order of its own."""
        steps_per_epoch, epoch, samples = self.length // self.batch_size, -1, iter(())
        first, last = self.share
        for step in range(self.start, self.stop):
            if epoch != step // steps_per_epoch:
                epoch = step // steps_per_epoch
                samples = stream.read(self.seed, epoch, self.rank, self.world)
                for _ in range(step % steps_per_epoch * (last - first)):  # read before the run was interrupted
                    next(samples)
            share = [next(samples) for _ in range(last - first)]
            for part in self.parts():
                yield epoch, share[part]


class _Pieces(Sampler):
    """What workers are asked for: a part, a few images at a time; of a stream, with their bytes."""

    def __init__(self, steps: BatchSchedule, stream: Stream | None):
        self.steps, self.stream = steps, stream

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for epoch, part in self.steps if self.stream is None else self.steps.read(self.stream):
            count = _pieces(len(part))
            for number in range(count):
                yield epoch, part[number * len(part) // count : (number + 1) * len(part) // count]


def _pieces(count: int) -> int:
    """How many pieces of about equal size so many images are handed over in."""
    return -(-count // PIECE)


def training_batches(
    images: Images | Stream,
    views: ViewSet,
    *,
    batch_size: int,
    seed: int,
    steps: range,
    part: int | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """The parts of these steps that one rank trains on, one after another, on the device; see :class:`BatchSchedule`.

    Args:
        part: Images that go through the networks at once; None takes the rank's whole share of a step.
        workers: Processes that decode files; None takes one a core, at most 8.
    """
    device = torch.device(device)
    plan = BatchSchedule(len(images), batch_size, seed, steps.start, steps.stop, part or batch_size, rank, world)
    if isinstance(images, ArrayImages):
        return _from_arrays(images, plan, device)
    return _from_workers(images, views, plan, worker_count(images, workers), device)


def _from_arrays(images: ArrayImages, plan: BatchSchedule, device: torch.device) -> Iterator[Batch]:
    resident = None
    if device.type == "cuda" and images.pixels.nbytes < RESIDENT * torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(np.array(images.pixels)).to(device)
    for epoch, index in plan:
        if resident is not None:
            chosen = resident[to_device(torch.from_numpy(index), device)]
        else:
            chosen = to_device(torch.from_numpy(images.pixels[index]), device)
        yield Batch(chosen, epoch, index, {})


def _from_workers(
    images: Images | Stream, views: ViewSet, plan: BatchSchedule, workers: int, device: torch.device
) -> Iterator[Batch]:
    load_kernels(views)
    pieces = [_pieces(part.stop - part.start) for part in plan.parts()]
    in_flight = min(2 * sum(pieces), max(2 * max(pieces), READY))  # of all workers together
    loader = iter(
        DataLoader(
            TrainingImages(images if isinstance(images, Images) else None, views, plan.seed),
            batch_size=None,
            sampler=_Pieces(plan, images if isinstance(images, Stream) else None),
            collate_fn=identity_collate,
            num_workers=workers,
            multiprocessing_context=worker_processes() if workers else None,
            prefetch_factor=max(2, -(-in_flight // workers)) if workers else None,
            worker_init_fn=leave_signals_alone,
            pin_memory=device.type == "cuda",
        )
    )
    for _ in range(plan.start, plan.stop):
        for count in pieces:
            made = [next(loader) for _ in range(count)]
            crops = [
                [to_device(x, device) for x in view] for view in zip(*(piece.images for piece in made), strict=True)
            ]
            index = np.concatenate([piece.index for piece in made])
            unreadable = {key: why for piece in made for key, why in piece.unreadable.items()}
            yield Batch([torch.cat(view) for view in crops], made[0].epoch, index, unreadable)


class BatchPrefetcher(Iterator[Batch]):
    """Batches; on a GPU each is copied, and its views are made, on a stream of its own, beside what is being computed.

    Args:
        make: How views are made; None leaves that to whoever uses the batch.
    """

    def __init__(
        self, batches: Iterator[Batch], device: torch.device, make: Callable[[Batch], list[Tensor]] | None = None
    ):
        self.batches, self.make = batches, make
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.begun: tuple[Batch | None, Any] | None = None
        self._waited = 0.0

    def prefetch(self) -> None:
        """Read the next batch now, and give the device its work; on a CPU, where nothing is beside, when it is due."""
        if self.stream is None or self.begun is not None:
            return
        with torch.cuda.stream(self.stream):
            batch = self._read()
            if batch is not None and self.make is not None:
                batch = batch._replace(views=self.make(batch))
            self.begun = batch, self.stream.record_event()

    def __next__(self) -> Batch:
        self.prefetch()
        batch, ready = self.begun or (self._read(), None)
        self.begun = None
        if batch is None:
            raise StopIteration
        return batch if ready is None else _handed_over(batch, ready)

    def waited(self) -> float:
        """Seconds that images were waited for since this was last asked."""
        seconds, self._waited = self._waited, 0.0
        return seconds

    def _read(self) -> Batch | None:
        start = time.perf_counter()
        batch = next(self.batches, None)
        self._waited += time.perf_counter() - start
        return batch


def _handed_over(batch: Batch, ready: Any) -> Batch:
    """The batch, for the current stream: which waits for it, and keeps its memory from being used again too early."""
    current = torch.cuda.current_stream()
    current.wait_event(ready)
    for x in [*([batch.images] if isinstance(batch.images, Tensor) else batch.images), *(batch.views or [])]:
        x.record_stream(current)
    return batch
