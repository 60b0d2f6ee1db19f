"""What sections of a page are made of: notices, paragraphs, facts, commands, tables and pictures."""

import base64
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from infomax.reporting.pages.page import Block, Ids, safe
from infomax.reporting.tables import Cell, Table

Kind = Literal["good", "info", "warning", "failed"]
WORDS: dict[Kind, str] = {"good": "Good", "info": "Note", "warning": "Warning", "failed": "Failed"}
"""What a reader of the screen says before a notice."""
ICONS: dict[Kind, str] = {
    "good": '<circle cx="12" cy="12" r="10"/><path d="M7 12.5l3.5 3.5L17 9"/>',
    "info": '<rect x="2" y="2" width="20" height="20" rx="4"/><path d="M12 11v6M12 7v.01"/>',
    "warning": '<path d="M12 2.5L22.5 21H1.5z"/><path d="M12 9v6M12 18v.01"/>',
    "failed": '<path d="M8 2h8l6 6v8l-6 6H8l-6-6V8z"/><path d="M8.5 8.5l7 7M15.5 8.5l-7 7"/>',
}
"""A shape for each kind of notice: a circle, a square, a triangle and an octagon."""
LONG = 24
"""Characters of a cell from which on its column is kept wide, so that not every word of it stands on its own line."""
NUMBER = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?(e[-+]?\d+)?")


class _WithoutAssets:
    """A block that needs no file beside those that every page has."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns no names."""
        return ()


@dataclass(frozen=True)
class Notice(_WithoutAssets):
    """A frozen dataclass that holds a verdict: what it is, by what it is shown, and what to do about it."""

    kind: Kind
    heading: str
    evidence: str = ""
    advice: str = ""

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        yield f'<div class="notice notice-{self.kind}">'
        yield f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{ICONS[self.kind]}</svg>'
        yield f'<div>\n<h3><span class="unseen">{WORDS[self.kind]}: </span>{safe(self.heading)}</h3>'
        if self.evidence:
            yield f"<p>{safe(self.evidence)}</p>"
        if self.advice:
            yield f'<p class="advice">{safe(self.advice)}</p>'
        yield "</div>\n</div>"


@dataclass(frozen=True)
class Paragraph(_WithoutAssets):
    """A frozen dataclass that holds a paragraph."""

    text: str

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields a line of HTML."""
        yield f"<p>{safe(self.text)}</p>"


@dataclass(frozen=True)
class Facts(_WithoutAssets):
    """A frozen dataclass that holds names and their values, as of an environment."""

    pairs: tuple[tuple[str, str], ...]
    code: bool = False
    """Whether the values are code, as options and versions are."""

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        begin, end = ("<code>", "</code>") if self.code else ("", "")
        yield '<dl class="facts">'
        for name, value in self.pairs:
            yield f"<div><dt>{safe(name)}</dt><dd>{begin}{safe(value)}{end}</dd></div>"
        yield "</dl>"


@dataclass(frozen=True)
class Commands(_WithoutAssets):
    """A frozen dataclass that holds exact commands, which a button copies."""

    text: str
    """The commands, a line each."""
    caption: str = ""

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        yield '<figure class="commands" data-commands>'
        if self.caption:
            yield f"<figcaption>{safe(self.caption)}</figcaption>"
        lines = self.text.replace("\t", "    ").rstrip("\n").split("\n")
        yield f"<pre data-scroll><code>{chr(10).join(map(safe, lines))}</code></pre>\n</figure>"


@dataclass(frozen=True)
class TableBlock:
    """A frozen dataclass that shows a table, which a script sorts by the numbers behind its cells."""

    table: Table

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that it needs."""
        return ("tables.js",)

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        title, *rest = self.table.title.split("\n")
        heading = ids.new("table")
        yield '<div class="table-block">'
        if title:
            yield f'<h3 id="{heading}">{safe(title)}</h3>'
        yield from (f"<p>{safe(line)}</p>" for line in rest if line)
        label = f'aria-labelledby="{heading}"' if title else 'aria-label="Table"'
        yield from table_lines(self.table, label, sortable=True)
        yield from (f'<p class="caption">{safe(note)}</p>' for note in self.table.notes)
        yield "</div>"


@dataclass(frozen=True)
class Picture:
    """A frozen dataclass that holds a picture, as a drawn figure.

    Raises:
        ValueError: if it is neither a PNG nor a JPEG.
    """

    content: bytes
    kind: Literal["png", "jpeg"]
    width: int
    """Of the picture, in pixels."""
    height: int
    alt: str
    """What the picture shows, for those who do not see it."""
    caption: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("png", "jpeg"):
            raise ValueError(f"a picture of a page is a png or a jpeg, not {self.kind}")


@dataclass(frozen=True)
class Pictures(_WithoutAssets):
    """A frozen dataclass that shows pictures below each other, no larger than they are."""

    pictures: tuple[Picture, ...]

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        for picture in self.pictures:
            content = base64.b64encode(picture.content).decode()
            yield '<figure class="picture">'
            yield (
                f'<img src="data:image/{picture.kind};base64,{content}" width="{picture.width}" '
                f'height="{picture.height}" alt="{safe(picture.alt)}" loading="lazy" decoding="async">'
            )
            if picture.caption:
                yield f"<figcaption>{safe(picture.caption)}</figcaption>"
            yield "</figure>"


@dataclass(frozen=True)
class SideBySide:
    """A frozen dataclass that shows blocks beside each other, as many in a line as there is room for."""

    blocks: tuple[Block, ...]

    @property
    def assets(self) -> tuple[str, ...]:
        """Returns the names of the files that the blocks need."""
        return tuple(dict.fromkeys(name for block in self.blocks for name in block.assets))

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields lines of HTML."""
        yield '<div class="beside">'
        for block in self.blocks:
            yield from block.html(ids)
        yield "</div>"


def table_lines(table: Table, label: str, *, sortable: bool = False) -> Iterator[str]:
    """Yields a table's HTML without its title and notes, in a box that scrolls sideways.

    Args:
        table: The table.
        label: The attribute that names it.
        sortable: Whether a script may sort its rows.
    """
    values = [[_value(cell) for cell in row] for row in table.rows]
    of_numbers = [i > 0 and any(row[i] is not None for row in values) for i in range(len(table.columns))]
    longest = [max((len(row[i].text) for row in table.rows), default=0) for i in range(len(table.columns))]
    kinds = [
        ' class="number"' if is_number else ' class="long"' if length > LONG else ""
        for is_number, length in zip(of_numbers, longest, strict=True)
    ]
    yield f'<div class="scroll" data-scroll role="group" {label}>'
    yield f"<table{' data-sortable' if sortable else ''}>\n<thead>\n<tr>"
    for name, kind in zip(table.columns, kinds, strict=True):
        yield f'<th scope="col"{kind}>{safe(name)}</th>' if name else f"<td{kind}></td>"
    yield "</tr>\n</thead>\n<tbody>"
    for row, numbers in zip(table.rows, values, strict=True):
        cells = []
        for i, (cell, number) in enumerate(zip(row, numbers, strict=True)):
            tag = 'th scope="row"' if i == 0 else "td"
            data = "" if number is None else f' data-value="{number!r}"'
            cells.append(f"<{tag}{kinds[i]}{data}>{safe(cell.text)}</{tag[:2]}>")
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody>\n</table>\n</div>"


def _value(cell: Cell) -> float | None:
    """Returns the number behind a cell, or the number that its text is; None if there is none, or it is not finite."""
    if cell.value is not None:
        return float(cell.value) if math.isfinite(cell.value) else None
    text = cell.text.strip()
    return float(text.replace(",", "")) if any(map(str.isdigit, text)) and NUMBER.fullmatch(text) else None
