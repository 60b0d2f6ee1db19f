"""A map of images on a page: points that are coloured by class or cluster, and show their picture when touched.

The points are drawn by assets/map.js from arrays in the page: up to 200,000 of them in a few megabytes. Without scripts
the page shows a picture of the map, which is drawn here, and tables of its categories.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from infomax.reporting.pages.atlas import Atlas, spread_order
from infomax.reporting.pages.blocks import TableBlock
from infomax.reporting.pages.page import Ids, json_block, safe
from infomax.reporting.tables import Cell, make_table
from infomax.runtime.text import escape

MAX_POINTS = 200_000
"""Points of a map at most."""
NAME_BUDGET = 1_500_000
"""Bytes of all names in the page."""
NAMED_CATEGORIES = 24
"""Categories of a layer that have a colour and a shape of their own; the others are drawn as one, ``other``."""
TABLE_ROWS = 1000
"""Categories that the table of a layer lists."""
PALETTE = (
    ("blue", (0, 114, 178)),
    ("vermilion", (213, 94, 0)),
    ("green", (0, 158, 115)),
    ("purple", (204, 121, 167)),
    ("orange", (230, 159, 0)),
    ("sky blue", (86, 180, 233)),
    ("grey", (120, 120, 120)),
    ("yellow", (240, 228, 66)),
)
"""The colours of Okabe and Ito, which all kinds of colour vision tell apart, in the order of ``--run-0`` and so on of
assets/page.css; grey in place of their black, which is none on a dark screen."""
OTHER = ("small dots in pale grey", (165, 165, 165))
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus", "ring", "hexagon")
"""assets/map.js draws them in a shader."""
PICTURE_SIDE = 720  # pixels of the picture that the page shows without scripts
STAMP = 9  # pixels of a point's shape in it


@dataclass(frozen=True)
class MapPoints:
    """A frozen dataclass that holds the places of images on a map, and which of them have a picture in the atlas."""

    points: np.ndarray
    """Floats [n, 2], finite."""
    atlas_index: np.ndarray | None = None
    """Integers [n]: the number of the atlas's tile that shows this image, or -1 if none does. The page then shows that
    of the nearest point on the map, and says so. None if the tiles are the images in their order."""


@dataclass(frozen=True)
class MapLayer:
    """A frozen dataclass that holds a property of each image that can colour the map: its class, cluster or split."""

    name: str
    """In the singular, as ``class``."""
    values: np.ndarray
    """Integers [n]: the number of the image's category, or -1 if it has none."""
    categories: tuple[str, ...]
    missing: str = "none"
    """What an image without a category is called."""


@dataclass(frozen=True)
class _Counted:
    """A layer with its categories in the order of their frequency."""

    name: str
    ranks: np.ndarray
    """For each point, the place of its category in that order."""
    categories: list[str]
    counts: list[int]

    def styles(self) -> np.ndarray:
        """Returns a number for each point, which decides its colour and shape: at most ``NAMED_CATEGORIES``."""
        return np.minimum(self.ranks, NAMED_CATEGORIES if len(self.categories) > NAMED_CATEGORIES else 2**16)


@dataclass(frozen=True)
class EmbeddingMap:
    """A block of a page that shows images as points of an interactive map.

    Of more than 200,000 points some are left out at random, of long names those that have no picture; both are said.

    Raises:
        ValueError: if points, names and layers are not of the same number of images, if a place is not finite, if a
            value of a layer or of the atlas's index is out of range, or if two images have one tile.
    """

    title: str
    points: MapPoints
    layers: tuple[MapLayer, ...]
    atlas: Atlas | None
    names: Sequence[str]
    caption: str = ""
    """Says how the places were computed, as :class:`infomax.features.map_layout.Layout` does."""

    def __post_init__(self) -> None:
        places = np.asarray(self.points.points)
        n = len(places)
        if places.shape != (n, 2) or not np.isfinite(places).all():
            raise ValueError(f"points must be finite numbers of shape [n, 2], but have the shape {list(places.shape)}")
        if len(self.names) != n:
            raise ValueError(f"names must be as many as points, {n:,}, but are {len(self.names):,}")
        for layer in self.layers:
            _check_layer(layer, n)
        self._check_index(n)

    def _check_index(self, n: int) -> None:
        count = self.atlas.count if self.atlas else 0
        if self.points.atlas_index is None:
            if count > n:
                raise ValueError(f"atlas must have at most as many tiles as there are points, {n:,}, but has {count:,}")
            return
        index = np.asarray(self.points.atlas_index)
        if index.shape != (n,) or (n and not -1 <= index.min() <= index.max() < max(count, 1)):
            raise ValueError(f"atlas_index must be {n:,} numbers from -1 to {count - 1}, one for each point")
        own = index[index >= 0]
        if len(np.unique(own)) < len(own):
            raise ValueError("atlas_index must give each tile to one point at most, and -1 to those that have none")

    @property
    def assets(self) -> tuple[str, ...]:
        """The names of the files that the page needs for this block."""
        return ("map.css", "map.js", "tables.js")

    def html(self, ids: Ids) -> Iterator[str]:
        """Yields the block's HTML."""
        if not len(self.names):
            yield f"<p>{safe(self.title)}: there are no images.</p>"
            return
        map_id, help_id = ids.new("map"), ids.new("map-help")
        yield f'<figure class="map" data-map id="{map_id}" aria-labelledby="{map_id}-title">'
        yield f'<figcaption><h3 id="{map_id}-title">{safe(self.title)}</h3>'
        yield from (f"<p>{safe(line)}</p>" for line in (self.caption, *self._notes()) if line)
        yield "</figcaption>"
        yield _TOOLS
        picture = base64.b64encode(self._picture()).decode()
        yield (
            f'<div class="map-box" data-map-box aria-describedby="{help_id}"><img class="map-picture" data-map-picture '
            f'src="data:image/png;base64,{picture}" width="{PICTURE_SIDE}" height="{PICTURE_SIDE}" '
            f'alt="{safe(self._picture_words())}"></div>'
        )
        yield '<p class="map-note" data-map-note hidden></p>'
        yield '<p class="map-status" data-map-status role="status"></p>'
        yield f'<p class="map-help" id="{help_id}" data-map-help hidden>{_HELP}</p>'
        yield '<div class="map-legend" data-map-legend hidden></div>'
        yield '<div class="map-pins" data-map-pins hidden></div>'
        for layer in self._layers:
            yield from self._table(layer, ids)
        yield json_block(f"{map_id}-data", self._data())
        for sheet in self.atlas.sheets if self.atlas else ():
            content = base64.b64encode(sheet).decode()
            yield f'<img hidden data-map-sheet alt="" src="data:image/jpeg;base64,{content}">'
        yield "</figure>"

    @cached_property
    def _rows(self) -> np.ndarray:
        """The numbers of the images that are on the map, rising."""
        n = len(self.names)
        if n <= MAX_POINTS:
            return np.arange(n)
        rows = np.unique(self._pictured_rows)
        others = np.setdiff1d(np.arange(n), rows)
        drawn = np.random.default_rng(0).choice(others, MAX_POINTS - len(rows), replace=False)
        return np.sort(np.concatenate([rows, drawn]))

    @cached_property
    def _pictured_rows(self) -> np.ndarray:
        """The number of the image that each tile of the atlas shows, of those tiles that show one of these images."""
        return self._pictured[0]

    @cached_property
    def _pictured(self) -> tuple[np.ndarray, np.ndarray]:
        """Images that have a tile, and the numbers of their tiles."""
        if self.atlas is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if self.points.atlas_index is None:
            return np.arange(self.atlas.count), np.arange(self.atlas.count)
        index = np.asarray(self.points.atlas_index)
        rows = np.flatnonzero(index >= 0)
        order = np.argsort(index[rows])  # the atlas's order, in which any beginning is spread over the map
        return rows[order], index[rows][order]

    @cached_property
    def _layers(self) -> tuple[_Counted, ...]:
        return tuple(_count(layer, self._rows) for layer in self.layers)

    @cached_property
    def _places(self) -> np.ndarray:
        """Places as integers of 16 bits, both axes in the same unit, in the middle of the map."""
        points = np.asarray(self.points.points, np.float64)[self._rows]
        low, high = points.min(0), points.max(0)
        scaled = (points - (low / 2 + high / 2)) / max(float((high - low).max()), 1e-300) + 0.5
        return np.rint(scaled * 65535).clip(0, 65535).astype("<u2")

    @cached_property
    def _named(self) -> np.ndarray | None:
        """Positions among the points of those whose names fit into the page; None if all do."""
        names = [escape(self.names[row]) for row in self._rows]
        if _size(_pack_names(names)) <= NAME_BUDGET:
            return None
        positions = np.searchsorted(self._rows, self._pictured_rows)
        if not len(positions):
            positions = spread_order(self._places.astype(np.float64), 4000)
        while len(positions) and _size(_pack_names([names[k] for k in np.sort(positions)])) > NAME_BUDGET:
            positions = positions[: len(positions) // 2]
        return np.sort(positions)

    def _notes(self) -> Iterator[str]:
        """Yields what the reader must know of what is left out."""
        n, shown, pictured = len(self.names), len(self._rows), len(self._pictured_rows)
        if shown < n:
            yield f"{shown:,} of {n:,} images are on the map, drawn at random."
        if self.atlas is not None and pictured < shown:
            yield (
                f"{pictured:,} of the {shown:,} images have a picture in this page; for the others that of the nearest "
                f"point on the map is shown, and said."
            )
        if self._named is not None:
            yield (
                f"The names of {len(self._named):,} of the {shown:,} images are in this page; the others have their "
                "number, from 1 on."
            )
        for layer in self._layers:
            if len(layer.categories) > NAMED_CATEGORIES:
                yield (
                    f"The {NAMED_CATEGORIES} most frequent of {len(layer.categories):,} categories of "
                    f"“{layer.name}” have colours and shapes of their own; the others are {OTHER[0]}."
                )

    def _data(self) -> dict[str, Any]:
        """Returns what assets/map.js reads."""
        named = self._named
        positions = range(len(self._rows)) if named is None else named
        names = _pack_names([escape(self.names[self._rows[k]]) for k in positions])
        rows, tiles = self._pictured
        return {
            "count": len(self._rows),
            "places": _array(self._places),
            "numbers": None if len(self._rows) == len(self.names) else _array(self._rows.astype("<u4")),
            "layers": [
                {
                    "name": escape(layer.name),
                    "values": _array(layer.ranks.astype("u1" if len(layer.categories) <= 256 else "<u2")),
                    "bytes": 1 if len(layer.categories) <= 256 else 2,
                    "categories": [escape(name) for name in layer.categories],
                    "counts": layer.counts,
                }
                for layer in self._layers
            ],
            "namedCategories": NAMED_CATEGORIES,
            "names": {"positions": None if named is None else _array(named.astype("<u4")), **names},
            "pictured": _array(np.searchsorted(self._rows, rows).astype("<u4")),
            "tiles": _array(tiles.astype("<u2")),
            "atlas": self.atlas and {"side": self.atlas.side, "columns": self.atlas.columns},
        }

    def _table(self, layer: _Counted, ids: Ids) -> Iterator[str]:
        """Yields the table of a layer's categories, which is the map in words."""
        total = len(self._rows)
        rows = [
            (name, style_words(k, len(layer.counts)), Cell(f"{count:,}", count), Cell.per_cent(count / total))
            for k, (name, count) in enumerate(zip(layer.categories, layer.counts, strict=True))
        ]
        rest = layer.counts[TABLE_ROWS:]
        notes = [f"{len(rest):,} less frequent categories with {sum(rest):,} images are left out."] if rest else []
        table = make_table((layer.name, "drawn as", "images", "%"), rows[:TABLE_ROWS], notes=notes)
        yield f"<details><summary>Table: images by {safe(layer.name)}, {_categories(len(layer.categories))}</summary>"
        yield from TableBlock(table).html(ids)
        yield "</details>"

    def _picture_words(self) -> str:
        words = f"A map of {len(self._rows):,} images as points"
        return f"{words}, coloured by {self._layers[0].name}; the table below counts them." if self._layers else words

    def _picture(self) -> bytes:
        """Returns a PNG of the map on a transparent ground, coloured by the first layer."""
        n = len(self._rows)
        styles = self._layers[0].styles() if self._layers else np.zeros(n, np.int64)
        pixels = np.zeros((PICTURE_SIDE, PICTURE_SIDE), np.uint8)  # 0 is the transparent ground
        places = self._places / 65535 * (PICTURE_SIDE - 2 * STAMP) + STAMP
        x, y = places[:, 0].astype(int), PICTURE_SIDE - 1 - places[:, 1].astype(int)
        for style in np.unique(styles)[::-1]:  # the most frequent category is drawn last, others would cover it
            points = styles == style
            for dy, dx in _stamp(style, n):
                pixels[y[points] + dy, x[points] + dx] = 9 if style >= NAMED_CATEGORIES else style % 8 + 1
        picture = Image.frombytes("P", pixels.shape[::-1], pixels.tobytes())
        picture.putpalette([*(0, 0, 0), *(value for _, colour in PALETTE for value in colour), *OTHER[1]])
        content = BytesIO()
        picture.save(content, "PNG", optimize=True, transparency=0)
        return content.getvalue()


def style_words(rank: int, categories: int) -> str:
    """Returns how the points of a category are drawn, as ``orange square``.

    Args:
        rank: Place of the category in the order of frequency, from 0 on.
        categories: Number of categories of the layer.
    """
    if rank >= NAMED_CATEGORIES:
        return OTHER[0]
    return f"{PALETTE[rank % 8][0]} {SHAPES[(rank + rank // 8) % 8]}"


def _categories(count: int) -> str:
    return "one category" if count == 1 else f"{count:,} categories"


def _check_layer(layer: MapLayer, n: int) -> None:
    values = np.asarray(layer.values)
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise ValueError(f"values of layer {layer.name!r} must be {n:,} integers, but are {values.dtype}{values.shape}")
    if n and not -1 <= values.min() <= values.max() < len(layer.categories):
        raise ValueError(
            f"values of layer {layer.name!r} must be from -1 to {len(layer.categories) - 1}, but are from "
            f"{values.min()} to {values.max()}"
        )
    if len(layer.categories) >= 2**16:
        raise ValueError(f"layer {layer.name!r} must have less than 65,536 categories, not {len(layer.categories):,}")


def _count(layer: MapLayer, rows: np.ndarray) -> _Counted:
    """Returns the layer of some rows, without the categories that no row has."""
    values = np.asarray(layer.values)[rows].astype(np.int64)
    values[values < 0] = len(layer.categories)
    counts = np.bincount(values, minlength=len(layer.categories) + 1)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    rank_of = np.zeros(len(counts), np.int64)
    rank_of[order] = np.arange(len(order))
    labels = [*layer.categories, layer.missing]
    return _Counted(layer.name, rank_of[values], [labels[k] for k in order], counts[order].tolist())


def _array(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _pack_names(names: list[str]) -> dict[str, Any]:
    """Returns names without what each shares with the one before it, and without an ending that all have.

    Paths in the order of a folder's list shrink so to a few bytes each.
    """
    ending = _common_ending(names)
    shared, rest, before = bytearray(), [], ""
    for name in names:
        name = name[: len(name) - len(ending)]
        length = _common_length(before, name)
        shared.append(length)
        rest.append(name[length:])
        before = name
    return {"ending": ending, "shared": base64.b64encode(shared).decode(), "rest": rest}


def _common_length(first: str, second: str) -> int:
    """Returns how many characters two texts begin with alike, up to one that JavaScript counts as two."""
    length = 0
    for a, b in zip(first[:255], second, strict=False):
        if a != b or a > "\uffff":
            break
        length += 1
    return length


def _common_ending(names: list[str]) -> str:
    """Returns the last characters that all names have, as ``.jpg``."""
    ending = names[0] if names else ""
    for name in names:
        while not name.endswith(ending):
            ending = ending[1:]
    return ending


def _stamp(style: int, count: int) -> list[tuple[int, int]]:
    """Returns the pixels of a point, as steps down and right from its middle; of many points a few pixels."""
    if count > 20_000:
        return [(0, 0)]
    if count > 3_000 or style >= NAMED_CATEGORIES:
        return [(0, 0), (0, 1), (1, 0), (1, 1)]
    half = STAMP // 2
    y, x = (grid.ravel() / half for grid in np.mgrid[-half : half + 1, -half : half + 1])
    inside = shape_distance((style + style // 8) % 8, x, y) <= 1
    return [(round(a * half), round(b * half)) for a, b in zip(y[inside], x[inside], strict=True)]


def shape_distance(shape: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns a number for each place, which is at most 1 inside of a shape between -1 and 1; y points down.

    The shader of assets/map.js has the same formulas.
    """
    ax, ay = np.abs(x), np.abs(y)
    radius = np.hypot(x, y)
    return [
        radius,
        np.maximum(ax, ay) * 1.2,
        np.maximum(ax * 1.6 - y * 0.8, y * 1.25),
        (ax + ay) * 1.05,
        np.where(np.abs(ax - ay) < 0.42, np.maximum(ax, ay) * 1.1, 2),
        np.where(np.minimum(ax, ay) < 0.3, np.maximum(ax, ay), 2),
        np.where(radius > 0.5, radius, 2),
        np.maximum(ax * 0.87 + ay * 0.5, ay) * 1.1,
    ][shape]


_TOOLS = """<div class="map-tools" data-map-tools hidden>
<label>Colour by <select data-map-layer></select></label>
<label>Find <input type="search" data-map-search placeholder="part of a name" autocomplete="off" spellcheck="false">
</label>
<label><input type="checkbox" data-map-images> Pictures on the map</label>
<label><input type="checkbox" data-map-words checked> Names on the map</label>
<span class="map-buttons" role="group" aria-label="Zoom">
<button type="button" class="button" data-map-zoom="in" aria-label="Zoom in">+</button>
<button type="button" class="button" data-map-zoom="out" aria-label="Zoom out">&minus;</button>
<button type="button" class="button" data-map-zoom="reset">Whole map</button>
</span>
</div>"""
_HELP = (
    "Point at or tap an image; drag to move, scroll or pinch to zoom. By keyboard: Tab to the map, arrows to the next "
    "image in that direction, + and - zoom, 0 shows the whole map, Enter pins an image to a list below, Delete removes "
    "its pin, Esc clears. A slow machine draws a part of the points while the map moves."
)
