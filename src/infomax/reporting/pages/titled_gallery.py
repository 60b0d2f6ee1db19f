"""Images on a page below headings of their own: a section each, or one for all if they are many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infomax.reporting.pages.gallery import Gallery
from infomax.reporting.pages.page import Ids, Section, safe

MAX_SECTIONS = 24
"""Galleries that have a line each in the page's table of contents."""


@dataclass(frozen=True)
class TitledGallery:
    """A frozen dataclass that shows images below a heading of their own."""

    heading: str
    text: str
    """A paragraph below the heading; empty if there is none."""
    gallery: Gallery

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return self.gallery.assets

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        yield f"<h3>{safe(self.heading)}</h3>"
        if self.text:
            yield f"<p>{safe(self.text)}</p>"
        yield from self.gallery.html(ids)


def gallery_sections(galleries: Sequence[TitledGallery], heading: str) -> list[Section]:
    """Returns a section for each gallery; one for all, if they are many.

    Args:
        galleries: The galleries.
        heading: Heading of the one section.
    """
    if len(galleries) > MAX_SECTIONS:
        return [Section(heading, blocks=tuple(galleries))]
    return [Section(gallery.heading, gallery.text, (gallery.gallery,)) for gallery in galleries]
