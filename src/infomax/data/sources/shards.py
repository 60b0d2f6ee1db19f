"""WebDataset shards, tar files of images, through the package ``webdataset``."""

import glob
import hashlib
import os
import random
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from infomax.data.sources.folders import IMAGE_SUFFIXES
from infomax.data.splits import Source
from infomax.data.streams import SHUFFLED, Stream, counted, package


@dataclass(frozen=True)
class ShardStream(Stream):
    """Tar files of images, each read from its beginning to its end."""

    shards: list[str]
    length: int

    def __len__(self) -> int:
        return self.length

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{list(map(os.path.basename, self.shards))} {self.length}".encode()).hexdigest()[:12]

    def _read(self, seed: int | None, rank: int, world: int) -> Iterator[tuple[str, bytes]]:
        choice = random.Random(seed)
        shards = self.shards if seed is None else choice.sample(self.shards, len(self.shards))
        own = len(shards) % world == 0
        images = chain.from_iterable(map(_images, shards[rank::world] if own else shards))
        images = images if own else islice(images, rank, None, world)
        yield from images if seed is None else _shuffled(images, choice)


def _images(shard: str) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of the images in a tar file, wherever it is, as it is read."""
    opened = package("webdataset.gopen").gopen(shard)
    try:
        with closing(opened) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                if member.isfile() and os.path.splitext(member.name)[1].lower() in IMAGE_SUFFIXES:
                    content = tar.extractfile(member)
                    assert content is not None
                    yield f"{shard}: {member.name}", content.read()
    except tarfile.TarError as error:
        raise OSError(f"{shard} breaks off or is no tar file: {error}") from error


def _shuffled(images: Iterator[Any], choice: random.Random) -> Iterator[Any]:
    """Each next one is drawn among those that come soon."""
    soon = list(islice(images, SHUFFLED))
    for image in images:
        place = choice.randrange(len(soon))
        yield soon[place]
        soon[place] = image
    choice.shuffle(soon)
    yield from soon


def open_shards(data: str, pattern: str) -> Source:
    """Shards ``a-{000..009}.tar``, ``folder/*.tar`` or addresses; with ``#N`` at the end if their images are known.

    Raises:
        ValueError: if there are none, or shards elsewhere do not say how many images they have.
    """
    pattern, length = counted(pattern)
    shards = package("webdataset").shardlists.expand_urls(pattern) if pattern else []
    shards = [file for shard in shards for file in (sorted(glob.glob(shard)) if glob.has_magic(shard) else [shard])]
    local = [shard for shard in shards if ":" not in shard]
    if not shards or (missing := next((shard for shard in local if not os.path.isfile(shard)), None)):
        raise ValueError(f"no such shard: {missing if shards else pattern}")
    if length is None:
        if len(local) < len(shards):
            raise ValueError(f"the number of images is not known; give it at the end, as in {data}#1281167")
        length = sum(map(_count, shards))
        data = f"{data}#{length}"
    if length == 0:
        raise ValueError(f"no images in {len(shards)} shards; want files such as 0001.jpg in them")
    return Source(data, ShardStream(shards, length))


def _count(shard: str) -> int:
    """Images in a tar file, of which only the headers are read."""
    try:
        with tarfile.open(shard) as file:
            suffixes = [os.path.splitext(member.name)[1] for member in file if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{shard} is not a readable tar file: {error}") from error
    return sum(suffix.lower() in IMAGE_SUFFIXES for suffix in suffixes)
