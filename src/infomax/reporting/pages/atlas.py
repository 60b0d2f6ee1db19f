"""Packs many small pictures into few JPEGs, from which a page cuts them again.

One picture a file would be thousands of data URIs, and one sheet for all more than a phone decodes: a sheet has at most
2048 x 2048 pixels, and all sheets together a number of bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from PIL import Image

SHEET = 2048
"""Pixels of a sheet's side at most: what every phone shows."""
MAX_IMAGES = 4000
"""Pictures of a page at most."""
BUDGET = 6_000_000
"""Bytes of all sheets in the page, in base64."""
GROUND = (128, 128, 128)
"""Colour of a tile beside a picture that is not square, and behind one that is transparent."""
QUALITIES = (80, 65, 50)
"""Qualities of the JPEGs, of which the first that fits the budget is taken."""
BLOCK = 16  # pixels of a side within which JPEG mixes colours: tiles of its multiples meet at their edge alone


@dataclass(frozen=True)
class Atlas:
    """A frozen dataclass that holds sheets of equal square tiles, each with one picture, row by row."""

    sheets: tuple[bytes, ...]
    """JPEGs."""
    side: int
    """Pixels of a tile's side."""
    columns: int
    """Tiles in a row of a sheet; a sheet has at most as many rows."""
    count: int
    """Tiles in all; the last sheet need not be full."""

    @property
    def tiles_per_sheet(self) -> int:
        """The number of tiles in each sheet but the last."""
        return self.columns**2


@dataclass
class _Sheets:
    """Collects tiles as pixels."""

    side: int
    columns: int
    pixels: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def add(self, tile: Image.Image) -> None:
        number = self.count % self.columns**2
        if number == 0:
            self.pixels.append(np.full((self.columns * self.side,) * 2 + (3,), GROUND, np.uint8))
        y, x = number // self.columns * self.side, number % self.columns * self.side
        self.pixels[-1][y : y + self.side, x : x + self.side] = np.asarray(tile)
        self.count += 1

    def encoded(self, count: int, quality: int) -> tuple[bytes, ...]:
        """Returns the sheets of the first tiles as JPEGs, cut below the last row and beside an only row's last tile."""
        sheets, per_sheet = [], self.columns**2
        for first in range(0, count, per_sheet):
            here = min(per_sheet, count - first)
            height, width = -(-here // self.columns), min(here, self.columns)
            content, pixels = BytesIO(), self.pixels[first // per_sheet]
            Image.fromarray(pixels[: height * self.side, : width * self.side]).save(content, "JPEG", quality=quality)
            sheets.append(content.getvalue())
        return tuple(sheets)


def pack_atlas(images: Iterable[Image.Image], side: int = 32, *, budget: int = BUDGET) -> Atlas:
    """Packs pictures into sheets, each shrunk or enlarged into a tile, with its aspect kept.

    If the sheets are larger than the budget, their quality is lowered; if they still are, the last pictures are left
    out: the atlas's ``count`` says how many it holds. :func:`spread_order` gives an order in which the first of any
    number are spread over a map.

    Args:
        images: At most 4,000 images of any mode; they are read one after the other, and not kept.
        side: Pixels of a tile's side, a multiple of 16 up to 2,048.
        budget: Bytes of all sheets in the page, in base64.

    Raises:
        ValueError: if there are more than 4,000 images, or for another side.
    """
    if side < BLOCK or side > SHEET or side % BLOCK:
        raise ValueError(f"side must be a multiple of {BLOCK} from {BLOCK} to {SHEET}, but is {side}")
    sheets = _Sheets(side, SHEET // side)
    for image in images:
        if sheets.count == MAX_IMAGES:
            raise ValueError(f"images must be at most {MAX_IMAGES:,}: choose among them by spread_order")
        sheets.add(fit_tile(image, side))
    encoded, count = sheets.encoded(sheets.count, QUALITIES[0]), sheets.count
    for quality in QUALITIES[1:]:
        if _base64_size(encoded) > budget:
            encoded = sheets.encoded(count, quality)
    while count and (size := _base64_size(encoded)) > budget:
        count = min(count - 1, int(0.97 * count * budget / size))
        encoded = sheets.encoded(count, QUALITIES[-1])
    return Atlas(encoded, side, sheets.columns, count)


def _base64_size(contents: Iterable[bytes]) -> int:
    return sum(-(-len(content) // 3) * 4 for content in contents)


def fit_tile(image: Image.Image, side: int) -> Image.Image:
    """Returns an image in the middle of a square tile on a grey ground, its longer side as long as the tile's."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, (*GROUND, 255))
        image.alpha_composite(layer)
    if min(image.size) < 1:
        return Image.new("RGB", (side, side), GROUND)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    filter_ = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST  # digits of 8 pixels keep theirs
    small = image.convert("RGB").resize(size, filter_, reducing_gap=2.0 if scale < 1 else None)
    tile = Image.new("RGB", (side, side), GROUND)
    tile.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile


def spread_order(points: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Returns numbers of points in an order in which the first of any number are spread over the map.

    The map is cut into 1, 4, 16, ... cells; on each level a point is taken in every cell that has none yet. Which one,
    and which cell first, the seed decides: the order of the points does not.

    Args:
        points: Places on the map, [n, 2], finite.
        count: How many are wanted; fewer points give them all.
        seed: Decides among the points of a cell.
    """
    n = len(points)
    shuffled = np.random.default_rng(seed).permutation(n)
    low, high = (points.min(0), points.max(0)) if n else (0, 1)
    places = (points[shuffled] - low) / max(float(np.max(high - low)), 1e-30)
    taken, chosen = np.zeros(n, bool), []
    for level in range(13):
        if sum(map(len, chosen)) >= min(count, n):
            break
        cells_a_side = 2**level
        cell = (places * cells_a_side).astype(np.int64).clip(0, cells_a_side - 1) @ np.array([cells_a_side, 1])
        full = np.zeros(cells_a_side**2, bool)
        full[cell[taken]] = True
        free = np.flatnonzero(~full[cell])
        first = np.sort(free[np.unique(cell[free], return_index=True)[1]])
        taken[first] = True
        chosen.append(first)
    chosen.append(np.flatnonzero(~taken))  # points in the same place
    return shuffled[np.concatenate(chosen)[:count]]
