"""Decides which operations of RandAugment are done to each view, and how strongly.

RandAugment is of Cubuk et al., 2019; the ranges of its operations, and magnitudes drawn from a normal distribution, are
those of timm, which InfoMin's runs have too (docs/decisions.md, randaugment). ``randaugment.py`` has the operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float64, Int

from infomax.data.augmentation.draw_columns import COLUMNS_OF_AN_OPERATION, RANDAUGMENT
from infomax.data.augmentation.views import LARGEST_MAGNITUDE, View

OPERATIONS = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "colour",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""Names of the operations that are drawn, of which each is as likely."""
NOTHING = -1  # instead of the number of an operation


@dataclass(frozen=True)
class RandAugmentChoices:
    """A frozen dataclass that says which operations of RandAugment are done to each of ``b`` views, one after another.

    Views that have fewer operations than others of the batch end with nothing.
    """

    operation: Int[np.ndarray, "b n"]
    """Number of the operation in :data:`OPERATIONS`; -1 for nothing."""
    argument: Float64[np.ndarray, "b n"]
    """What the operation takes: degrees against the clock (rotate), the share of the side (translate), the pixels by
    which a line is shifted against the next one (shear), the bits that are kept (posterize), the first value that is
    inverted (solarize), what is added to values below 128 (solarize_add), or the factor of the image, whose counterpart
    has the rest (colour, contrast, brightness, sharpness). The other operations take nothing."""
    bicubic: Bool[np.ndarray, "b n"]
    """Whether an operation that moves pixels interpolates bicubically instead of bilinearly."""


def choose_randaugment(
    random: Sequence[Float64[np.ndarray, "b columns"]], views: Sequence[View]
) -> RandAugmentChoices | None:
    """Decides which operations of RandAugment are done to each view of each image.

    Args:
        random: For each view the random numbers of :func:`~infomax.data.augmentation.draws.draw_uniform`, a row for
            each image.
        views: The settings of the views.

    Returns:
        The choices, first for all images of the first view, then of the second, and so on; None if no view has any
        operation.
    """
    count = max(view.randaugment for view in views)
    if count == 0:
        return None
    by_view = [_choose_randaugment(x, view, count) for x, view in zip(random, views, strict=True)]
    return RandAugmentChoices(*(np.concatenate(arrays) for arrays in zip(*by_view, strict=True)))


def _choose_randaugment(random: Float64[np.ndarray, "b columns"], view: View, count: int) -> tuple:
    """Returns the fields of :class:`RandAugmentChoices` for one view, with room for ``count`` operations."""
    columns = random[:, RANDAUGMENT : RANDAUGMENT + COLUMNS_OF_AN_OPERATION * count]
    which, is_done, magnitude, sign, cubic = np.moveaxis(columns.reshape(len(random), count, -1), 2, 0)
    operation = (len(OPERATIONS) * which).astype(np.int64)
    done = (is_done < view.randaugment_probability) & (np.arange(count) < view.randaugment)
    level = view.randaugment_magnitude + view.randaugment_std * _normal(magnitude)
    level = level.clip(0, LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE
    arguments = _arguments(level, np.where(sign < 0.5, -1.0, 1.0), increasing=view.randaugment_increasing)
    argument = np.zeros_like(level)
    for name, values in arguments.items():
        argument = np.where(operation == OPERATIONS.index(name), values, argument)
    return np.where(done, operation, NOTHING), argument, cubic < 0.5


def _normal(uniform: np.ndarray) -> np.ndarray:
    """Returns the quantiles of the standard normal distribution at uniform random numbers in [0, 1)."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse(max(p, 2.0**-54)) for p in uniform.ravel().tolist()]).reshape(uniform.shape)


def _arguments(level: np.ndarray, sign: np.ndarray, *, increasing: bool) -> dict[str, np.ndarray]:
    """Returns what each operation takes at a level in [0, 1]; a sign of -1 or 1 says in which direction it goes."""
    bits, first = np.floor(4 * level), np.minimum(256, np.floor(256 * level))
    factor = np.maximum(0.1, 1 + 0.9 * sign * level) if increasing else 0.1 + 1.8 * level
    return {
        "rotate": 30 * sign * level,
        "posterize": 4 - bits if increasing else bits,
        "solarize": 256 - first if increasing else first,
        "solarize_add": np.floor(110 * level),
        **dict.fromkeys(("colour", "contrast", "brightness", "sharpness"), factor),
        **dict.fromkeys(("shear_x", "shear_y"), 0.3 * sign * level),
        **dict.fromkeys(("translate_x", "translate_y"), 0.45 * sign * level),
    }
