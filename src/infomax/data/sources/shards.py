"""Opens WebDataset shards: tar files of images, here or at an address, each read from its beginning to its end.

A shard holds samples: files whose names are the same up to the first dot of their last part. The image of the sample
``0001`` is ``0001.jpg``; ``0001.cls`` and ``0001.seg.png`` are other parts of it, which training does not use.
"""

import glob
import hashlib
import lzma
import os
import random
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from math import prod
from typing import Any, BinaryIO

from infomax.data.decoding.options import Decoding
from infomax.data.sources.suffixes import PILLOW_SUFFIXES, is_litter
from infomax.data.splits import Source
from infomax.data.streams import SHUFFLE_BUFFER, Stream, import_optional, split_image_count

SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hf")
"""The kinds of addresses that are read, by fsspec; it knows others too, some of which open other files or programs."""
USUAL_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SUFFIX_RANKS = {
    suffix: rank for rank, suffix in enumerate((*USUAL_SUFFIXES, *sorted(PILLOW_SUFFIXES - {*USUAL_SUFFIXES})))
}
"""Suffixes of images, numbered; if a sample has several images, the one of the lowest number is trained on."""
MAX_SHARDS = 1_000_000
MAX_FILE_BYTES = 2**36
MAX_IMAGE_BYTES = 2**30  # of an encoded image; a larger one counts as unreadable, whatever its header says
HEAD = 2**16  # bytes at the beginning of a shard that its fingerprint covers
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, MemoryError, OverflowError)
"""Errors by which a shard shows that it breaks off or is no tar file; its headers may ask for any amount of memory."""


@dataclass(frozen=True)
class ShardStream(Stream):
    """Streams the images of tar files; each file is read from its beginning to its end."""

    shards: list[str]
    """Paths or addresses of the tar files."""
    image_count: int
    """Number of images in all of them."""
    decoding: Decoding = Decoding()
    last_dot: bool = False
    """Whether a part's suffix begins at the last dot of its name, for shards whose names have dots themselves."""

    def decoded_by(self, decoding: Decoding) -> "ShardStream":
        return replace(self, decoding=decoding)

    def __len__(self) -> int:
        return self.image_count

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.image_count}".encode())
        for shard in self.shards:
            digest.update(f"{os.path.basename(shard)}\0".encode(errors="surrogateescape"))
            if not _is_address(shard):
                digest.update(f"{os.path.getsize(shard)}\0".encode())
                with open(shard, "rb") as file:
                    digest.update(file.read(HEAD))
        return digest.hexdigest()[:12]

    def _read(self, seed: int | None, rank: int, world_size: int) -> Iterator[tuple[str, bytes]]:
        rng = random.Random(seed)
        shards = self.shards if seed is None else rng.sample(self.shards, len(self.shards))
        divides_evenly = len(shards) % world_size == 0
        images = chain.from_iterable(
            _read_shard(shard, self.last_dot) for shard in (shards[rank::world_size] if divides_evenly else shards)
        )
        images = images if divides_evenly else islice(images, rank, None, world_size)
        yield from images if seed is None else _shuffled(images, rng)


def _read_shard(shard: str, last_dot: bool) -> Iterator[tuple[str, bytes]]:
    """Yields the name and bytes of the image of each sample in a tar file, here or at an address, while it is read."""
    try:
        with closing(_open_file(shard)) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for _, members in groupby(
                filter(_is_visible, _files(tar)), lambda member: _split_name(member.name, last_dot)[0]
            ):
                best, name, content = len(SUFFIX_RANKS), "", b""
                for member in members:  # the stream cannot go back: the best image so far is kept
                    rank = _suffix_rank(_split_name(member.name, last_dot)[1])
                    if rank < best:
                        best, name, content = rank, member.name, _read_member(tar, member)
                if name:
                    yield f"{shard}: {name}", content
    except DAMAGED as error:
        raise OSError(_broken_off(shard, error)) from error


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Returns the bytes of a file in a shard; none if they are too many for an image."""
    file = tar.extractfile(member) if member.size <= MAX_IMAGE_BYTES else None
    return b"" if file is None else file.read()


def _broken_off(shard: str, error: Exception) -> str:
    return f"{shard} breaks off or is no tar file: {str(error) or type(error).__name__}"


def _open_file(shard: str) -> BinaryIO | Any:
    """Opens a shard for reading, here or at an address of one of :data:`SCHEMES`."""
    if not _is_address(shard):
        return open(shard, "rb")
    _check_address(shard)
    return import_optional("fsspec").open(shard, "rb").open()


def _is_address(shard: str) -> bool:
    return "://" in shard and not os.path.isfile(shard)


def _check_address(shard: str) -> None:
    """Checks that a shard is at an address of a kind that is read, and that the package for it is there.

    An address may come from somebody else's run folder: nothing of it may run a command.

    Raises:
        ValueError: if it is not, saying which are.
    """
    scheme, _, rest = shard.partition("://")
    if scheme not in SCHEMES or "::" in shard or "://" in rest:
        raise ValueError(f"{shard} is no address that is read; want a path, or {', '.join(SCHEMES)}:// and no other")
    try:
        import_optional("fsspec").get_filesystem_class(scheme)
    except ImportError as error:
        raise ValueError(f"{shard} needs another package: {error}") from error


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the plain files in a tar file.

    Raises:
        tarfile.ReadError: if one claims more bytes than any file in a shard has: it would be skipped for years.
    """
    for member in tar:
        if member.size > MAX_FILE_BYTES:
            raise tarfile.ReadError(f"{member.name} claims {member.size} bytes")
        if member.isfile():
            yield member


def _is_visible(member: tarfile.TarInfo) -> bool:
    """Returns whether neither a member nor a folder of it is hidden or written by a system."""
    return not any(is_litter(part) or (part.startswith(".") and part != ".") for part in member.name.split("/"))


def _split_name(name: str, last_dot: bool) -> tuple[str, str]:
    """Returns a member's sample, and the suffix of the part: ``a/0001.seg.png`` is ``a/0001`` and ``.seg.png``.

    Args:
        name: The member's name.
        last_dot: Whether the suffix begins at the last dot instead: then it is ``a/0001.seg`` and ``.png``.
    """
    folder, slash, file = name.rpartition("/")
    sample, dot, part = file.rpartition(".") if last_dot and "." in file else file.partition(".")
    return f"{folder}{slash}{sample}", f"{dot}{part}".lower() if dot else "no suffix"


def _suffix_rank(suffix: str) -> int:
    """Returns how usual a suffix is for an image, from 0; the number of all suffixes of images if it is not one."""
    return SUFFIX_RANKS.get(suffix, len(SUFFIX_RANKS))


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
        pattern: ``a-{000..009}.tar``, ``a-{x,y}.tar``, ``folder/*.tar`` or addresses; with ``#N`` at the end for N
            images.

    Raises:
        ValueError: if there is no such shard or no image, if an address is of a kind that is not read, or if shards at
            addresses come without ``#N``.
    """
    pattern, image_count = split_image_count(pattern)
    shards = [file for shard in expand_braces(pattern) for file in _matching_files(shard)]
    addresses = [shard for shard in shards if _is_address(shard)]
    for address in addresses:
        _check_address(address)
    missing = [shard for shard in shards if not os.path.isfile(shard) and shard not in {*addresses}]
    if not shards or missing:
        commands = "; a command, as pipe: names one, is never run" if "pipe:" in pattern else ""
        raise ValueError(f"no such shard: {missing[0] if missing else pattern}{commands}")
    last_dot = not addresses and not _has_plain_image(shards[0])
    if image_count is None:
        if addresses:
            raise ValueError(f"the number of images is not known; give it at the end, as in {data}#1281167")
        image_count, left_out = _count_images(shards, last_dot)
        data = f"{data}#{image_count}"
    else:
        left_out = Counter()
    kinds = ", ".join(f"{count} x {suffix}" for suffix, count in left_out.most_common(5))
    if image_count == 0:
        raise ValueError(
            f"no images in {len(shards)} shards; found {kinds or 'nothing'}, want files such as 0001.jpg in them"
        )
    notes = ["no labels of shards are used; of each sample, its image is trained on, as 0001.jpg"]
    notes += [f"left out {kinds}"] if kinds else []
    if last_dot:
        notes.append("names in the shards have several dots: the last one is taken for the beginning of the suffix")
    return Source(data, ShardStream(shards, image_count, last_dot=last_dot), notes=tuple(notes))


def expand_braces(pattern: str) -> list[str]:
    """Returns the names that a pattern with braces stands for, as a shell does.

    Args:
        pattern: A name with ``{000..146}`` or ``{0..9..3}`` for numbers, and ``{a,b}`` for words. If there is a file of
            exactly this name, it stands for itself.

    Raises:
        ValueError: if braces stand within braces, or they make more than :data:`MAX_SHARDS` names.

    Example:
        >>> expand_braces("a-{08..10}.tar")
        ['a-08.tar', 'a-09.tar', 'a-10.tar']
        >>> expand_braces("{x,y}/{0..1}.tar")
        ['x/0.tar', 'x/1.tar', 'y/0.tar', 'y/1.tar']
    """
    if not pattern or os.path.isfile(pattern):
        return [pattern] if pattern else []
    if re.search(r"\{[^}]*\{", pattern):
        raise ValueError(f"{pattern} has braces within braces, which are not understood")
    pieces = re.split(r"(\{[^{}]*\})", pattern)
    alternatives = [_alternatives(piece) for piece in pieces]
    if prod(map(len, alternatives)) > MAX_SHARDS:
        raise ValueError(f"{pattern} names more than {MAX_SHARDS} shards")
    names = [""]
    for words in alternatives:
        names = [name + word for name in names for word in words]
    return names


class _Numbers(Sequence[str]):
    """The decimal numbers of a range, padded with zeros; of a huge range nothing is computed but what is asked for."""

    def __init__(self, numbers: range, width: int):
        self.numbers, self.width = numbers, width

    def __len__(self) -> int:
        return min(len(self.numbers), MAX_SHARDS + 1)

    def __getitem__(self, index: Any) -> Any:
        return f"{self.numbers[index]:0{self.width}d}"


def _alternatives(piece: str) -> Sequence[str]:
    """Returns what one piece of a pattern stands for: several words if it is in braces, else itself."""
    if numbers := re.fullmatch(r"\{(\d{1,18})\.\.(\d{1,18})(?:\.\.(\d{1,18}))?\}", piece):
        first, last, step = int(numbers[1]), int(numbers[2]), max(1, int(numbers[3] or 1))
        counts = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
        is_padded = any(len(number) > 1 and number.startswith("0") for number in numbers.groups()[:2])
        return _Numbers(counts, max(len(numbers[1]), len(numbers[2])) if is_padded else 0)
    if piece.startswith("{") and piece.endswith("}") and "," in piece:
        return piece[1:-1].split(",")
    return [piece]


def _matching_files(shard: str) -> list[str]:
    """Returns the files that a name with ``*`` stands for; a name that is a file's or has no ``*`` is itself."""
    if "://" in shard or os.path.isfile(shard) or not glob.has_magic(shard):
        return [shard]
    folder, name = os.path.split(shard)
    if os.path.isdir(folder):  # its name may have brackets itself
        folder = glob.escape(folder)
    return sorted(glob.glob(os.path.join(folder, name)))


def _has_plain_image(shard: str) -> bool:
    """Returns whether a tar file on this machine has an image whose name has one dot, as ``0001.jpg``."""
    try:
        with tarfile.open(shard) as tar:
            visible = filter(_is_visible, _files(tar))
            return any(_split_name(member.name, last_dot=False)[1] in PILLOW_SUFFIXES for member in visible)
    except (*DAMAGED, OSError) as error:
        raise ValueError(_broken_off(shard, error)) from error


def _count_images(shards: Sequence[str], last_dot: bool) -> tuple[int, Counter[str]]:
    """Counts the images in tar files on this machine, of which only the headers are read.

    Returns:
        The number of samples with an image, and the numbers of the other files by their suffixes.
    """
    image_count, left_out = 0, Counter()
    for shard in shards:
        try:
            with tarfile.open(shard) as tar:
                members = list(_files(tar))
        except (*DAMAGED, OSError) as error:
            raise ValueError(_broken_off(shard, error)) from error
        parts = [_split_name(member.name, last_dot) for member in members if _is_visible(member)]
        left_out["hidden files"] += len(members) - len(parts)
        for _, sample in groupby(parts, lambda part: part[0]):
            suffixes = sorted((suffix for _, suffix in sample), key=_suffix_rank)
            image_count += suffixes[0] in PILLOW_SUFFIXES
            left_out.update(suffixes[1:] if suffixes[0] in PILLOW_SUFFIXES else suffixes)
    return image_count, +left_out
