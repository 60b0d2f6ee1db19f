"""Says which range of values a run's images were read with. No torch is imported."""

import os
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.sources.location import DataLocation
from infomax.runs.run_folder import run_of
from infomax.runtime.text import note

PIXEL_OPTIONS = ("value_range", "channels", "no_data")
"""Options that say how images become pixels, which an encoder that was trained on others than 8-bit RGB keeps."""


def trained_value_range(encoder: str | PathLike[str]) -> str | None:
    """Returns the range of values that a run's images were read with, and prints a line that it is taken.

    Args:
        encoder: A run folder, or any other encoder.

    Returns:
        ``LOW,HIGH``; None if it is no run, or one that took the range of its images' format.
    """
    if (run := run_of(encoder)) is None:
        return None
    value_range = run.location.value_range
    if value_range is not None:
        note(f"--value-range {value_range} is taken, with which {fspath(encoder)} was trained")
    return value_range


def location_for(encoder: str | PathLike[str], given: Mapping[str, Any]) -> DataLocation:
    """Returns where a user's images are, which are read with the range of values of the encoder's own.

    Args:
        encoder: A run folder, or any other encoder.
        given: What the user gave of a location, by name.

    Raises:
        ValueError: as :func:`check_pixel_options`.
    """
    check_pixel_options(encoder, **{name: given.get(name) for name in PIXEL_OPTIONS})
    location = DataLocation(**given)
    return location if "value_range" in given else replace(location, value_range=trained_value_range(encoder))


def taken_pixel_format(encoder: str | PathLike[str]) -> PixelFormat:
    """Returns the channels and the range of numbers that an encoder takes; torch is imported if it is of no run.

    Args:
        encoder: A run folder, or any other encoder.
    """
    if (run := run_of(encoder)) is not None:
        return run.recipe.preprocessing.pixel_format
    if not os.path.exists(encoder):  # of a library, whose encoders are of 8-bit RGB
        return RGB
    from infomax.models.pretrained import open_encoder

    return open_encoder(encoder).preprocessing.pixel_format


def check_pixel_options(
    encoder: str | PathLike[str],
    *,
    value_range: str | None = None,
    channels: int | None = None,
    no_data: float | None = None,
) -> None:
    """Checks that options about the images' numbers do not contradict what a run's encoder was trained on.

    An encoder keeps the channels and the range of its images, which are taken for all images that it is given.

    Args:
        encoder: A run folder, or any other encoder.
        value_range: The range that the user gave.
        channels: The number of channels that the user gave.
        no_data: The number of no measurement that the user gave.

    Raises:
        ValueError: naming the option, if the encoder takes something else.
    """
    if (run := run_of(encoder)) is None:
        return
    pixel_format, before = run.recipe.preprocessing.pixel_format, run.location
    if channels not in (None, pixel_format.channels):
        raise ValueError(f"--channels {channels}: {fspath(encoder)} was trained on {pixel_format}; leave it out")
    if pixel_format.is_rgb:
        return
    for option, new, old in (("value-range", value_range, before.value_range), ("no-data", no_data, before.no_data)):
        if new is not None and new != old:
            kept = f"{fspath(encoder)} keeps the range of the images that it was trained on"
            raise ValueError(f"--{option} {new}: {kept}; leave it out")
