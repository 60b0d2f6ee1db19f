"""Loader workers: they decode images and cut the crop of each view out of them."""

import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8, UInt16
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from infomax.data.augmentation.draws import FLIP, crop_boxes, draw_uniform
from infomax.data.augmentation.make_views import make_views, run_in_threads, views_kernel
from infomax.data.augmentation.views import View, ViewSet
from infomax.data.decoding.fast_jpegs import DIVISORS, ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import FormattedImages, Images
from infomax.data.images.pillow import PillowImages
from infomax.data.images.selection import Subset
from infomax.data.loading.kept_images import UNKNOWN, KeptImages
from infomax.data.pixel_format import RGB, OtherKindError, PixelFormat
from infomax.data.streams import EncodedImages, Stream
from infomax.runtime.checks import check_count
from infomax.runtime.failures import MachineError
from infomax.runtime.signals import end_with_parent
from infomax.runtime.stages import Stage
from infomax.runtime.threads import cores_of_this_process

# A JPEG is decoded at a smaller size only if, along both sides, each crop keeps so many pixels for a pixel of its view.
OVERSAMPLING = 1.5
LOOK_AHEAD = 3  # epochs for which an image is decoded beforehand, at the sizes that their crops need
MAX_REPLACEMENTS = 20  # images that are tried in place of an unreadable one


class Batch(NamedTuple):
    """A microbatch: the images that go through the networks at once."""

    images: Tensor | list[Tensor]
    """Pixels [B, H, W, C], bytes or 16 bits; or a list with, for each view, its crops [B, size, size, C], cut and
    flipped by workers."""
    epoch: int
    """Epoch that the images belong to, from 0."""
    index: np.ndarray
    """Key of each image (``Images.key``) [B]: its index in the data set; in a stream, a hash of its bytes. With the
    seed and the epoch, it decides the random numbers of the image's views."""
    unreadable: dict[int, ValueError]
    """The images that could not be decoded and were replaced: from their keys to the errors."""
    views: list[Tensor] | None = None
    """The finished views [B, 3, size, size], if they have been made already."""


@dataclass(frozen=True)
class Keeping:
    """A frozen dataclass that says where decoded images are kept, and for how long."""

    images: KeptImages
    """The memory."""
    last_epoch: int
    """The last epoch that they are needed in."""


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
        keeping: Where decoded images are kept; None decodes each image anew.
        pixel_format: The channels and the range of the images' numbers.
        threads: Number of threads that cut the crops of images that are kept.
    """

    def __init__(
        self,
        images: Images | None,
        views: ViewSet,
        seed: int,
        decoding: Decoding = Decoding(),  # noqa: B008
        *,
        keeping: Keeping | None = None,
        pixel_format: PixelFormat = RGB,
        threads: int = 1,
    ):
        self.decoding, self.keeping, self.pixel_format, self.threads = decoding, keeping, pixel_format, threads
        self.images, self.views, self.seed = images, (*views.global_crops, *views.local_crops), seed
        self.buffer, self.spare = ReusedMemory(), ReusedMemory()

    def __getitem__(self, key: tuple[int, Any]) -> Batch:  # pyrefly: ignore[bad-override-param-name]
        epoch, chunk = key
        images, rows = self.images, chunk
        if images is None:
            images = EncodedImages(chunk, decoding=self.decoding).in_format(self.pixel_format)
            rows = range(len(chunk))
        index = np.array([images.key(int(row)) for row in rows])
        random = np.stack([draw_uniform(self.seed, epoch, index, number) for number in range(len(self.views))])
        tensors = [empty_crops(len(index), view.size, self.pixel_format) for view in self.views]
        batch_crops = [x.numpy() for x in tensors]
        is_cut = np.zeros(len(index), bool)
        if self.keeping is not None:
            is_cut = cut_kept_views(self.keeping.images, rows, random, self.views, batch_crops, self.threads)
        unreadable: dict[int, ValueError] = {}
        for position in np.flatnonzero(~is_cut).tolist():
            row, first_error, crops = int(rows[position]), None, [x[position] for x in batch_crops]
            for candidate in chain([row], self._replacements(epoch, row, len(images))):
                try:
                    self._decode_and_cut(images, candidate, epoch, random[:, position], crops)
                    break
                except ValueError as error:
                    first_error = first_error or error
                    unreadable[images.key(candidate)] = error.with_traceback(None)
            else:
                if isinstance(first_error, OtherKindError):
                    raise first_error
                raise ValueError(f"{first_error}; nor could any of the images that were tried in its place be read")
        return Batch(tensors, epoch, index, unreadable)

    def _decode_and_cut(
        self, images: Images, row: int, epoch: int, random: np.ndarray, crops: Sequence[np.ndarray]
    ) -> None:
        """Decodes an image, writes its crops, and keeps the image if images are kept.

        Args:
            images: The images.
            row: Index of the image.
            epoch: Epoch, from 0.
            random: A row of random numbers for each view.
            crops: Where the crop of each view is written [size, size, 3].

        Raises:
            ValueError: if the image cannot be decoded.
        """
        decoded = decode_for_views(partial(images.open_pixels, row, buffer=self.buffer), random, self.views)
        decoded.cut(self.views, random, crops, self.spare)
        if self.keeping is not None:
            self._keep(images, row, decoded)
            if decoded.asked_divisor is not None:  # a JPEG, which later epochs may need at another size
                self._keep_for_later(images, row, epoch, decoded.full_size)

    def _keep(self, images: Images, row: int, decoded: "DecodedImage") -> None:
        assert self.keeping is not None
        worker = get_worker_info()
        self.keeping.images.keep(
            row,
            decoded.pixels,
            full_size=decoded.full_size,
            divisor=decoded.asked_divisor,
            writer=None if worker is None else worker.id,
        )

    def _keep_for_later(self, images: Images, row: int, epoch: int, full_size: tuple[int, int]) -> None:
        """Decodes a JPEG at the other sizes too that the next epochs ask for, while its file is at hand."""
        assert self.keeping is not None
        kept, coming = self.keeping.images, range(epoch + 1, min(epoch + LOOK_AHEAD, self.keeping.last_epoch) + 1)
        divisors: set[int] = set()
        for later in coming:
            index = np.array([images.key(row)])
            random = np.concatenate([draw_uniform(self.seed, later, index, n) for n in range(len(self.views))])
            divisors.add(plan_crops(random, *full_size, self.views)[1])
        for divisor in sorted(divisors):
            if kept.is_full or kept.has(row, divisor):
                continue
            with suppress(ValueError):  # it is decoded again when it is needed, and the error raised then
                pixels = images.open_pixels(row, lambda width, height, divisor=divisor: divisor, self.buffer)
                self._keep(images, row, DecodedImage(pixels, full_size, divisor, np.empty((0, 4))))

    def _replacements(self, epoch: int, row: int, count: int) -> Iterator[int]:
        """Yields the rows of the images to try in place of this one, out of ``count``; none is drawn before."""
        if self.images is None:
            yield from ((row + i) % count for i in range(1, min(count, MAX_REPLACEMENTS + 1)))
        else:
            yield from np.random.default_rng([self.seed, epoch, row]).integers(count, size=MAX_REPLACEMENTS).tolist()


def empty_crops(
    count: int, size: int, pixel_format: PixelFormat = RGB
) -> UInt8[Tensor, "n size size c"] | UInt16[Tensor, "n size size c"]:
    """Returns a tensor for the crops of a view, whose content is undefined.

    In a worker it is in shared memory from the start: otherwise the worker would copy the crops there to send them.
    """
    shape = (count, size, size, pixel_format.channels)
    dtype = torch.uint16 if pixel_format.is_deep else torch.uint8
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def plan_crops(random: np.ndarray, width: int, height: int, views: Sequence[View]) -> tuple[np.ndarray, int]:
    """Returns the crop of each view in an image, and by how much the image's sides may be divided if it is a JPEG.

    It may be decoded at 1/2, 1/4 or 1/8 of its size if each crop then still has :data:`OVERSAMPLING` pixels for each of
    its view's.

    Args:
        random: A row of random numbers for each view [views, columns].
        width: Width of the image.
        height: Its height.
        views: The views, in the order of the rows.
    """
    boxes = crop_boxes(random, height, width, views)
    pixels_per_result = min(min(box[2:]) / view.size for box, view in zip(boxes, views, strict=True))
    return boxes, max(d for d in DIVISORS if d == 1 or d * OVERSAMPLING <= pixels_per_result)


@dataclass(frozen=True)
class DecodedImage:
    """A frozen dataclass that holds an image that was decoded for its crops."""

    pixels: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
    full_size: tuple[int, int]
    """Width and height of the image in its file, as it is seen."""
    asked_divisor: int | None
    """What the sides of a JPEG were to be divided by; None if the image is no JPEG."""
    boxes: np.ndarray
    """Crop of each view in the image of full size: top, left, height and width [views, 4]."""

    def cut(self, views: Sequence[View], random: np.ndarray, crops: Sequence[np.ndarray], spare: ReusedMemory) -> None:
        """Cuts the crop of each view, flipped or not, as bytes.

        Args:
            views: The views.
            random: A row of random numbers for each view.
            crops: Where the crop of each view is written [size, size, 3].
            spare: Working memory.

        Raises:
            ValueError: if the pixels have another size than the file's header says.
        """
        size = self.pixels.shape[:2]
        divisors = {self.asked_divisor or 1, 1}  # 1 if the decoder did not reduce the image
        reduced = [d for d in divisors if size == (-(-self.full_size[1] // d), -(-self.full_size[0] // d))]
        if not reduced:
            raise ValueError(f"an image said to be of {self.full_size} pixels has {(size[1], size[0])}")
        memory, (height, width) = self.pixels.reshape(-1), (np.array([side]) for side in size)
        for view, box, row, crop in zip(views, self.boxes / max(reduced), random, crops, strict=True):
            _cut(memory, np.zeros(1, np.int64), height, width, box[None], view, row[None], spare, crop[None])


def decode_for_views(
    open_pixels: Callable[[DivisorChooser], np.ndarray], random: np.ndarray, views: Sequence[View]
) -> DecodedImage:
    """Decodes an image once for all views; a JPEG at 1/2, 1/4 or 1/8 of its size if :func:`plan_crops` says so.

    Args:
        open_pixels: Decodes the image; it may call the function it is given to learn how far to reduce a JPEG.
        random: A row of random numbers for each view [views, columns]; see
            :func:`infomax.data.augmentation.draws.draw_uniform`.
        views: The views, in the order of the rows.

    Raises:
        ValueError: if the image cannot be decoded.
    """
    full_size, divisor, boxes = (0, 0), None, np.empty((0, 4))

    def choose_divisor(width: int, height: int) -> int:
        nonlocal full_size, divisor, boxes
        full_size = (width, height)
        boxes, divisor = plan_crops(random, width, height, views)
        return divisor

    pixels = np.asarray(open_pixels(choose_divisor))
    if divisor is None:  # not a JPEG: the image is decoded in full, and nobody asked for the divisor
        full_size = (pixels.shape[1], pixels.shape[0])
        boxes, _ = plan_crops(random, *full_size, views)
    return DecodedImage(pixels, full_size, divisor, boxes)


def cut_views(
    open_pixels: Callable[[DivisorChooser], np.ndarray], random: np.ndarray, views: Sequence[View]
) -> list[np.ndarray]:
    """Returns the crop of each view of one image, flipped or not, as pixels [size, size, channels].

    At full size, the crops differ from those of :func:`infomax.data.augmentation.make_views.crop` only by rounding to
    bytes. The arguments are those of :func:`decode_for_views`.

    Raises:
        ValueError: if the image cannot be decoded, or its pixels have another size than its header says.
    """
    decoded = decode_for_views(open_pixels, random, views)
    channels, dtype = decoded.pixels.shape[2], decoded.pixels.dtype
    crops = [np.empty((view.size, view.size, channels), dtype) for view in views]
    decoded.cut(views, random, crops, ReusedMemory())
    return crops


def cut_kept_views(
    kept: KeptImages,
    rows: np.ndarray,
    random: np.ndarray,
    views: Sequence[View],
    batch_crops: Sequence[np.ndarray],
    threads: int,
) -> np.ndarray:
    """Cuts the crops of those images of a chunk that are kept; they are those that :func:`cut_views` cuts.

    Args:
        kept: The images that are kept.
        rows: Indices of the chunk's images [n].
        random: A row of random numbers for each view and image [views, n, columns].
        views: The views.
        batch_crops: For each view, where the crops are written [n, size, size, 3].
        threads: Number of threads.

    Returns:
        Whether each image was kept, so that its crops are cut [n].
    """
    positions = np.flatnonzero(kept.kinds[rows] != UNKNOWN)
    rows, random = rows[positions], random[:, positions]
    height, width = kept.full_sizes[rows].T
    boxes = np.stack([crop_boxes(x, height, width, view) for x, view in zip(random, views, strict=True)])
    sizes = np.array([[view.size] for view in views])
    pixels_per_result = (boxes[:, :, 2:].min(2) / sizes).min(0)
    divisors = np.ones(len(rows), np.int64)
    for divisor in DIVISORS[1:]:
        divisors[divisor * OVERSAMPLING <= pixels_per_result] = divisor
    places = kept.find(rows, divisors)
    # The decoder may not have reduced the image.
    is_reduced = (places.height == -(-height // divisors)) & (places.width == -(-width // divisors))
    scaled = boxes / np.where(is_reduced, divisors, 1)[None, :, None]
    kept_rows = np.flatnonzero(places.is_kept)
    positions = positions[kept_rows]

    def cut(start: int, stop: int) -> None:
        part = kept_rows[start:stop]
        offset = places.offset[part] // batch_crops[0].dtype.itemsize
        place, spare = (offset, places.height[part], places.width[part]), ReusedMemory()
        for view, box, numbers, crops in zip(views, scaled, random, batch_crops, strict=True):
            out = crops if len(part) == len(crops) else np.empty((len(part), *crops.shape[1:]), crops.dtype)
            _cut(kept.pixels.view(crops.dtype), *place, box[part], view, numbers[part], spare, out)
            if out is not crops:
                crops[positions[start:stop]] = out

    run_in_threads(cut, len(kept_rows), threads)
    is_cut = np.zeros(len(batch_crops[0]), bool)
    is_cut[positions] = True
    return is_cut


def _cut(
    memory: np.ndarray,
    offset: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    boxes: np.ndarray,
    view: View,
    random: np.ndarray,
    spare: ReusedMemory,
    out: np.ndarray,
) -> None:
    """Calls the compiled function that cuts crops of one view."""
    from infomax.data.augmentation.kernels import crops_memory_length, cut_crops

    memory = memory.view()
    memory.flags.writeable = False  # as Pillow's pixels are: otherwise the function would be compiled for both
    numbers = spare.take(4 * crops_memory_length(boxes, out)).view(np.float32)
    cut_crops(memory, offset, height, width, boxes, view.bicubic, random[:, FLIP] < view.flip, numbers, out)


def load_kernels(views: ViewSet, pixel_format: PixelFormat = RGB, *, cut: bool = True, make: bool = True) -> None:
    """Compiles the kernels that a training calls, or loads them from disk; compiling takes seconds for each.

    Called before workers are forked, so that each of them need not do it again.

    Args:
        views: The views of the training.
        pixel_format: The channels and the range of the images' numbers.
        cut: Whether crops are cut out of files.
        make: Whether views are made by kernels, as on a CPU.
    """
    from infomax.data.augmentation import kernels

    kinds = ((kernels.cut_crops, cut), (views_kernel(pixel_format.channels), make))
    wanted = [kernel for kernel, is_wanted in kinds if is_wanted]
    dtype = np.uint16 if pixel_format.is_deep else np.uint8
    if all(_is_compiled(kernel, dtype) for kernel in wanted):
        return
    with Stage("preparing view kernels, which takes longer the first time", slow_only=True) as stage:
        all_views, index = (*views.global_crops, *views.local_crops), np.zeros(1, int)
        if cut:
            random = draw_uniform(0, 0, np.arange(len(all_views)), 0)
            cut_views(lambda _: np.zeros((8, 8, pixel_format.channels), dtype), random, all_views)
        if make:
            images = torch.from_numpy(np.zeros((1, 8, 8, pixel_format.channels), dtype))
            make_views(images, views, seed=0, epoch=0, index=index)
        stage.detail = "compiled" if any(kernel.stats.cache_misses for kernel in wanted) else "loaded"


def _is_compiled(kernel: Any, dtype: type[np.generic]) -> bool:
    """Returns whether a kernel has been compiled or loaded for pixels of a type."""
    return any(np.dtype(dtype).name in str(signature[0].dtype) for signature in kernel.signatures)


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
    base = images
    while isinstance(base, Subset | FormattedImages):
        base = base.base
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
    """Returns the context in which a loader starts its workers: this machine's default, with :class:`LockFreeEvent`.

    Raises:
        MachineError: if workers cannot share memory, as in a container that lets this user write none.
    """
    default = type(multiprocessing.get_context(multiprocessing.get_start_method()))
    context = type("Workers", (default,), {"Event": lambda self: LockFreeEvent()})()
    try:
        context.Lock()  # as each worker's queue has
    except OSError as error:
        cure = "--workers 0 reads images without workers"
        raise MachineError(f"there is no shared memory that workers could use; {cure} ({error})") from error
    return context


def isolate_from_signals(worker: int) -> None:
    """Moves a worker into a process group of its own and lets it ignore SIGINT and SIGUSR1.

    Signals to a whole process group are meant for the training process, which ends its workers itself, by SIGTERM. If
    it is killed, each worker ends by itself: a worker that waits for a full pipe to be read would wait for ever.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid == os.getppid():
        end_with_parent(parent.pid, grace=0.0)
    elif parent is not None:  # a server forked this worker for the training process, or that has ended
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    """Kills this process once the one that asked for it has ended."""
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def identity_collate(batch: Any) -> Any:
    """Returns the batch as it is: what a loader collates by if its data set returns whole batches."""
    return batch
