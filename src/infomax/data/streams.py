"""Images that come one after another: to train on, but not to be opened by their index."""

import hashlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from io import BytesIO
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from infomax.data.images import Images, Shrink, decode

PREVIEW = 20  # images from the beginning of a stream, to look at
SHUFFLED = 1000  # images among which the next one is drawn
READ_AHEAD = 256  # images


class Sample(NamedTuple):
    """An encoded image of a stream."""

    key: int
    """A hash of its bytes. It decides the image's views, wherever in the stream it comes."""
    name: str
    content: bytes


def _sample(name: str, content: bytes) -> Sample:
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return Sample(int.from_bytes(digest, "little") >> 1, name, content)


@dataclass(eq=False)
class EncodedImages(Images):
    """Encoded images in memory."""

    samples: Sequence[Sample]
    labels: np.ndarray | None = None
    classes: Any = ()

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.samples[index].name

    def key(self, index: int) -> int:
        return self.samples[index].key

    def fingerprint(self) -> str:
        return hashlib.sha256(repr([sample.key for sample in self.samples]).encode()).hexdigest()[:12]

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        sample = self.samples[index]
        return decode(BytesIO(sample.content), sample.name, shrink)


class Stream(ABC):
    """Images that come one after another, to train on."""

    @abstractmethod
    def __len__(self) -> int:
        """Images in an epoch."""

    @abstractmethod
    def fingerprint(self) -> str:
        """As that of :class:`Images`, of what is known before the images are read."""

    @abstractmethod
    def _read(self, seed: int | None, rank: int, world: int) -> Iterator[tuple[str, bytes]]:
        """The names and bytes of one rank's images, once, in an order that the seed decides, or that of the files.

        What is no image is empty.

        Raises:
            OSError: if the stream breaks off.
        """

    def read(self, seed: int, epoch: int, rank: int, world: int) -> Iterator[Sample]:
        """One rank's images in an order of this epoch, without end; read ahead by a thread.

        Where the shards can be shared out evenly, each rank reads its own, otherwise each reads all and leaves out
        what is for others.
        """

        def passes() -> Iterator[Sample]:
            for number in count():
                order = int(np.random.default_rng([seed, epoch, number]).integers(2**31))
                some = False
                for name, content in self._read(order, rank, world):
                    some = True
                    yield _sample(name, content)
                if not some:
                    raise ValueError(f"the stream has no image for rank {rank} of {world}")

        return _read_ahead(passes())

    @cached_property
    def preview(self) -> EncodedImages:
        """The first images, to look at."""
        with closing(self._read(None, 0, 1)) as images:  # pyrefly: ignore[bad-specialization]
            return EncodedImages([_sample(name, content) for name, content in islice(images, min(PREVIEW, len(self)))])

    def name(self, key: int) -> str:
        return f"image {key:016x}"


def _read_ahead(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The same, read by a thread; what goes wrong there is raised here."""
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
        except Exception as error:  # of whatever a package for the network raises
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
        thread.join(1)  # seconds; it may wait for the network


def package(name: str) -> Any:
    """An optional package, imported where it is needed.

    Raises:
        ValueError: saying how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"needs the package {name.split('.')[0]}; pip install 'infomax[streams]'") from error


def counted(name: str) -> tuple[str, int | None]:
    """``NAME#N`` as its name and number of images."""
    name, given, number = name.partition("#")
    if given and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise ValueError(f"want a number of images after #, but got {number!r}")
    return name, int(number) if given else None
