"""Images on a page: galleries of thumbnails, and images with their neighbours."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from infomax.reporting.pages.page import Ids, safe

SIDE = 128
"""Longer side of a thumbnail, in pixels."""
QUALITY = 75
"""Quality of a thumbnail's JPEG."""
MAX_THUMBNAILS = 1500
"""Thumbnails of a page, with which it stays below 10 MB."""
ASSETS = ("gallery.css", "gallery.js")


@dataclass(frozen=True)
class Thumbnail:
    """A frozen dataclass that holds a small picture of an image, and words about the image."""

    jpeg: bytes
    caption: str
    """The image's name."""
    details: tuple[str, ...] = ()
    """Lines below the name."""
    mark: str = ""
    """A word that sets the image apart from the others, as ``keep``; empty for those others."""
    is_mistake: bool = False
    """Whether the mark names a mistake, as ``other class``, which has the colour of a warning."""


@dataclass(frozen=True)
class Gallery:
    """A frozen dataclass that shows images beside each other; a script enlarges the one that is chosen."""

    thumbnails: tuple[Thumbnail, ...]
    caption: str = ""

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return ASSETS

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        yield '<ul class="gallery" data-gallery>'
        yield from (_item(thumbnail) for thumbnail in self.thumbnails)
        yield "</ul>"
        if self.caption:
            yield f'<p class="caption">{safe(self.caption)}</p>'


@dataclass(frozen=True)
class RankedRows:
    """A frozen dataclass that shows images, each with others in their order, as its nearest neighbours."""

    rows: tuple[tuple[Thumbnail, tuple[Thumbnail, ...]], ...]

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return ASSETS

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        yield '<ul class="ranked">'
        for first, others in self.rows:
            yield '<li class="ranked-row" data-gallery>\n<ul class="ranked-first">'
            yield _item(first)
            yield '</ul>\n<ol class="ranked-others">'
            yield from (_item(other) for other in others)
            yield "</ol>\n</li>"
        yield "</ul>"


def _item(thumbnail: Thumbnail) -> str:
    """Returns the element of a list that shows an image."""
    picture = base64.b64encode(thumbnail.jpeg).decode()
    words = [f'<bdi class="name">{safe(thumbnail.caption)}</bdi>']
    words += [f'<span class="detail">{safe(detail)}</span>' for detail in thumbnail.details]
    if thumbnail.mark:
        words.insert(0, f'<span class="mark">{safe(thumbnail.mark)}</span>')
    kind = "thumbnail"
    if thumbnail.mark:
        kind += " marked mistaken" if thumbnail.is_mistake else " marked"
    # The name stands below the picture, so a reader of the screen needs no second one.
    image = f'<img alt="" loading="lazy" decoding="async" src="data:image/jpeg;base64,{picture}">'
    return f'<li class="{kind}" data-thumbnail>{image}{" ".join(words)}</li>'


def make_thumbnail(image: Image.Image, *, side: int = SIDE, quality: int = QUALITY) -> bytes:
    """Returns an image as a small JPEG.

    Args:
        image: The image.
        side: What its longer side has at most, in pixels.
        quality: Quality of the JPEG.
    """
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    content = BytesIO()
    small.save(content, "JPEG", quality=quality)
    return content.getvalue()


def thumbnail_divisor(width: int, height: int, *, side: int = SIDE) -> int:
    """Returns by what the sides of a JPEG may be divided so that a thumbnail still has fewer pixels."""
    return max(divisor for divisor in (1, 2, 4, 8) if divisor == 1 or max(width, height) // divisor >= 2 * side)
