"""Loads the pixels of opened images in their own mode, and finds which of their numbers are black and white."""

from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from infomax.data.decoding.image_files import pillow_settings
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.orientation import exif_orientation


@dataclass(frozen=True)
class OpenedImage:
    """A frozen dataclass that holds a decoded image, in its own mode, and what its file says of its numbers."""

    image: Image.Image
    orientation: int
    """EXIF's orientation that the image is still to be turned by; 1 is upright."""
    black: float = 0
    """The number of a black pixel, in modes of more than 8 bits."""
    white: float | None = None
    """The number of a white pixel; None if the format does not define it."""
    scale: float = 1
    """What Pillow multiplied the file's numbers by."""


def load_image(image: ImageFile) -> OpenedImage:
    """Decodes an image that has been opened, in its own mode."""
    black, white, scale = _number_range(image)
    image.load()
    is_turned = isinstance(image, TiffImageFile)
    orientation = 1 if is_turned else exif_orientation(image.info)  # it comes with the pixels in PNG
    return OpenedImage(image, orientation, black, white, scale)


def load_opened(image: Image.Image, name: str) -> OpenedImage:
    """Loads the pixels of an image that the user opened or made by Pillow, and what is known of its numbers.

    An image that was not opened from a file has a black and a white if it has 8 bits, or 16 without a sign.

    Args:
        image: The image.
        name: Its name in an error.

    Raises:
        ValueError: naming the image, if its pixels cannot be loaded, as after its file was closed.
    """
    try:
        with pillow_settings(Decoding()):
            black, white, scale = 0.0, 65535.0 if image.mode.startswith("I;16") else None, 1.0
            if isinstance(image, ImageFile):
                black, white, scale = _number_range(image)
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        raise ValueError(f"{name} cannot be read: {error}") from error
    orientation = 1 if isinstance(image, TiffImageFile) else exif_orientation(image.info)
    return OpenedImage(image, orientation, black, white, scale)


def _number_range(image: ImageFile) -> tuple[float, float | None, float]:
    """Returns the numbers of black and white that the format defines, or None, and what Pillow scales numbers by.

    Only 16-bit numbers without a sign have a black and a white. Numbers with a sign and floating-point numbers are
    quantities: heights, Hounsfield units, reflectances.

    Args:
        image: An image whose pixels have not been read.
    """
    arguments: Any = image.tile[0][3] if image.tile else ()
    if image.format == "PPM" and image.mode == "I":  # Pillow scales the largest number in the header to 65535
        is_scaled = isinstance(arguments, tuple) and len(arguments) > 1 and image.tile[0][0] != "raw"
        return 0, 65535, 65535 / arguments[1] if is_scaled else 1
    if image.format == "PNG":
        _scale_transparency(image, arguments if isinstance(arguments, str) else arguments[0] if arguments else "")
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(258, (1,))
        largest = 4095 if tuple(bits) == (12,) else 65535
        is_inverted = image.tag_v2.get(262) == 0  # WhiteIsZero
        black, white = (largest, 0) if is_inverted else (0, largest)
        return black, white if image.mode.startswith("I;16") else None, 1
    return 0, 65535 if image.mode.startswith("I;16") or image.format == "PNG" else None, 1


def _scale_transparency(image: ImageFile, raw_mode: str) -> None:
    """Scales the number of the transparent pixels of a PNG as its pixels are scaled.

    Args:
        image: The image.
        raw_mode: Pillow's name for how its pixels are stored.
    """
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = transparent * {"L;2": 85, "L;4": 17}[raw_mode]
    elif isinstance(transparent, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
