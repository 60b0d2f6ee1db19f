"""Draws a picture of some images and of the views that training makes of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import PurePath
from unicodedata import combining, normalize

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from infomax.data.augmentation.draws import FLIP, crop_boxes, draw_uniform
from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import View, ViewSet
from infomax.data.images.contract import Images
from infomax.data.images.selection import first_readable
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.shown_pixels import SOFTWARE, shown_image
from infomax.runtime.text import escape

ORIGINAL = (340, 256)  # pixels; the largest width and height at which an image is shown
GLOBAL_TILE, LOCAL_TILE, LARGEST_TILE = 128, 96, 256  # pixels; smallest sides of shown crops, and the largest one
FEW_VIEWS = 3  # up to so many, two draws stand in one line
LINES = 2  # of draws beside each image
MARGIN, GAP = 24, 8  # pixels
TITLE_SIZE, TEXT_SIZE, CAPTION_SIZE = 22, 14, 12  # heights of letters, in pixels
LEADING = 1.4  # height of a line of text, in heights of letters
Colour = tuple[int, int, int]
WHITE, BLACK, GRAY, RULE = (255, 255, 255), (20, 20, 20), (105, 105, 105), (215, 215, 215)
GLOBAL_COLOUR, LOCAL_COLOUR, WARNING = (20, 90, 170), (190, 95, 10), (170, 30, 30)


@dataclass(frozen=True)
class Preview:
    """A frozen dataclass that holds the picture, and what could not be drawn."""

    png: bytes
    """The picture, as a PNG."""
    unreadable: tuple[str, ...]
    """Errors of the images that were to be drawn and could not be read; others are drawn in their places."""


def draw_views(
    images: Images,
    views: ViewSet,
    *,
    seed: int,
    title: str,
    rows: int = 4,
    notes: Sequence[str] = (),
    pixel_format: PixelFormat = RGB,
) -> Preview:
    """Draws some images, each beside the views that training makes of it in the first epochs.

    Args:
        images: The images; those that are drawn lie at equal distances in the data set.
        views: The settings of the views; the picture says them in words too.
        seed: Seed of the run.
        title: Title of the picture.
        rows: Number of images.
        notes: Further lines of the picture, which stand below its title.
        pixel_format: The channels and the range of the images' numbers.

    Returns:
        The picture. Its crops are those of the training, up to rounding.

    Raises:
        ValueError: if none of the images can be read.
    """
    epochs = LINES * draws_per_line(views)
    drawn, unreadable = draw_images(images, views, seed=seed, rows=rows, epochs=epochs, pixel_format=pixel_format)
    is_shown_as_it_is = not pixel_format.is_deep and pixel_format.channels in (1, 3)
    shown = "as they are trained on" if is_shown_as_it_is else "stretched for the eye"
    counts = f"{len(drawn)} of {len(images):,} images, {shown}"
    layout = _Layout(drawn, views, title=title, notes=notes, counts=counts, unreadable=unreadable)
    png, about = io.BytesIO(), PngInfo()
    about.add_text(*SOFTWARE)
    # The level is twice as fast as the default, for a few per cent of the size.
    layout.paint().save(png, "PNG", compress_level=3, pnginfo=about)
    return Preview(png.getvalue(), tuple(unreadable))


def draws_per_line(views: ViewSet) -> int:
    """Returns how many draws of an image's views stand beside each other."""
    return 2 if len(views.global_crops) + len(views.local_crops) <= FEW_VIEWS else 1


def draw_images(
    images: Images, views: ViewSet, *, seed: int, rows: int, epochs: int, pixel_format: PixelFormat = RGB
) -> "tuple[list[DrawnImage], list[str]]":
    """Draws the views that training makes of some images, at equal distances in the data set, in its first epochs.

    Args:
        images: The images.
        views: The settings of the views.
        seed: Seed of the run.
        rows: Number of images.
        epochs: Number of epochs.
        pixel_format: The channels and the range of the images' numbers.

    Returns:
        The images with their views; and the errors of those that could not be read, in whose place others are drawn.

    Raises:
        ValueError: if none of the images can be read.
    """
    images = images.in_format(pixel_format)
    wanted = np.linspace(0, len(images) - 1, min(rows, len(images))).astype(int).tolist()
    drawn: list[DrawnImage] = []
    unreadable: list[str] = []
    for start in wanted:
        try:
            index, image = start, images.open(start)  # what is trained on, and no picture of more contrast
        except ValueError as error:
            unreadable.append(str(error))
            index, image = first_readable(images, start, images.open)
        drawing = partial(_views_of, image)
        if not pixel_format.is_rgb:
            drawing = partial(_views_of_pixels, images.open_pixels(index), pixel_format)
        by_epoch = [drawing(views, seed=seed, epoch=i, key=images.key(index)) for i in range(epochs)]
        drawn.append(DrawnImage(images.name(index), image, by_epoch))
    return drawn, unreadable


@dataclass(frozen=True)
class DrawnView:
    """A frozen dataclass that holds one crop after all its operations."""

    image: Image.Image
    share: float
    """Share of the image's area that the crop takes."""


@dataclass(frozen=True)
class DrawnImage:
    """A frozen dataclass that holds an image and its views."""

    name: str
    image: Image.Image
    by_epoch: list[list[DrawnView]]
    """For each epoch, from the first, all views, global crops first."""


@dataclass(frozen=True)
class _Tile:
    """The column of one view."""

    title: str
    view: View
    side: int
    """Side at which the view is shown, in pixels."""
    colour: Colour


def _views_of(image: Image.Image, views: ViewSet, *, seed: int, epoch: int, key: int) -> list[DrawnView]:
    """Returns all views of one image in one epoch.

    Pillow cuts the crops and torch's operations change the colours: the kernels that training uses would have to be
    compiled first, for a few images.
    """
    all_views, index = (*views.global_crops, *views.local_crops), np.array([key])
    random = np.concatenate([draw_uniform(seed, epoch, index, number) for number in range(len(all_views))])
    boxes = crop_boxes(random, image.height, image.width, all_views)
    crops = []
    for view, (top, left, height, width), flip in zip(all_views, boxes.tolist(), random[:, FLIP], strict=True):
        filter_ = Image.Resampling.BICUBIC if view.bicubic else Image.Resampling.BILINEAR
        box = (left, top, left + width, top + height)
        crop = image.resize((view.size, view.size), filter_, box=box, reducing_gap=3.0)
        pixels = np.array(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip < view.flip else crop)
        crops.append(torch.from_numpy(pixels[None]))
    normalized = make_views(crops, views, seed=seed, epoch=epoch, index=index, dtype=torch.float64)
    mean, std = np.array(views.mean), np.array(views.std)
    shares = boxes[:, 2] * boxes[:, 3] / (image.height * image.width)
    drawn = []
    for x, share in zip(normalized, shares.tolist(), strict=True):
        pixels = (x[0].permute(1, 2, 0).numpy() * std + mean).clip(0, 1)
        drawn.append(DrawnView(Image.fromarray((255 * pixels).round().astype(np.uint8)), share))
    return drawn


def _views_of_pixels(
    pixels: np.ndarray, pixel_format: PixelFormat, views: ViewSet, *, seed: int, epoch: int, key: int
) -> list[DrawnView]:
    """Returns all views of one image of any channels in one epoch, shown as the image is."""
    all_views, index = (*views.global_crops, *views.local_crops), np.array([key])
    random = np.concatenate([draw_uniform(seed, epoch, index, number) for number in range(len(all_views))])
    boxes = crop_boxes(random, pixels.shape[0], pixels.shape[1], all_views)
    batch = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    normalized = make_views(batch, views, seed=seed, epoch=epoch, index=index, dtype=torch.float64)
    mean, std, largest = np.array(views.mean), np.array(views.std), np.iinfo(pixels.dtype).max
    drawn = []
    for x, box in zip(normalized, boxes, strict=True):
        values = (x[0].permute(1, 2, 0).numpy() * std + mean).clip(0, 1) * largest
        values = values.round().astype(pixels.dtype)
        image = shown_image(values, pixel_format.show, stretched_as=pixels)
        drawn.append(DrawnView(image, float(box[2] * box[3] / np.prod(pixels.shape[:2]))))
    return drawn


def _tiles(views: ViewSet) -> list[_Tile]:
    """Returns the columns of all views: "global 1" and so on, then "local 1"."""
    shown = _shown_side(views.global_crops[0].size, GLOBAL_TILE)
    tiles = [_Tile(f"global {i + 1}", view, shown, GLOBAL_COLOUR) for i, view in enumerate(views.global_crops)]
    for i, view in enumerate(views.local_crops):
        tiles.append(_Tile(f"local {i + 1}", view, min(_shown_side(view.size, LOCAL_TILE), shown), LOCAL_COLOUR))
    return tiles


def _shown_side(side: int, least: int) -> int:
    """Returns the side at which a crop is shown, in pixels: a whole multiple of ``side``, so pixels stay square."""
    return min(-(-least // side) * side, max(LARGEST_TILE, least))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Returns the image at another size; enlarged, each pixel is a square, so that nobody takes it for sharp."""
    if image.size == (width, height):
        return image
    enlarges = width >= image.width and height >= image.height
    return image.resize((width, height), Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def _shown_original(image: Image.Image) -> Image.Image:
    """Returns the image as it is shown: at its own size, shrunk if it is larger, by a whole factor if it is small."""
    scale = min(ORIGINAL[0] / image.width, ORIGINAL[1] / image.height)
    scale = float(int(scale)) if scale >= 1 else scale
    return _resized(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns the letters that come with Pillow."""
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """Returns a text on one line, in characters that Pillow's letters have: accents are left out, others become "?"."""
    return escape("".join(x for x in normalize("NFKD", text) if not combining(x)).encode("ascii", "replace").decode())


def _fitting(text: str, width: float, size: int) -> str:
    """Returns the text, with an ellipsis in place of its middle if it is wider than ``width`` pixels."""
    if _font(size).getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 2:
        kept -= 1
        shorter = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
        if _font(size).getlength(shorter) <= width:
            return shorter
    return "..."


def _wrapped(text: str, width: float, size: int) -> list[str]:
    """Returns the lines of a text, none of them wider than ``width`` pixels unless a word is."""
    lines: list[str] = []
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(joined) > width:
            lines.append(f"  {word}")
        else:
            lines[-1:] = [joined]
    return lines


@dataclass(frozen=True)
class _Cell:
    """The place of one view of a draw, in pixels from the left and from the top of the draw."""

    tile: _Tile
    left: int
    top: int


def _cells(tiles: list[_Tile]) -> list[_Cell]:
    """Places the views of one draw: global crops beside each other, local crops in as many rows as are no higher."""
    cells, left = [], 0
    caption = _line_height(CAPTION_SIZE)
    global_tiles = [tile for tile in tiles if tile.colour == GLOBAL_COLOUR]
    local_tiles = tiles[len(global_tiles) :]
    for tile in global_tiles:
        cells.append(_Cell(tile, left, 0))
        left += tile.side + GAP
    if local_tiles:
        row_height = local_tiles[0].side + caption + GAP
        rows = (global_tiles[0].side + caption + GAP) // row_height
        per_row = -(-len(local_tiles) // rows)
        for i, tile in enumerate(local_tiles):
            cells.append(_Cell(tile, left + i % per_row * (tile.side + GAP), i // per_row * row_height))
    return cells


@dataclass
class _Layout:
    """Places images, views and words on a page.

    From top to bottom: title and notes, headings of the columns, a block for each image, and the views' settings.
    """

    drawn: list[DrawnImage]
    views: ViewSet
    title: str
    notes: Sequence[str]
    counts: str
    """Words on how many images are drawn, and how."""
    unreadable: Sequence[str]

    def __post_init__(self) -> None:
        self.originals = [_shown_original(drawn.image) for drawn in self.drawn]
        self.cells = _cells(_tiles(self.views))
        self.draws = len(self.drawn[0].by_epoch)
        self.draws_per_line = self.draws // LINES
        self.tiles_left = MARGIN + max(160, *(image.width for image in self.originals)) + 3 * GAP
        self.draw_width = max(cell.left + cell.tile.side for cell in self.cells) + 3 * GAP
        self.draw_height = self.cells[0].tile.side + _line_height(CAPTION_SIZE) + GAP
        self.width = max(self.tiles_left + self.draws_per_line * self.draw_width - 3 * GAP + MARGIN, 720)
        self.text_width = self.width - 2 * MARGIN

    def paint(self) -> Image.Image:
        """Returns the page."""
        header = self.header()
        footer = [line for text in describe_views(self.views) for line in _wrapped(text, self.text_width, TEXT_SIZE)]
        heights = [self.block_height(original) for original in self.originals]
        top = MARGIN + sum(_line_height(size) for _, size, _ in header) + GAP
        height = top + _line_height(CAPTION_SIZE) + sum(heights) + len(footer) * _line_height(TEXT_SIZE) + MARGIN
        page = Image.new("RGB", (self.width, height), WHITE)
        pen = ImageDraw.Draw(page)
        y = self.write(pen, MARGIN, header) + GAP
        self.write_headings(pen, y)
        y += _line_height(CAPTION_SIZE)
        for drawn, original, block_height in zip(self.drawn, self.originals, heights, strict=True):
            self.paint_block(page, pen, y, drawn, original)
            y += block_height
            pen.line((MARGIN, y - GAP, self.width - MARGIN, y - GAP), RULE)
        self.write(pen, y, [(line, TEXT_SIZE, GRAY) for line in footer])
        return page

    def header(self) -> list[tuple[str, int, Colour]]:
        """Returns the lines above the images: their text, the size of its letters, and its colour."""
        title = _fitting(_plain(self.title), self.text_width, TITLE_SIZE)
        explanation = (
            f"Left: {self.counts}. Right: what training makes of each in the epochs 1 to {self.draws}. % is the share "
            "of the image's area that a crop shows."
        )
        lines = [(explanation, GRAY), *((_plain(line), BLACK) for line in self.notes)]
        lines += [(f"cannot be read, so another one is shown: {_plain(error)}", WARNING) for error in self.unreadable]
        wrapped = [(line, TEXT_SIZE, ink) for text, ink in lines for line in _wrapped(text, self.text_width, TEXT_SIZE)]
        return [(title, TITLE_SIZE, BLACK), *wrapped]

    def write(self, pen: ImageDraw.ImageDraw, y: int, lines: list[tuple[str, int, Colour]]) -> int:
        """Writes lines from ``y`` pixels down, and returns where they end."""
        for text, size, colour in lines:
            pen.text((MARGIN, y), text, fill=colour, font=_font(size))
            y += _line_height(size)
        return y

    def write_headings(self, pen: ImageDraw.ImageDraw, y: int) -> None:
        """Writes the heading of each column."""
        pen.text((MARGIN, y), "image", fill=BLACK, font=_font(CAPTION_SIZE))
        in_rows = any(cell.top for cell in self.cells)
        for number in range(self.draws_per_line):
            for cell in self.cells:
                tile, left = cell.tile, self.tiles_left + number * self.draw_width + cell.left
                kind = tile.title.split()[0] if in_rows and tile.colour == LOCAL_COLOUR else tile.title
                heading = _fitting(f"{kind}, {tile.view.size} px", tile.side, CAPTION_SIZE)
                if cell.top == 0:
                    pen.text((left, y), heading, fill=tile.colour, font=_font(CAPTION_SIZE))

    def block_height(self, original: Image.Image) -> int:
        """Returns the height of an image with its views and captions, in pixels."""
        return max(original.height + 2 * _line_height(CAPTION_SIZE) + GAP, LINES * self.draw_height) + 2 * GAP

    def paint_block(
        self, page: Image.Image, pen: ImageDraw.ImageDraw, y: int, drawn: DrawnImage, original: Image.Image
    ) -> None:
        """Pastes one image and its views, with their captions."""
        page.paste(original, (MARGIN, y))
        name = _fitting(_plain(PurePath(drawn.name).name), self.tiles_left - MARGIN - 2 * GAP, CAPTION_SIZE)
        size = f"{drawn.image.width} x {drawn.image.height} pixels"
        for number, text in enumerate((name, size)):
            place = (MARGIN, y + original.height + 2 + number * _line_height(CAPTION_SIZE))
            pen.text(place, text, fill=GRAY, font=_font(CAPTION_SIZE))
        for epoch, views in enumerate(drawn.by_epoch):
            left = self.tiles_left + epoch % self.draws_per_line * self.draw_width
            top = y + epoch // self.draws_per_line * self.draw_height
            for cell, view in zip(self.cells, views, strict=True):
                side, place = cell.tile.side, (left + cell.left, top + cell.top)
                page.paste(_resized(view.image, side, side), place)
                caption = _fitting(f"epoch {epoch + 1}: {view.share:.0%}", side, CAPTION_SIZE)
                pen.text((place[0], place[1] + side + 1), caption, fill=GRAY, font=_font(CAPTION_SIZE))


def _line_height(size: int) -> int:
    """Returns the height of a line of text, in pixels, for letters of this size."""
    return round(size * LEADING)


def describe_views(views: ViewSet) -> list[str]:
    """Returns a line for each kind of view: the titles of the views of this kind, and its settings in words."""
    titles: dict[str, list[str]] = {}
    for tile in _tiles(views):
        titles.setdefault(_describe(tile.view), []).append(tile.title)
    lines = []
    for description, names in titles.items():
        of_one_kind = len(names) > 2 and names[0].split()[0] == names[-1].split()[0]
        listed = f"{names[0]} to {names[-1].split()[1]}" if of_one_kind else " and ".join(names)
        lines.append(f"{listed}: {description}")
    return lines


def _describe(view: View) -> str:
    """Returns the settings of a view in words; an operation that is never done is left out."""
    low, high = view.scale
    words = [f"{view.size} px of {low:.0%} to {high:.0%} of the area"]
    jitter = f"{view.brightness:g}, {view.contrast:g}, {view.saturation:g}, {view.hue:g}"
    for name, probability, details in (
        ("flip", view.flip, ""),
        ("colour jitter", view.jitter, f" ({jitter})"),
        ("grayscale", view.grayscale, ""),
        ("blur", view.blur, f" ({view.blur_sigma[0]:g} to {view.blur_sigma[1]:g} px)"),
        (
            f"{view.randaugment} x RandAugment",
            view.randaugment_probability if view.randaugment else 0,
            f" (magnitude {view.randaugment_magnitude:g}, std {view.randaugment_std:g}"
            f"{', increasing' if view.randaugment_increasing else ''})",
        ),
        ("solarise", view.solarize, ""),
        ("noise", view.noise, f" ({view.noise_std[0]:g} to {view.noise_std[1]:g})"),
        ("drop each channel", view.drop_channels, ""),
        ("quarter turns", view.rotate90, ""),
    ):
        if probability > 0:
            words.append(f"{name} {probability:.0%}{details}")
    return ", ".join(words)
