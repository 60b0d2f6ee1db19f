"""Real images to compare an export on: the run's own, or crops of the photographs that come with scikit-learn."""

from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from infomax.data.images import Images, first_readable
from infomax.data.splits import preview_images
from infomax.data.streams import Stream
from infomax.runs.run_folder import run_of

LARGEST_SIDE = 1024  # pixels
SAMPLES = ("china.jpg", "flower.jpg")


def reference_images(encoder: str | PathLike[str], count: int) -> tuple[list[Image.Image], str]:
    """Returns some square images in RGB, and words for where they are from.

    Args:
        encoder: A run folder, or any other name of an encoder.
        count: Number of images.
    """
    try:
        own = _images_of_run(Path(encoder), count)
    except (ValueError, OSError):  # they are no longer there, or cannot be read
        own = []
    if own:
        return own, "images that it was trained on"
    return _sample_crops(count), "crops of the two photographs that come with scikit-learn"


def _images_of_run(folder: Path, count: int) -> list[Image.Image]:
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
    numbers = np.linspace(0, len(images) - 1, count).astype(int)
    return [square(first_readable(images, int(number))[1]) for number in numbers]


def _sample_crops(count: int) -> list[Image.Image]:
    """Returns square crops of scikit-learn's photographs, from left to right."""
    specification = find_spec("sklearn")
    assert specification is not None
    assert specification.submodule_search_locations is not None
    folder = Path(specification.submodule_search_locations[0]) / "datasets" / "images"
    crops: list[Image.Image] = []
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
