"""Opens WebDataset shards, which are tar files of images, by the package ``webdataset``."""

import glob
import hashlib
import os
import random
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from infomax.data.decoding import Decoding
from infomax.data.sources.suffixes import IMAGE_SUFFIXES
from infomax.data.splits import Source
from infomax.data.streams import SHUFFLE_BUFFER, Stream, import_optional, split_image_count


@dataclass(frozen=True)
class ShardStream(Stream):
    """Streams the images of tar files; each file is read from its beginning to its end."""

    shards: list[str]
    """Paths or addresses of the tar files."""
    image_count: int
    """Number of images in all of them."""
    decoding: Decoding = Decoding()

    def decoded_by(self, decoding: Decoding) -> "ShardStream":
        return replace(self, decoding=decoding)

    def __len__(self) -> int:
        return self.image_count

    def fingerprint(self) -> str:
        names = list(map(os.path.basename, self.shards))
        return hashlib.sha256(f"{names} {self.image_count}".encode()).hexdigest()[:12]

    def _read(self, seed: int | None, rank: int, world_size: int) -> Iterator[tuple[str, bytes]]:
        rng = random.Random(seed)
        shards = self.shards if seed is None else rng.sample(self.shards, len(self.shards))
        divides_evenly = len(shards) % world_size == 0
        images = chain.from_iterable(map(_read_shard, shards[rank::world_size] if divides_evenly else shards))
        images = images if divides_evenly else islice(images, rank, None, world_size)
        yield from images if seed is None else _shuffled(images, rng)


def _read_shard(shard: str) -> Iterator[tuple[str, bytes]]:
    """Yields the names and bytes of the images in a tar file, here or at an address, while it is read."""
    opened = import_optional("webdataset.gopen").gopen(shard)
    try:
        with closing(opened) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                if member.isfile() and os.path.splitext(member.name)[1].lower() in IMAGE_SUFFIXES:
                    content = tar.extractfile(member)
                    assert content is not None
                    yield f"{shard}: {member.name}", content.read()
    except tarfile.TarError as error:
        raise OSError(f"{shard} breaks off or is no tar file: {error}") from error


def _shuffled(images: Iterator[Any], rng: random.Random) -> Iterator[Any]:
    """Yields the images in a random order: each is drawn from a buffer, which the next image then fills up."""
    buffer = list(islice(images, SHUFFLE_BUFFER))
    for image in images:
        position = rng.randrange(len(buffer))
        yield buffer[position]
        buffer[position] = image
    rng.shuffle(buffer)
    yield from buffer


def open_shards(data: str, pattern: str) -> Source:
    """Opens the shards that a pattern names, and counts their images if their number is not given.

    Args:
        data: The source's name; ``#N`` is added to it if the images were counted.
        pattern: ``a-{000..009}.tar``, ``folder/*.tar`` or addresses; with ``#N`` at the end for N images.

    Raises:
        ValueError: if there is no such shard or no image, or if shards at addresses come without ``#N``.
    """
    pattern, image_count = split_image_count(pattern)
    shards = import_optional("webdataset").shardlists.expand_urls(pattern) if pattern else []
    shards = [file for shard in shards for file in (sorted(glob.glob(shard)) if glob.has_magic(shard) else [shard])]
    local = [shard for shard in shards if ":" not in shard]
    if not shards or (missing := next((shard for shard in local if not os.path.isfile(shard)), None)):
        raise ValueError(f"no such shard: {missing if shards else pattern}")
    if image_count is None:
        if len(local) < len(shards):
            raise ValueError(f"the number of images is not known; give it at the end, as in {data}#1281167")
        image_count = sum(map(_count_images, shards))
        data = f"{data}#{image_count}"
    if image_count == 0:
        raise ValueError(f"no images in {len(shards)} shards; want files such as 0001.jpg in them")
    return Source(data, ShardStream(shards, image_count))


def _count_images(shard: str) -> int:
    """Counts the images in a tar file; only its headers are read."""
    try:
        with tarfile.open(shard) as file:
            suffixes = [os.path.splitext(member.name)[1] for member in file if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{shard} is not a readable tar file: {error}") from error
    return sum(suffix.lower() in IMAGE_SUFFIXES for suffix in suffixes)
