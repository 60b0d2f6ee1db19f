"""Images to compare an export on: the run's own, or crops of the photographs that come with scikit-learn.

An encoder of other images than 8-bit RGB is given arrays of the numbers of its run's images, or random numbers.
"""

from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from infomax.data.images.contract import Images
from infomax.data.images.selection import first_readable
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.splits import preview_images
from infomax.data.streams import Stream
from infomax.runs.run_folder import run_of

LARGEST_SIDE = 1024  # pixels
SAMPLES = ("china.jpg", "flower.jpg")


ReferenceImage = Image.Image | np.ndarray
"""A PIL image in RGB, or an array [h, w, channels] of numbers for an encoder of other images."""


def reference_images(
    encoder: str | PathLike[str], count: int, pixel_format: PixelFormat = RGB
) -> tuple[list[ReferenceImage], str]:
    """Returns some square images, and words for where they are from.

    Args:
        encoder: A run folder, or any other name of an encoder.
        count: Number of images.
        pixel_format: The channels and the range of the numbers that the encoder takes.
    """
    try:
        own = _images_of_run(Path(encoder), count, pixel_format)
    except (ValueError, OSError):  # they are no longer there, or cannot be read
        own = []
    if own:
        return own, "images that it was trained on"
    if not pixel_format.is_rgb:
        return _random_arrays(count, pixel_format), "arrays of random numbers"
    return _sample_crops(count), "crops of the two photographs that come with scikit-learn"


def _images_of_run(folder: Path, count: int, pixel_format: PixelFormat) -> list[ReferenceImage]:
    """Returns images that a run was trained on, at equal distances; none if it is no run or trained on a stream."""
    if (run := run_of(folder)) is None:
        return []
    location = run.location
    if location.data.startswith(("hf:", "hf-stream:", "wds:")):  # which may have to be fetched
        return []
    source = location.open()
    if isinstance(source.pretraining, Stream):
        return []
    images: Images = preview_images(source)
    numbers = np.linspace(0, len(images) - 1, count).astype(int).tolist()
    if pixel_format.is_rgb:
        return [square(first_readable(images, number)[1]) for number in numbers]
    readable = [first_readable(images, number)[0] for number in numbers]
    return [_square_array(_numbers(images, index, pixel_format)) for index in readable]


def _numbers(images: Images, index: int, pixel_format: PixelFormat) -> np.ndarray:
    """Returns the numbers of an image as its file has them, or its bytes if the encoder takes bytes."""
    if pixel_format.is_deep:
        return images.read(index).values
    return images.in_format(pixel_format).open_pixels(index)


def _square_array(values: np.ndarray) -> np.ndarray:
    """Returns the square in the centre of an array [h, w, channels], cut off if it is large."""
    side = min(*values.shape[:2], LARGEST_SIDE)
    top, left = ((length - side) // 2 for length in values.shape[:2])
    return np.ascontiguousarray(values[top : top + side, left : left + side])


def _random_arrays(count: int, pixel_format: PixelFormat) -> list[ReferenceImage]:
    """Returns arrays of random numbers that are constant in squares of 8 pixels; of deep ones some lie out of range."""
    random = np.random.default_rng(0)
    coarse = random.uniform(-0.1, 1.1, (count, 32, 32, pixel_format.channels)).repeat(8, 1).repeat(8, 2)
    if not pixel_format.is_deep:
        return list((255 * coarse.clip(0, 1)).astype(np.uint8))
    low, high = np.array(pixel_format.low), np.array(pixel_format.high)
    values = (low + coarse * (high - low)).astype(np.float32)
    values[:, :16, :16] = np.nan  # as where nothing was measured
    return list(values)


def _sample_crops(count: int) -> list[ReferenceImage]:
    """Returns square crops of scikit-learn's photographs, from left to right."""
    specification = find_spec("sklearn")
    assert specification is not None
    assert specification.submodule_search_locations is not None
    folder = Path(specification.submodule_search_locations[0]) / "datasets" / "images"
    crops: list[ReferenceImage] = []
    for number in range(count):
        with Image.open(folder / SAMPLES[number % len(SAMPLES)]) as photograph:
            side, places = min(photograph.size), max(1, -(-count // len(SAMPLES)) - 1)
            left = (photograph.width - side) * (number // len(SAMPLES)) // places
            crops.append(photograph.convert("RGB").crop((left, 0, left + side, side)))
    return crops


def square(image: Image.Image) -> Image.Image:
    """Returns the square in the centre of an image, smaller if it is large."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    centre = image.crop((left, top, left + side, top + side)).convert("RGB")
    return centre.resize((LARGEST_SIDE, LARGEST_SIDE)) if side > LARGEST_SIDE else centre
