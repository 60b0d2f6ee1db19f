"""A page as one HTML file that loads nothing: any browser shows it, on a phone too, and without scripts.

Names come from others' files, so everything but style and scripts is escaped. The page's own policy allows the style
and the scripts that are known by their hash, pictures within the file, and nothing else: no request, no other script.
For this no element has an attribute ``style`` or ``on...``.
"""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape as escape_html
from importlib.resources import files
from typing import Any, Protocol

from infomax.runtime.text import escape

FIRST_ASSETS = ("page.css", "page.js")
"""Files of ``assets`` that every page has."""
ESCAPED_IN_JSON = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
"""Characters that could end a script, or a line of one."""


class Ids:
    """The ids of a page's elements, each of which is given once."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def new(self, kind: str) -> str:
        """Returns an id that no other element of the page has, as ``chart-3``."""
        self._counts[kind] += 1
        return f"{kind}-{self._counts[kind]}"


class Block(Protocol):
    """A protocol of a part of a section, as a table or a chart."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files in ``assets`` that the block needs, beside those that every page has."""
        ...

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML; headings in it begin with ``h3``.

        Args:
            ids: The page's ids.
        """
        ...


@dataclass(frozen=True)
class Section:
    """A frozen dataclass that holds a part of a page, with a line in its table of contents.

    Raises:
        ValueError: if it has no heading.
    """

    heading: str
    text: str = ""
    """A paragraph below the heading."""
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if not self.heading.strip():
            raise ValueError("a section of a page needs a heading, which its table of contents shows")


@dataclass(frozen=True)
class Refresh:
    """A frozen dataclass that says from where a page is kept up to date, by a script that one of its blocks brings.

    The script finds both in the attributes ``data-refresh`` and ``data-address`` of ``main``.
    """

    seconds: float = 5.0
    """Time between two looks, in seconds."""
    address: str = ""
    """An address on the server that the page comes from, as only such may be asked."""


@dataclass(frozen=True)
class Page:
    """A frozen dataclass that holds a page."""

    title: str
    text: tuple[str, ...] = ()
    """Paragraphs below the title."""
    sections: tuple[Section, ...] = ()
    footer: str = ""
    refresh: Refresh | None = None
    """How a server keeps the page up to date; None for a page that is a file, which may not ask for anything."""

    def html(self) -> str:
        """Returns the page as one HTML file."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        style, scripts = self._style_and_scripts()
        yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
        yield f'<meta http-equiv="Content-Security-Policy" content="{self._policy(style, scripts)}">'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield '<meta name="referrer" content="no-referrer">'
        yield f"<title>{safe(self.title)}</title>\n<style>{style}</style>"
        # The first script chooses the colours, which must be known before anything is drawn.
        yield f'<script>{scripts[0]}</script>\n</head>\n<body>\n<a class="skip" href="#content">Skip to content</a>'
        yield from _top()
        numbered = [(f"section-{number}", section) for number, section in enumerate(self.sections, start=1)]
        contents = "\n".join(f'<li><a href="#{name}">{safe(x.heading)}</a></li>' for name, x in numbered)
        has_contents = len(numbered) > 1
        yield f'<div class="layout{"" if has_contents else " layout-alone"}">'
        if has_contents:
            yield f'<nav class="contents contents-wide" aria-label="Contents">\n<ol>\n{contents}\n</ol>\n</nav>'
        yield f'<main id="content" tabindex="-1"{self._refresh_attributes()}>\n<h1>{safe(self.title)}</h1>'
        yield from (f"<p>{safe(paragraph)}</p>" for paragraph in self.text)
        if has_contents:
            yield '<nav class="contents contents-narrow" aria-label="Contents">\n<details>\n<summary>Contents</summary>'
            yield f"<ol>\n{contents}\n</ol>\n</details>\n</nav>"
        ids = Ids()
        for name, section in numbered:
            yield f'<section id="{name}" aria-labelledby="{name}-heading">'
            yield f'<h2 id="{name}-heading">{safe(section.heading)}</h2>'
            if section.text:
                yield f"<p>{safe(section.text)}</p>"
            for block in section.blocks:
                yield from block.html(ids)
            yield "</section>"
        yield "</main>"
        if self.footer:
            yield f"<footer>{safe(self.footer)}</footer>"
        yield "</div>"
        yield from (f"<script>{script}</script>" for script in scripts[1:])
        yield "</body>\n</html>"

    def _style_and_scripts(self) -> tuple[str, tuple[str, ...]]:
        """Returns the text of the page's style, and the texts of its scripts."""
        of_blocks = (name for section in self.sections for block in section.blocks for name in block.assets)
        names = dict.fromkeys((*FIRST_ASSETS, *of_blocks))
        style = "\n".join(asset(name) for name in names if name.endswith(".css"))
        return style, tuple(asset(name) for name in names if name.endswith(".js"))

    def _policy(self, style: str, scripts: Sequence[str]) -> str:
        """Returns what the page may do: what stands here, and nothing else."""
        rules = [
            "default-src 'none'",
            "img-src data:",
            f"style-src {_hash_source(style)}",
            f"script-src {' '.join(map(_hash_source, scripts))}",
            *([] if self.refresh is None else ["connect-src 'self'"]),
            "base-uri 'none'",
            "form-action 'none'",
        ]
        return "; ".join(rules)

    def _refresh_attributes(self) -> str:
        if self.refresh is None:
            return ""
        return f' data-refresh="{self.refresh.seconds:g}" data-address="{safe(self.refresh.address)}"'


def _top() -> Iterator[str]:
    """Yields the line above the page: what made it, and the choice of its colours, which a script shows."""
    yield '<header class="top">\n<span class="brand">infomax</span>'
    yield '<fieldset class="theme" data-theme-switch hidden>\n<legend class="unseen">Colours</legend>'
    for value, name in (("light", "Light"), ("dark", "Dark"), ("system", "System")):
        yield f'<label><input type="radio" name="theme" value="{value}"><span>{name}</span></label>'
    yield "</fieldset>\n</header>"


def _hash_source(text: str) -> str:
    """Returns the words by which a policy allows a style or script of exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def asset(name: str) -> str:
    """Returns the text of a file in ``assets``, as ``page.css``."""
    return (files("infomax.reporting.pages") / "assets" / name).read_text(encoding="utf-8")


def safe(text: str) -> str:
    """Returns a text that is nothing but text in HTML, without characters that turn its direction around."""
    return escape_html(escape(text), quote=True)


def json_block(element_id: str, data: Any) -> str:
    """Returns an element that holds data for scripts, which is never executed.

    Args:
        element_id: Its id, one of the page's.
        data: Dictionaries, lists, texts and numbers; NaN and infinity become null. Texts are made harmless as by
            :func:`safe`, but for HTML's own characters: a script must set them as ``textContent``.
    """
    text = json.dumps(_plain(data), separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="{safe(element_id)}">{text.translate(ESCAPED_IN_JSON)}</script>'


def _plain(data: Any) -> Any:
    """Returns data as JSON knows it, whose texts hold no characters that act."""
    if isinstance(data, str):
        return escape(data)
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {escape(str(key)): _plain(value) for key, value in data.items()}
    if isinstance(data, Sequence):
        return [_plain(value) for value in data]
    return data
