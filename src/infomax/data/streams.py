"""Images that are read one after another: they can be trained on, but not opened by their index."""

import hashlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from io import BytesIO
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from infomax.data.decoding.decoder import decode, decode_pixels
from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.images.contract import Images
from infomax.data.number_files import file_kind, read_numbers
from infomax.data.numbers import NumberKind, Numbers
from infomax.runtime.extras import how_to_install

PREVIEW = 20  # images at the beginning of a stream that can be opened by their index
SHUFFLE_BUFFER = 1000  # images that are held in memory, and among which the next one is drawn
READ_AHEAD = 256  # images that a thread reads ahead of need


class Sample(NamedTuple):
    """An encoded image of a stream."""

    key: int
    """A hash of the bytes, not negative. It decides the random numbers of the image's views, wherever in the stream the
    image comes."""
    name: str
    """The image's name, which messages use."""
    content: bytes
    """The encoded image; empty if it could not be read."""


def _sample(name: str, content: bytes) -> Sample:
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return Sample(int.from_bytes(digest, "little") >> 1, name, content)


@dataclass(eq=False)
class EncodedImages(Images):
    """Encoded images in memory, which are decoded each time that they are opened."""

    samples: Sequence[Sample]
    labels: np.ndarray | None = None
    classes: Any = ()
    decoding: Decoding = Decoding()

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.samples[index].name

    def key(self, index: int) -> int:
        return self.samples[index].key

    def fingerprint(self) -> str:
        return hashlib.sha256(repr([sample.key for sample in self.samples]).encode()).hexdigest()[:12]

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        sample = self.samples[index]
        return decode(BytesIO(sample.content), sample.name, choose_divisor, self.decoding)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        sample = self.samples[index]
        return decode_pixels(BytesIO(sample.content), sample.name, choose_divisor, self.decoding, buffer)

    def kind(self, index: int) -> NumberKind:
        sample = self.samples[index]
        return file_kind(BytesIO(sample.content), sample.name, self.decoding)

    def read(self, index: int) -> Numbers:
        sample = self.samples[index]
        return read_numbers(BytesIO(sample.content), sample.name, self.decoding)

    def decoded_by(self, decoding: Decoding) -> "EncodedImages":
        return replace(self, decoding=decoding)


class Stream(ABC):
    """A data set whose images are read one after another, to train on."""

    @property
    def decoding(self) -> Decoding:
        """Returns what the user decided about how files become pixels."""
        return Decoding()

    def decoded_by(self, decoding: Decoding) -> "Stream":
        """Returns the same stream, whose images are decoded as the user decided."""
        return self

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images in an epoch."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a short hash of what is known before the images are read; see :meth:`Images.fingerprint`."""

    @abstractmethod
    def _read(self, seed: int | None, rank: int, world_size: int) -> Iterator[tuple[str, bytes]]:
        """Yields the name and the bytes of each of one rank's images, once.

        Args:
            seed: Decides the order; None keeps the order of the files.
            rank: The rank, from 0.
            world_size: Number of ranks.

        Returns:
            An iterator; an entry without an image has empty bytes.

        Raises:
            OSError: if the stream breaks off.
        """

    def read(self, seed: int, epoch: int, rank: int, world_size: int) -> Iterator[Sample]:
        """Yields one rank's images in an order of this epoch, without end; a thread reads them ahead of need.

        After all images have been read, they are read again in another order. If the shards can be divided evenly, each
        rank reads its own. Otherwise each rank reads all shards, and keeps only its own images.

        Args:
            seed: Seed of the run.
            epoch: Epoch, from 0; with the seed, it decides the order.
            rank: The rank, from 0.
            world_size: Number of ranks.

        Raises:
            OSError: if the stream breaks off.
            ValueError: if there is no image for this rank.
        """

        def read_without_end() -> Iterator[Sample]:
            for repetition in count():
                order = int(np.random.default_rng([seed, epoch, repetition]).integers(2**31))
                is_empty = True
                for name, content in self._read(order, rank, world_size):
                    is_empty = False
                    yield _sample(name, content)
                if is_empty:
                    raise ValueError(f"the stream has no image for rank {rank} of {world_size}")

        return _read_ahead(read_without_end())

    @cached_property
    def preview(self) -> EncodedImages:
        """Returns the first images of the stream, to be looked at."""
        with closing(self._read(None, 0, 1)) as images:  # pyrefly: ignore[bad-specialization]
            samples = [_sample(name, content) for name, content in islice(images, min(PREVIEW, len(self)))]
        return EncodedImages(samples, decoding=self.decoding)

    def name(self, key: int) -> str:
        """Returns the name of the image with this key, which messages use."""
        return f"image {key:016x}"


def _read_ahead(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Yields the samples, which a thread reads ahead of need; an error in the thread is raised here."""
    ready: queue.Queue[Sample | Exception] = queue.Queue(READ_AHEAD)
    closed = threading.Event()

    def hand_over(item: Sample | Exception) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def run() -> None:
        try:
            for sample in samples:
                if closed.is_set():
                    return
                hand_over(sample)
        except (OSError, ValueError) as error:
            hand_over(error)
        except Exception as error:  # packages that read from the network raise errors of their own
            hand_over(OSError(f"the stream broke off: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        closed.set()
        if threading.current_thread() is not thread:  # which may be the one that collects a generator that nobody holds
            thread.join(1)  # seconds at most, for it may be waiting for the network


def import_optional(name: str) -> Any:
    """Imports an optional package, or a module of one, at the moment it is needed.

    Raises:
        ValueError: saying how to install it, if it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"needs the package {name.split('.')[0]}: {how_to_install('streams')}") from error


def split_image_count(name: str) -> tuple[str, int | None]:
    """Splits ``NAME#N`` into the name and the number of images, which is None without ``#``.

    Raises:
        ValueError: if what follows ``#`` is not a positive number.
    """
    name, separator, digits = name.partition("#")
    if separator and not (digits.isascii() and digits.isdigit() and int(digits) > 0):
        raise ValueError(f"want a number of images after #, but got {digits!r}")
    return name, int(digits) if separator else None
