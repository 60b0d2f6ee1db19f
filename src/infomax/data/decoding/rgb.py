"""Makes 8-bit RGB of loaded images, upright: transparent pixels become white, and numbers of more bits are scaled."""

import numpy as np
from PIL import Image

from infomax.data.decoding.image_files import RefusedImageError
from infomax.data.decoding.opened_images import OpenedImage
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.orientation import TURNS

BLOCK = 2**20  # pixels whose numbers are scaled at once


def convert(opened: OpenedImage, name: str, decoding: Decoding) -> Image.Image:
    """Returns an image in RGB and upright; transparent pixels are white.

    Args:
        opened: The image.
        name: Its name in an error.
        decoding: What the user decided.

    Raises:
        ValueError: naming the image, if nobody says which of its numbers are black and white.
    """
    try:
        return upright_rgb(opened, decoding)
    except RefusedImageError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def upright_rgb(loaded: OpenedImage, decoding: Decoding) -> Image.Image:
    """Returns an image in RGB, turned as its orientation says."""
    rgb = _to_rgb(loaded, decoding)
    return rgb.transpose(TURNS[loaded.orientation]) if loaded.orientation in TURNS else rgb


def _to_rgb(loaded: OpenedImage, decoding: Decoding) -> Image.Image:
    """Converts an image of any mode to RGB, on white if it is transparent."""
    image = loaded.image
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # convert() would copy it
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits, which convert() would cut off at 255
        return _scale_numbers(loaded, decoding.value_range)
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _scale_numbers(loaded: OpenedImage, value_range: tuple[float, float] | None) -> Image.Image:
    """Returns an image of one channel of numbers in RGB; numbers that are NaN or infinite become the lower end.

    Args:
        loaded: The image.
        value_range: The range that the user gave.

    Raises:
        RefusedImageError: if nobody says which numbers are black and white.
    """
    is_inverted = loaded.white is not None and loaded.white < loaded.black
    if value_range is not None:
        low, high = (value * loaded.scale for value in value_range)
    elif loaded.white is not None:
        low, high = sorted((loaded.black, loaded.white))
    else:
        raise RefusedImageError(
            f"its numbers ({loaded.image.format}, mode {loaded.image.mode}) have no black and white of their own; give "
            "those with --value-range LOW,HIGH"
        )
    numbers, transparent = np.asarray(loaded.image), loaded.image.info.get("transparency")
    pixels = np.empty(numbers.shape, np.uint8)
    rows = max(1, BLOCK // max(1, numbers.shape[1]))
    for start in range(0, len(numbers), rows):
        values = numbers[start : start + rows].astype(np.float64)
        values[~np.isfinite(values)] = low
        scaled = ((values.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
        pixels[start : start + rows] = 255 - scaled if is_inverted else scaled
    if isinstance(transparent, int):
        pixels[numbers == transparent] = 255
    return Image.fromarray(pixels).convert("RGB")
