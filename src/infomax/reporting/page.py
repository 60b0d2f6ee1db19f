"""A page of images as one HTML file that loads nothing and runs nothing: any browser shows it, on a phone too.

Names come from others' files, so everything but the style is escaped, and the page's own policy forbids scripts and
requests. Colours follow the reader's choice of a dark or a light screen.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape as escape_html
from io import BytesIO

from PIL import Image

from infomax.runtime.text import escape

SIDE = 128
"""Longer side of a thumbnail, in pixels."""
QUALITY = 75
"""Quality of a thumbnail's JPEG."""
MAX_THUMBNAILS = 1500
"""Thumbnails of a page, with which it stays below 10 MB."""
STYLE = """
:root { color-scheme: light dark; --back: #fbfbf9; --card: #ffffff; --text: #1c1c1a; --soft: #63635e; --line: #dddcd6;
  --mark: #0b6e4f; }
@media (prefers-color-scheme: dark) { :root { --back: #161615; --card: #222220; --text: #ecece8; --soft: #a3a39c;
  --line: #3a3a37; --mark: #6fd3ae; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; border-top: 1px solid var(--line); padding-top: .75rem; }
p { margin: 0 0 .5rem; color: var(--soft); }
ul { list-style: none; margin: .5rem 0 0; padding: 0; display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .4rem; font-size: .8rem;
  line-height: 1.3; }
li.marked { border: 2px solid var(--mark); }
img { display: block; width: 100%; height: 8rem; object-fit: contain; margin-bottom: .3rem; background: var(--back); }
.detail { color: var(--soft); }
.mark { color: var(--mark); font-weight: 600; }
footer { margin-top: 2rem; font-size: .85rem; color: var(--soft); }
"""


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


@dataclass(frozen=True)
class Section:
    """A frozen dataclass that holds a part of a page: images that belong together."""

    heading: str
    text: str
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Page:
    """A frozen dataclass that holds a page of images."""

    title: str
    text: tuple[str, ...]
    """Paragraphs below the title."""
    sections: tuple[Section, ...]
    footer: str = ""

    def html(self) -> str:
        """Returns the page as one HTML file."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; base-uri 'none'"
        yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
        yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<title>{_safe(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>"
        yield f"<h1>{_safe(self.title)}</h1>"
        yield from (f"<p>{_safe(paragraph)}</p>" for paragraph in self.text)
        for section in self.sections:
            yield f"<section>\n<h2>{_safe(section.heading)}</h2>"
            if section.text:
                yield f"<p>{_safe(section.text)}</p>"
            yield "<ul>"
            yield from map(_item, section.thumbnails)
            yield "</ul>\n</section>"
        yield f"</main>\n<footer>{_safe(self.footer)}</footer>\n</body>\n</html>"


def _item(thumbnail: Thumbnail) -> str:
    """Returns the element of a list that shows an image."""
    picture = base64.b64encode(thumbnail.jpeg).decode()
    words = [f"<bdi>{_safe(thumbnail.caption)}</bdi>"]
    words += [f'<div class="detail">{_safe(detail)}</div>' for detail in thumbnail.details]
    if thumbnail.mark:
        words.insert(0, f'<span class="mark">{_safe(thumbnail.mark)}</span>')
    kind = ' class="marked"' if thumbnail.mark else ""
    # The name stands below the picture, so a reader of the screen needs no second one.
    return f'<li{kind}><img alt="" loading="lazy" src="data:image/jpeg;base64,{picture}">{" ".join(words)}</li>'


def _safe(text: str) -> str:
    """Returns a text that is nothing but text in HTML, without characters that turn its direction around."""
    return escape_html(escape(text), quote=True)


def make_thumbnail(image: Image.Image) -> bytes:
    """Returns an image as a small JPEG, whose longer side has at most :data:`SIDE` pixels."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    content = BytesIO()
    small.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
