"""Times networks on this CPU by a pass of few images: how long a run takes, and if bfloat16 is faster."""

import time
import warnings
from contextlib import nullcontext
from dataclasses import replace

import torch

from infomax.methods.base import Views
from infomax.recipes.building import AUTOCAST, build_method, build_without_memory
from infomax.recipes.schema import Recipe

MOST_PARAMETERS = 60_000_000  # of a ResNet-101 with its heads; larger networks would take long to try
PIXELS = 32 * 32**2  # of the views of one kind that are timed: 32 images at 32 pixels
MOST_PASSES, ENOUGH_SECONDS = 5, 0.2  # the fastest pass counts: other processes make single ones slow
LEAST_SECONDS = 60.0  # of a run that is worth another precision
FEW_PIXELS = 5_000_000  # of all global crops of one kind; a run of so few is short with any network
LEAST_GAIN = 1.2  # times faster; less may be chance


def estimate_seconds(recipe: Recipe, images: int) -> float | None:
    """Returns about how long a run takes on this CPU, by one forward and backward pass of few images, in seconds.

    It takes a fraction of a second for the small encoder, and up to some seconds for others. Making views, reading
    files and the loss are not in it, nor what else will run.

    Args:
        recipe: The recipe with all changes.
        images: Number of images in the data set.

    Returns:
        The time; None for a network that would take longer than that to try, and for other precisions than 32 and bf16.
    """
    if recipe.precision not in ("32", "bf16") or not (recipe.encoder.init is not None or _is_quickly_tried(recipe)):
        return None
    return _seconds_of_image(recipe) * recipe.steps(images) * recipe.batch_size


def describe_bfloat16(recipe: Recipe, images: int, seconds: float | None = None) -> str | None:
    """Returns a line on how much faster the networks of a long run are in bfloat16 on this CPU.

    Args:
        recipe: The recipe with all changes, in precision 32.
        images: Number of images in the data set.
        seconds: Time of the run, if :func:`estimate_seconds` was called before; None calls it.

    Returns:
        The line; None if the run is short, the processor has no instructions for bfloat16, or they do not help.
    """
    pixels = recipe.steps(images) * recipe.batch_size * recipe.views.global_crops[0].size ** 2
    if pixels < FEW_PIXELS or not has_bfloat16():
        return None
    full = estimate_seconds(recipe, images) if seconds is None else seconds
    if full is None or full < LEAST_SECONDS:
        return None
    half = estimate_seconds(replace(recipe, precision="bf16"), images)
    if half is None or full < LEAST_GAIN * half:
        return None
    return f"--precision bf16 makes the networks about {full / half:.1f} times faster here, by one pass of each"


def has_bfloat16() -> bool:
    """Returns whether the processor has instructions for bfloat16: without them it is slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _is_quickly_tried(recipe: Recipe) -> bool:
    parameters = build_without_memory(recipe).parameters()
    return sum(parameter.numel() for parameter in parameters) <= MOST_PARAMETERS


def _seconds_of_image(recipe: Recipe) -> float:
    """Returns the time of a forward and a backward pass over the number of images in it, in seconds."""
    crops = (*recipe.views.global_crops, *recipe.views.local_crops)
    count = 2 if recipe.encoder.init is not None else min(32, max(4, PIXELS // crops[0].size ** 2))
    half = AUTOCAST.get(recipe.precision)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        method = build_method(recipe).to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        pixels = [
            torch.zeros(count, recipe.encoder.channels, view.size, view.size, dtype=half or torch.float32)
            for view in crops
        ]
        views = [x.contiguous(memory_format=torch.channels_last) for x in pixels]
        global_crop_count = len(recipe.views.global_crops)
        step = Views(views[:global_crop_count], views[global_crop_count:])
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) <= MOST_PASSES and sum(seconds[1:]) < ENOUGH_SECONDS):
            start = time.perf_counter()
            with torch.autocast("cpu", half) if half else nullcontext():
                torch.stack([x.float().square().mean() for x in method.online(step)]).sum().backward()
                method.target(step)
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / count  # the first pass allocates memory and chooses kernels
