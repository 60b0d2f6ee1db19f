"""Finds the images that features are of, to show them and to tell their sizes."""

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.images.selection import Subset
from infomax.data.sources.location import DataLocation
from infomax.data.splits import all_images
from infomax.embeddings.feature_file import FeatureTable, is_feature_file
from infomax.embeddings.readable import keep_rest
from infomax.reporting.pages.gallery import SIDE, Thumbnail, make_thumbnail, thumbnail_divisor
from infomax.runtime.stages import stages_shown

READING = ("value_range", "max_megapixels", "layout", "bands")
"""Parts of an images' location that say how files are read, which hold for the images of a query too."""
MAX_QUERIES = 60
"""Queries of which a page shows a picture."""
THUMBNAIL_BYTES = 6_500_000
"""Bytes of all thumbnails of a page and their words, with which it stays below 10 MB."""
WORDS_BYTES = 500
"""Bytes that the HTML around a thumbnail takes, about."""


@dataclass(frozen=True)
class ImageSize:
    """A frozen dataclass that holds the size of an image."""

    width: int
    height: int
    bytes: int | None
    """Size of its file; None if it has none of its own."""

    def describe(self) -> str:
        """Returns the size in words, as ``640 x 480, 81 kB``."""
        pixels = f"{self.width} x {self.height}"
        return pixels if self.bytes is None else f"{pixels}, {self.bytes / 1000:,.0f} kB"


class ShownImages:
    """The images that a table of features is of.

    Args:
        table: The features, whose rows are in the order of the images.
        data: The images, if they are elsewhere now; None takes where they were.

    Raises:
        ValueError: if the images are not there, or are others.
    """

    def __init__(self, table: FeatureTable, data: str | None = None):
        parts: dict[str, Any] = {**table.origin.data, **({} if data is None else {"data": data})}
        try:
            splits, names = all_images(DataLocation(**parts).open())
        except ValueError as error:
            raise ValueError(f"{error}; --data says where the images that the features are of are now") from error
        readable = keep_rest(splits, names, table.origin.left_out)
        names = readable.names
        self._images = ImageRows(list(readable.splits.values()))
        if len(names) != len(table.names) or any(a != b for a, b in zip(names, table.names, strict=True)):
            differing = next((b for a, b in zip(names, table.names, strict=False) if a != b), None)
            extent = f"{len(names)} images" if differing is None else f"images without {differing} in its place"
            raise ValueError(
                f"--data {parts['data']} has {extent}, but the features are of {len(table.names)}; infomax embed "
                "writes them anew"
            )

    def thumbnail(self, row: int, caption: str, *details: str, mark: str = "") -> Thumbnail:
        """Returns a thumbnail of an image; one that cannot be decoded is a grey square, and its details say so."""
        return self._images.thumbnail(row, caption, *details, mark=mark)

    def open(self, row: int) -> Image.Image | None:
        """Returns an image, a large JPEG smaller than it is; None if it cannot be decoded."""
        return self._images.open(row)

    def size(self, row: int) -> ImageSize:
        """Returns the size of an image; 0 by 0 pixels if its file cannot be read."""
        images, index = self._images.find(row)
        while isinstance(images, Subset):
            images, index = images.base, int(images.index[index])
        if not isinstance(images, FileImages):
            height, width = images.read(index).values.shape[:2]
            return ImageSize(width, height, None)
        path = Path(images.root) / images.files[index]
        try:
            with Image.open(path) as opened:
                return ImageSize(*opened.size, path.stat().st_size)
        except (OSError, ValueError, Image.DecompressionBombError):
            return _size_of_numbers(images, index, path)


def _size_of_numbers(images: Images, index: int, path: Path) -> ImageSize:
    """Returns the size of an image whose format Pillow does not read, as DICOM; 0 by 0 if nothing reads it."""
    try:
        height, width = images.read(index).values.shape[:2]
        return ImageSize(width, height, path.stat().st_size)
    except (OSError, ValueError):
        return ImageSize(0, 0, 0)


class ThumbnailRoom:
    """The bytes that are left for the thumbnails of a page.

    Args:
        size: Bytes in all.
    """

    def __init__(self, size: int = THUMBNAIL_BYTES):
        self.left = size

    def take(self, thumbnails: Iterable[Thumbnail]) -> tuple[Thumbnail, ...]:
        """Returns the first thumbnails that there is room for; those after them are not made."""
        taken: list[Thumbnail] = []
        remaining = iter(thumbnails)
        while self.left > 0 and (thumbnail := next(remaining, None)) is not None:
            words = (thumbnail.caption, *thumbnail.details)
            self.left -= len(thumbnail.jpeg) * 4 // 3 + WORDS_BYTES + sum(map(len, words))
            taken.append(thumbnail)
        return tuple(taken)


class ImageRows:
    """The images of several splits, one after the other.

    Args:
        splits: The images of each split.
    """

    def __init__(self, splits: list[Images]):
        self._splits, self._starts = splits, [0, *itertools.accumulate(map(len, splits))]

    def find(self, row: int) -> tuple[Images, int]:
        """Returns the split that a row belongs to, and the image's index there."""
        split = bisect.bisect_right(self._starts, row) - 1
        return self._splits[split], row - self._starts[split]

    def thumbnail(self, row: int, caption: str, *details: str, mark: str = "") -> Thumbnail:
        """Returns a thumbnail of an image; one that cannot be decoded is a grey square, and its details say so."""
        image = self.open(row)
        if image is None:
            image, details = Image.new("RGB", (SIDE, SIDE), "grey"), (*details, "cannot be read")
        return Thumbnail(make_thumbnail(image), caption, details, mark)

    def open(self, row: int) -> Image.Image | None:
        """Returns an image, a large JPEG smaller than it is; None if it cannot be decoded."""
        images, index = self.find(row)
        try:
            return images.show(index, thumbnail_divisor)
        except ValueError:
            return None


def query_thumbnails(table: FeatureTable, query: str, images: ShownImages) -> dict[str, Thumbnail]:
    """Returns thumbnails of the first queries of a search, by the queries' names; none of a file of features.

    Args:
        table: The features that are searched.
        query: What the user searched for.
        images: The images that the features are of, of which the query may be one.
    """
    if Path(query).is_file() and is_feature_file(Path(query)):
        return {}
    if not Path(query).exists() and query in table.names:
        return {query: images.thumbnail(list(table.names).index(query), query, mark="query")}
    with stages_shown(False):  # the search has read them before, with a line
        splits, names = open_query_images(table, query)
    rows = ImageRows(list(splits.values()))
    return {name: rows.thumbnail(row, name, mark="query") for row, name in enumerate(names[:MAX_QUERIES])}


def open_query_images(table: FeatureTable, query: str) -> tuple[dict[str, Images], list[str]]:
    """Opens the images that a query names, with the range of values of those that the features are of.

    Returns:
        The images of each split, by the split's name; and the names of all images.

    Raises:
        ValueError: if there are no such images.
    """
    conditions = {key: table.origin.data[key] for key in READING if key in table.origin.data}
    options: dict[str, Any] = {"data": query, **conditions}
    try:
        return all_images(DataLocation(**options).open())
    except ValueError as error:
        raise ValueError(str(error).replace("--data", "--query")) from error
