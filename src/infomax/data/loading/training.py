"""Training batches: a schedule of images per step, read from arrays, files or a stream; and a prefetcher for GPUs.

Images in memory are indexed directly; on a GPU they stay on the device if they fit. Image files are decoded and cropped
by worker processes, once for all views of an image. A stream is read by the training process; its images are decoded
and cropped by workers too. The rest of each view (colours, normalisation) is made on the device.

The batches depend on the seed, the step and the number of ranks, never on the number of workers, nor on which images
are kept in memory after they have been decoded (``kept_images.py``). Once all are, this process cuts their crops.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from infomax.data.augmentation.operations import to_device
from infomax.data.augmentation.views import ViewSet
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.loading.kept_images import KeptImages, table_size
from infomax.data.loading.workers import (
    Batch,
    Keeping,
    TrainingImages,
    identity_collate,
    isolate_from_signals,
    load_kernels,
    worker_context,
    worker_count,
)
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.streams import Sample, Stream
from infomax.runtime.devices import float64_device
from infomax.runtime.ranks import safe_path_in_children

# A worker hands over a microbatch in chunks of at most so many images: little memory is in flight, and all workers
# share the work on one microbatch.
CHUNK_SIZE = 32
# The workers together hold about this many finished chunks at most (some gigabytes of large crops), if that is enough
# for two microbatches.
MAX_CHUNKS_IN_FLIGHT = 128
COVERED = 0.95  # the share of the images that must have been decoded before workers are left out
RESIDENT_SHARE = 0.25  # images in memory are copied to the GPU if they take less than this share of its free memory


@dataclass(frozen=True)
class BatchSchedule:
    """Decides which images one rank reads at each step, from the seed, the step and the number of ranks alone.

    Each epoch visits the images in a new random order, ``batch_size`` of them a step. The images that are left over at
    the end of an epoch, too few for a step, are not used in it. Each rank takes an equal, consecutive share of a step's
    images, and splits it into microbatches: the images that go through the networks at once.
    """

    image_count: int
    """Number of images in the data set."""
    batch_size: int
    """Images of a step, over all ranks."""
    seed: int
    """Seed of the order in each epoch."""
    start: int
    """First step of this schedule, counted from the beginning of the run."""
    stop: int
    """The step after the last one."""
    micro_batch_size: int
    """Images in a microbatch; the last one of a step may have fewer."""
    rank: int
    """Rank, from 0, that this schedule is for."""
    world_size: int
    """Number of ranks."""

    @property
    def share(self) -> tuple[int, int]:
        """Returns where this rank's images begin and end among a step's ``batch_size`` images."""
        first, last = (r * self.batch_size // self.world_size for r in (self.rank, self.rank + 1))
        return first, last

    def microbatches(self) -> list[slice]:
        """Returns the position of each microbatch within this rank's share of a step."""
        first, last = self.share
        size = self.micro_batch_size
        return [slice(begin, min(begin + size, last - first)) for begin in range(0, last - first, size)]

    @property
    def first_epoch(self) -> int:
        """Returns the epoch, from 0, of the first step."""
        return self.start // (self.image_count // self.batch_size)

    @property
    def last_epoch(self) -> int:
        """Returns the epoch of the last step."""
        return (self.stop - 1) // (self.image_count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the epoch and the image indices of each microbatch."""
        steps_per_epoch, order, epoch = self.image_count // self.batch_size, np.empty(0), -1
        first, last = self.share
        for step in range(self.start, self.stop):
            if epoch != step // steps_per_epoch:
                epoch = step // steps_per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.image_count)
            offset = step % steps_per_epoch * self.batch_size
            share = order[offset + first : offset + last]
            for microbatch in self.microbatches():
                yield epoch, share[microbatch]

    def read(self, stream: Stream) -> Iterator[tuple[int, list[Sample]]]:
        """Yields the epoch and the encoded images of each microbatch, from a stream.

        The stream starts again, in another order, at each epoch. A schedule that starts within an epoch reads over the
        images of the steps before it.
        """
        steps_per_epoch, epoch, samples = self.image_count // self.batch_size, -1, iter(())
        first, last = self.share
        for step in range(self.start, self.stop):
            if epoch != step // steps_per_epoch:
                epoch = step // steps_per_epoch
                samples = stream.read(self.seed, epoch, self.rank, self.world_size)
                for _ in range(step % steps_per_epoch * (last - first)):  # used before the run was interrupted
                    next(samples)
            share = [next(samples) for _ in range(last - first)]
            for microbatch in self.microbatches():
                yield epoch, share[microbatch]


class _ChunkSampler(Sampler):
    """Yields the requests to the workers: an epoch, and a chunk of image indices or of a stream's encoded images.

    Args:
        schedule: Decides the images.
        stream: The stream that they are read from, if they are.
        is_enough: Called with the epoch and the images of each microbatch; if it returns True, the requests end before
            this one.
    """

    def __init__(self, schedule: BatchSchedule, stream: Stream | None, is_enough: Callable[[int, Any], bool]):
        self.schedule, self.stream, self.is_enough = schedule, stream, is_enough

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        microbatches = self.schedule if self.stream is None else self.schedule.read(self.stream)
        for epoch, microbatch in microbatches:
            if self.is_enough(epoch, microbatch):
                return
            count, size = _chunk_count(len(microbatch)), len(microbatch)
            for chunk in range(count):
                yield epoch, microbatch[chunk * size // count : (chunk + 1) * size // count]


def _chunk_count(images: int) -> int:
    """Returns how many chunks of about equal size a microbatch of so many images is split into."""
    return -(-images // CHUNK_SIZE)


def training_batches(
    images: Images | Stream,
    views: ViewSet,
    *,
    batch_size: int,
    seed: int,
    steps: range,
    micro_batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    keep_bytes: int = 0,
    pixel_format: PixelFormat = RGB,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Batch]:
    """Yields one rank's microbatches of the given steps, in order; see :class:`BatchSchedule`.

    They are where the views are made: on the device, or beside Apple's GPU on the CPU.

    Args:
        images: The images of the data set.
        views: The views that are made of each image. Workers cut their crops; images in memory are not cropped here.
        batch_size: Images of a step, over all ranks.
        seed: Decides the order of the images, and their crops.
        steps: The steps to read, counted from the beginning of the run.
        micro_batch_size: Images that go through the networks at once; None takes the rank's whole share of a step.
        rank: The rank, from 0, whose share is read.
        world_size: Number of ranks.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        device: The device that computes with them.
        keep_bytes: Memory that decoded images of files may take, so that they need not be decoded in each epoch.
        pixel_format: The channels and the range of the images' numbers.
        say: Prints a line on how many images are kept.
    """
    device = float64_device(device)
    schedule = BatchSchedule(
        len(images), batch_size, seed, steps.start, steps.stop, micro_batch_size or batch_size, rank, world_size
    )
    if isinstance(images, Images):
        images = images.in_format(pixel_format)
    if isinstance(images, ArrayImages):
        return _from_arrays(images, schedule, device)
    workers = worker_count(images, workers)
    if isinstance(images, Images) and schedule.last_epoch > schedule.first_epoch:
        kept = _take_memory(len(images), keep_bytes, workers, say)
        if kept is not None:
            return _keep_images(images, views, schedule, workers, device, kept, pixel_format, say)
    return _from_workers(_training_images(images, views, seed, pixel_format), schedule, workers, device, images)


def _from_arrays(images: ArrayImages, schedule: BatchSchedule, device: torch.device) -> Iterator[Batch]:
    resident = None
    if device.type == "cuda" and images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(images.batch(np.arange(len(images)))).to(device)
    for epoch, index in schedule:
        if resident is not None:
            pixels = resident[to_device(torch.from_numpy(index), device)]
        else:
            pixels = to_device(torch.from_numpy(images.batch(index)), device)
        yield Batch(pixels, epoch, index, {})


def _training_images(
    images: Images | Stream, views: ViewSet, seed: int, pixel_format: PixelFormat, *, keeping: Keeping | None = None
) -> TrainingImages:
    load_kernels(views, pixel_format, make=False)
    if isinstance(images, Images):
        return TrainingImages(images, views, seed, pixel_format=pixel_format, keeping=keeping)
    return TrainingImages(None, views, seed, images.decoding, pixel_format=pixel_format)


def _take_memory(count: int, keep_bytes: int, workers: int, say: Callable[[str], None]) -> KeptImages | None:
    """Returns the memory for ``count`` decoded images; None if there is no room, or the system refuses it."""
    writers = max(1, workers)
    if keep_bytes <= table_size(count, writers):
        return None
    try:
        return KeptImages(count, keep_bytes, writers)
    except (OSError, RuntimeError, OverflowError) as error:
        say(f"keeps no decoded images, as the system refuses the memory: {error}")
        return None


class _Coverage:
    """Notes which images have been asked for, and says at the beginning of an epoch whether they are enough.

    Args:
        kept: The images that are kept.
    """

    def __init__(self, kept: KeptImages):
        self.kept, self.is_asked, self.epoch = kept, np.zeros(kept.count, bool), -1

    def __call__(self, epoch: int, microbatch: Any) -> bool:
        """Notes a microbatch; returns True if it can be made without workers: almost all images are kept by then."""
        is_new_epoch, self.epoch = epoch != self.epoch, epoch
        if is_new_epoch and not self.kept.is_full and self.is_asked.mean() >= COVERED:
            return True
        self.is_asked[microbatch] = True
        return False


def _keep_images(
    images: Images,
    views: ViewSet,
    schedule: BatchSchedule,
    workers: int,
    device: torch.device,
    kept: KeptImages,
    pixel_format: PixelFormat,
    say: Callable[[str], None],
) -> Iterator[Batch]:
    """Yields the batches of a schedule, and keeps the images that workers decode.

    Workers decode the images of the first epoch; those of several ranks, each of which reads a share of the images in
    an epoch, those of some epochs. If all of them fit, this process then cuts the crops by itself, in threads: to hand
    crops over from one process to another would take longer than to cut them. What has not been decoded yet, as the
    images that were left over at the end of the epoch, is decoded here too. If not all fit, the workers go on.
    """
    keeping = Keeping(kept, schedule.last_epoch)
    training_images = _training_images(images, views, schedule.seed, pixel_format, keeping=keeping)
    was_said, done = False, 0
    for batch in _from_workers(training_images, schedule, workers, device, images, _Coverage(kept)):
        yield batch
        done += 1
        if kept.is_full and not was_said:
            say(kept.describe() or "")
            was_said = True
    rest = replace(schedule, start=schedule.start + done // len(schedule.microbatches()))
    if rest.start == rest.stop:
        return
    if not was_said and (line := kept.describe()):
        say(line)
    if kept.is_full:  # since the last images of the epoch have been decoded
        yield from _from_workers(training_images, rest, workers, device, images)
        return
    training_images.threads = torch.get_num_threads()
    for epoch, index in rest:
        yield _join_chunks([training_images[epoch, index]], device)


def _from_workers(
    training_images: TrainingImages,
    schedule: BatchSchedule,
    workers: int,
    device: torch.device,
    images: Images | Stream,
    is_enough: Callable[[int, Any], bool] = lambda epoch, microbatch: False,
) -> Iterator[Batch]:
    chunk_counts = [_chunk_count(rows.stop - rows.start) for rows in schedule.microbatches()]
    in_flight = min(2 * sum(chunk_counts), max(2 * max(chunk_counts), MAX_CHUNKS_IN_FLIGHT))  # of all workers together
    loader = DataLoader(
        training_images,
        batch_size=None,
        sampler=_ChunkSampler(schedule, images if isinstance(images, Stream) else None, is_enough),
        collate_fn=identity_collate,
        num_workers=workers,
        multiprocessing_context=worker_context() if workers else None,
        prefetch_factor=max(2, -(-in_flight // workers)) if workers else None,
        worker_init_fn=isolate_from_signals,
        pin_memory=device.type == "cuda",
    )
    with safe_path_in_children():
        batches = iter(loader)
    for _ in range(schedule.start, schedule.stop):
        for count in chunk_counts:
            chunks = list(islice(batches, count))
            if not chunks:
                return
            yield _join_chunks(chunks, device)


def _join_chunks(chunks: list[Batch], device: torch.device) -> Batch:
    """Returns the microbatch that the chunks make up, on the device."""
    crops_by_view = [[to_device(x, device) for x in view] for view in zip(*(x.images for x in chunks), strict=True)]
    crops = [torch.cat(view) if len(view) > 1 else view[0] for view in crops_by_view]
    index = np.concatenate([chunk.index for chunk in chunks])
    unreadable = {key: reason for chunk in chunks for key, reason in chunk.unreadable.items()}
    return Batch(crops, chunks[0].epoch, index, unreadable)


class BatchPrefetcher(Iterator[Batch]):
    """An iterator over batches that prepares the next one on a GPU while the current one is computed with.

    On a GPU, the next batch is copied and its views are made on a CUDA stream of their own. On a CPU nothing runs
    beside the computation, so a batch is read when it is asked for, and its views are left to the caller.

    Args:
        batches: The batches, in order.
        device: The device that computes with them.
        make_views: Makes the views of a batch; None leaves that to the caller on a GPU too.
    """

    def __init__(
        self, batches: Iterator[Batch], device: torch.device, make_views: Callable[[Batch], list[Tensor]] | None = None
    ):
        self.batches, self.make_views = batches, make_views
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.prefetched: tuple[Batch | None, Any] | None = None
        self._wait_seconds = 0.0

    def prefetch(self) -> None:
        """Reads the next batch now and queues its copy and its views on the GPU; does nothing on a CPU.

        Does nothing either if the next batch has been prefetched already.
        """
        if self.stream is None or self.prefetched is not None:
            return
        with torch.cuda.stream(self.stream):
            batch = self._read()
            if batch is not None and self.make_views is not None:
                batch = batch._replace(views=self.make_views(batch))
            self.prefetched = batch, self.stream.record_event()

    def __next__(self) -> Batch:
        self.prefetch()
        batch, ready = self.prefetched or (self._read(), None)
        self.prefetched = None
        if batch is None:
            raise StopIteration
        return batch if ready is None else _hand_over(batch, ready)

    def pop_wait_seconds(self) -> float:
        """Returns the seconds spent waiting for images since the last call, and starts again at 0."""
        seconds, self._wait_seconds = self._wait_seconds, 0.0
        return seconds

    def close(self) -> None:
        """Lets go of the prefetched batch, and ends the workers that read images."""
        self.prefetched = None
        if isinstance(self.batches, Generator):
            self.batches.close()

    def _read(self) -> Batch | None:
        start = time.perf_counter()
        batch = next(self.batches, None)
        self._wait_seconds += time.perf_counter() - start
        return batch


def _hand_over(batch: Batch, ready: Any) -> Batch:
    """Makes the current CUDA stream wait for the batch.

    ``record_stream`` tells the allocator that the current stream uses this memory too: without it, the memory could be
    given out again while the current stream still reads it.
    """
    current = torch.cuda.current_stream()
    current.wait_event(ready)
    for x in [*([batch.images] if isinstance(batch.images, Tensor) else batch.images), *(batch.views or [])]:
        x.record_stream(current)
    return batch
