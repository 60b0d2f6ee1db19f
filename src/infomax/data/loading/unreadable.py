"""Finds the images of a data set that cannot be read, so that all of them are named at once."""

import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from infomax.data.images.contract import Images
from infomax.data.pixel_format import OtherKindError, PixelFormat
from infomax.data.splits import listed
from infomax.runtime.stages import Stage
from infomax.runtime.threads import core_count

MOST_NAMES = 10  # in one line
CURE = "no other image is taken in its place: mend the file, or move it elsewhere"


class UnreadableImageError(ValueError):
    """The error of an image that cannot be read where no other one can take its place."""


def unreadable_error(reason: ValueError) -> ValueError:
    """Returns the error of an image that cannot be read where no other one can take its place, with the cure.

    Args:
        reason: The error that names the image. If the image is of another kind than the encoder takes, no file is
            damaged, and it is returned as it is.
    """
    if isinstance(reason, OtherKindError):
        return reason
    return UnreadableImageError(f"{reason}; {CURE}")


def find_unreadable(images: Images, pixel_format: PixelFormat) -> dict[int, str]:
    """Returns the index of each image that cannot be read in a format, and why. All images are decoded."""
    formatted = images.in_format(pixel_format)

    def problem(index: int) -> str:
        try:
            formatted.open_pixels(index)
        except ValueError as error:
            return str(error)
        return ""

    with (
        warnings.catch_warnings(),
        Stage("looking for images that cannot be read", slow_only=True),
        ThreadPoolExecutor(core_count()) as pool,
    ):
        warnings.simplefilter("ignore")  # Pillow's on damaged files; those who open one image in a thread undo theirs
        return {i: reason for i, reason in enumerate(pool.map(problem, range(len(images)))) if reason}


def name_all_unreadable(
    error: UnreadableImageError, splits: Iterable[Images], pixel_format: PixelFormat
) -> UnreadableImageError:
    """Returns the error that names all images that cannot be read, after one was met.

    Args:
        error: The error of that one, which is returned if it is the only one.
        splits: The images of the data set.
        pixel_format: The channels and the range of numbers that the encoder takes.
    """
    problems: dict[str, str] = {}
    count = 0
    for images in splits:
        problems |= {images.name(i): reason for i, reason in find_unreadable(images, pixel_format).items()}
        count += len(images)
    if len(problems) < 2:
        return error
    return UnreadableImageError(
        f"{describe_unreadable(problems, count)}; no other images are taken in their place: mend the files, or "
        "move them elsewhere"
    )


def describe_unreadable(problems: Mapping[str, str], count: int) -> str:
    """Returns words that name the images that cannot be read, and say why the first one cannot.

    Args:
        problems: The reason of each image, by its name.
        count: Number of all images.

    Examples:
        >>> from infomax.data.loading.unreadable import describe_unreadable
        >>> describe_unreadable({"a.png": "a.png is empty", "b.png": "b.png is empty"}, 60)
        '2 of 60 images cannot be read: a.png, b.png; the first: a.png is empty'
    """
    names = listed(list(problems), MOST_NAMES)
    return f"{len(problems)} of {count} images cannot be read: {names}; the first: {next(iter(problems.values()))}"
