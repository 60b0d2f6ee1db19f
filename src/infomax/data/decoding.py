"""Decodes image files: which formats are read, how they become RGB, and what is refused."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Pillow's names of the formats that are read: raster images, decoded in this process. What Pillow opens besides is
# left out: formats that start another program (EPS), icons, fonts, game textures, films, and tables of science.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF",
    "JPEG2000", "MPO", "PSD", "PCX", "QOI", "SGI", "SUN", "TGA",
)  # fmt: skip
DivisorChooser = Callable[[int, int], int]
"""A function from an image's width and height to 1, 2, 4 or 8: both sides are divided by it when a JPEG is decoded."""


def decode(file: Path | BytesIO, name: str, choose_divisor: DivisorChooser | None = None) -> Image.Image:
    """Decodes an image; see :meth:`Images.open`.

    Args:
        file: Path of the encoded image, or its bytes.
        name: The image's name in an error.
        choose_divisor: Chooses by how much the sides of a JPEG are divided; see :meth:`Images.open`.

    Raises:
        ValueError: naming the image, if it cannot be decoded.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if choose_divisor is not None and image.format == "JPEG":
                is_on_its_side = image.getexif().get(0x0112) in (5, 6, 7, 8)  # stored turned by a quarter
                width, height = image.size
                divisor = choose_divisor(height, width) if is_on_its_side else choose_divisor(width, height)
                if divisor > 1:
                    image.draft(None, (width // divisor, height // divisor))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to RGB, on white if it is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # convert() would copy it
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel, which convert() would cut off at 255
        values = np.asarray(image, dtype=np.float64)
        largest = 65535.0 if image.mode.startswith("I;16") else values.max(initial=0)
        top = 1.0 if image.mode == "F" and largest <= 1 else 255.0 if largest <= 255 else 65535.0
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")
