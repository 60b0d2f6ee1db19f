"""Images whose channels are files of their own, as ``tile_B02.tif`` and ``tile_B03.tif``: which belong together.

Paths differ in a word that names the band: a part of the file's name between characters that are neither letters nor
digits, or a folder's name. The image has the path with ``*`` in place of the word.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image

from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.fingerprints import hash_files
from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.number_files import file_kind, read_numbers
from infomax.data.numbers import RGB_KIND, NumberKind, Numbers, pixels_of
from infomax.data.pixel_format import MAX_CHANNELS, RGB
from infomax.data.splits import counted, listed, shown_name

STAR = "*"
USUAL_BAND = re.compile(r"(?<![^\W_])(?:B\d{1,2}A?|(?i:red|green|blue|nir|swir\d?|vv|vh|hh|hv|ch\d{1,2}))(?![^\W_])")
"""Words that name a band in the files of satellites and microscopes."""
LOOKED_AT = 1000  # names of files among which bands are looked for
GRAY_KIND = NumberKind(1, np.dtype(np.uint8), 0, 255)


@dataclass(frozen=True)
class Bands:
    """A frozen dataclass that holds the words that name the bands, in the order of an image's channels."""

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Bands":
        """Returns the bands of ``B02,B03,B04``.

        Raises:
            ValueError: if they are no names, or one is there twice.
        """
        names = tuple(name.strip() for name in text.split(","))
        if not all(names) or len({*names}) < len(names) or len(names) > MAX_CHANNELS or re.search(r"[/\\*\0]", text):
            raise ValueError(
                f"--bands {shown_name(text)}: want the words in names of files that name the bands, each once, with "
                "commas between, as B02,B03,B04"
            )
        return cls(names)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = "|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True))
        return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])")

    def split(self, path: str) -> tuple[str, str] | None:
        """Returns a path with ``*`` in place of the band, and the band; None if it names none.

        Of a band that is named several times, the last word counts; the file's name counts before its folders.

        Raises:
            ValueError: if a file's name, or its folders, name two bands.
        """
        folder, slash, name = path.rpartition("/")
        matches = list(self._pattern.finditer(name))
        if matches:
            start = len(folder) + len(slash)
            places = [(start + match.start(), start + match.end()) for match in matches]
        else:
            places, end = [], 0
            for part in folder.split("/"):
                if part in self.names:
                    places.append((end, end + len(part)))
                end += len(part) + 1
        if not places:
            return None
        words = {path[start:end] for start, end in places}
        if len(words) > 1:
            raise ValueError(f"{shown_name(path)} names two bands, {listed(sorted(words))}")
        start, end = places[-1]
        return path[:start] + STAR + path[end:], path[start:end]


def group_bands(paths: Sequence[str], bands: Bands) -> tuple[list[str], list[str]]:
    """Groups files that are the bands of one image.

    Args:
        paths: Paths of the files, with slashes.
        bands: The bands.

    Returns:
        The path of each image, in the order in which its first file stands there, and a note on what was left out.

    Raises:
        ValueError: if none of the files names a band, or an image lacks a band.
    """
    found: dict[str, set[str]] = {}
    without: list[str] = []
    for path in paths:
        if STAR in path:
            raise ValueError(f"{shown_name(path)} has a {STAR} in its name, which stands for the band: rename it")
        split = bands.split(path)
        if split is None:
            without.append(path)
        else:
            found.setdefault(split[0], set()).add(split[1])
    if not found:
        words = ",".join(bands.names)
        raise ValueError(f"--bands {words}: no file names any of these bands, as {listed(paths[:2])} do not")
    incomplete = [(path, name) for path, names in found.items() for name in bands.names if name not in names]
    if incomplete:
        path, name = incomplete[0]
        raise ValueError(
            f"{shown_name(path)} lacks band {name}: there is no {shown_name(path.replace(STAR, name))}; "
            f"{counted(len({path for path, _ in incomplete}))} of {len(found)} lack a band"
        )
    notes = [f"{counted(len(bands.names), 'file')} are the bands of an image, as of {shown_name(next(iter(found)))}"]
    if without:
        notes.append(f"left out: {counted(len(without), 'file')} that name no band, as {shown_name(without[0])}")
    return list(found), notes


def describe_unnamed_bands(images: Images) -> str:
    """Returns a line on files that are read as an image each, but whose names are those of bands; empty for others.

    Files are taken for bands if their paths differ only in a usual word for one, and most images have the same words.

    Args:
        images: Images to train on, which were opened without ``--bands``.
    """
    if not isinstance(images, FileImages):
        return ""
    paths = [images.files[i] for i in range(min(len(images), LOOKED_AT))]
    bands_of_image: dict[str, list[str]] = {}
    for path in paths:
        if matches := list(USUAL_BAND.finditer(path)):
            start, end = matches[-1].span()
            bands_of_image.setdefault(path[:start] + STAR + path[end:], []).append(path[start:end])
    sets = Counter(tuple(words) for words in bands_of_image.values() if len(words) > 1)
    (words, count) = sets.most_common(1)[0] if sets else ((), 0)
    if 2 * count * len(words) <= len(paths):
        return ""
    first = next(path for path, names in bands_of_image.items() if tuple(names) == words)
    return (
        f"files such as {shown_name(first)} ({listed(words, len(words))}) look like the bands of one image, and each "
        f"is an image here; --bands {','.join(words)} makes one image of them"
    )


def without_star(path: str) -> str:
    """Returns a folder's path without the folder that names the band."""
    return "/".join(part for part in path.split("/") if part != STAR)


class _BandPaths(Sequence[str]):
    """The paths of all files of some images, one image after another."""

    def __init__(self, images: Sequence[str], bands: Bands):
        self.images, self.bands = images, bands.names

    def __len__(self) -> int:
        return len(self.images) * len(self.bands)

    def __getitem__(self, index: int) -> str:  # pyrefly: ignore[bad-override]
        image, band = divmod(index, len(self.bands))
        return self.images[image].replace(STAR, self.bands[band])


@dataclass(eq=False)
class BandImages(Images):
    """Images each of whose channels is a file of its own."""

    root: Path
    """Folder that the paths start from."""
    files: Sequence[str]
    """Paths of the images, relative to ``root``, with ``*`` in place of the band."""
    labels: np.ndarray | None
    classes: list[str]
    bands: Bands
    decoding: Decoding = Decoding()
    given: Sequence[str] | None = None
    """Names of the images, if they were given one by one."""

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index] if self.given is None else self.given[index]

    def fingerprint(self) -> str:
        return self.hashes()[0]

    def hashes(self) -> tuple[str, str | None]:
        names = self.files if isinstance(self.files, PackedNames) else PackedNames.pack(self.files)
        return hash_files(self.root, _BandPaths(names, self.bands), f"{names.fingerprint()} {self.bands.names}")

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        digest = hashlib.sha256(self.decoding.identity)
        for i in index:
            for path in self._paths(int(i)):
                size, modified = 0, 0
                try:
                    status = os.stat(path)
                    size, modified = status.st_size, status.st_mtime_ns
                except OSError:
                    pass  # the error is raised when the image is opened
                digest.update(f"{path.relative_to(self.root)}\0{size} {modified}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def decoded_by(self, decoding: Decoding) -> "BandImages":
        return replace(self, decoding=decoding)

    def _paths(self, index: int) -> list[Path]:
        return [self.root / self.files[index].replace(STAR, band) for band in self.bands.names]

    def kind(self, index: int) -> NumberKind:
        paths = self._paths(index)
        return self._join_kinds({path: file_kind(path, str(path), self.decoding) for path in paths})

    def read(self, index: int) -> Numbers:
        numbers = {path: read_numbers(path, str(path), self.decoding) for path in self._paths(index)}
        kind = self._join_kinds({path: band.kind for path, band in numbers.items()})
        values = {path: _one_channel(band.values, path) for path, band in numbers.items()}
        _check_equal({path: "{1} x {0} pixels".format(*band.shape) for path, band in values.items()})
        joined = np.concatenate(list(values.values()), axis=2)
        return Numbers(np.broadcast_to(joined, (*joined.shape[:2], 3)) if kind == RGB_KIND else joined, kind)

    def _join_kinds(self, kinds: Mapping[Path, NumberKind]) -> NumberKind:
        """Returns what the numbers of an image are, of those of its bands."""
        for path, kind in kinds.items():
            if kind.channels != 1 and kind != RGB_KIND:
                raise ValueError(f"{path} has {kind}; a band has one")
        grays = {path: GRAY_KIND if kind == RGB_KIND else kind for path, kind in kinds.items()}
        _check_equal({path: f"numbers of {kind.dtype}" for path, kind in grays.items()})
        _check_equal({path: f"the no-data number {kind.no_data}" for path, kind in grays.items()})
        first, *others = grays.values()
        is_one_range = all((kind.low, kind.high) == (first.low, first.high) for kind in others)
        low, high = (first.low, first.high) if is_one_range else (None, None)
        if first.is_byte and len(grays) in (1, 3):
            return RGB_KIND
        return NumberKind(len(grays), first.dtype, low, high, first.no_data, self.bands.names)

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.open_pixels(index)))

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
        values = self.read(index).values
        try:
            return pixels_of(values, RGB, self.decoding.value_range)
        except ValueError as error:
            raise ValueError(f"{self.root / self.files[index]}: {error}") from error


def _one_channel(values: np.ndarray, path: Path) -> np.ndarray:
    """Returns the numbers [h, w, 1] of a band; RGB must be gray."""
    if values.shape[2] == 3 and not (values == values[..., :1]).all():
        raise ValueError(f"{path} is in colour; a band has one channel")
    return values[..., :1]


def _check_equal(found: Mapping[Path, str]) -> None:
    """Raises ValueError, naming two files, if they differ in what was found of each."""
    (first, expected), *others = found.items()
    for path, words in others:
        if words != expected:
            raise ValueError(f"{path} has {words}, and {first.name} of the same image {expected}")
