"""Draws random numbers and crops by loops that Numba compiles; ``draws.py`` explains them."""

from functools import partial

import numpy as np

from infomax.data.augmentation.draw_columns import ATTEMPTS, LEFT, TOP
from infomax.data.augmentation.kernels import compiled

compiled_exactly = partial(compiled, fast=False)  # without fast mathematics: the same boxes on every machine


@compiled_exactly
def _mix(x):
    """Returns 64 mixed bits, each of which depends on every bit of ``x``.

    This is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled_exactly
def fill_uniform(seed, epoch, index, view, out):
    """Fills in the numbers of :func:`infomax.data.augmentation.draws.draw_uniform`."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    for i in range(len(index)):
        key = _mix(_mix(_mix(_mix(golden + seed) + golden + epoch) + golden + view) + golden + index[i])
        for j in range(out.shape[1]):
            out[i, j] = (_mix(key + golden * np.uint64(j + 1)) >> np.uint64(11)) * 2.0**-53


@compiled_exactly
def fill_crop_boxes(random, height, width, scale, ratio, out):
    """Fills in the boxes of :func:`infomax.data.augmentation.draws.crop_boxes`."""
    for i in range(len(random)):
        h, w = height[i], width[i]
        low, high = np.log(ratio[i, 0]), np.log(ratio[i, 1])
        fits = False
        for attempt in range(ATTEMPTS):
            share = scale[i, 0] + (scale[i, 1] - scale[i, 0]) * random[i, attempt]
            root = np.exp((low + (high - low) * random[i, ATTEMPTS + attempt]) / 2)
            side = np.sqrt(h * w * share)
            box_height, box_width = np.rint(side / root), np.rint(side * root)
            if 1 <= box_width <= w and 1 <= box_height <= h:
                out[i, 0] = int(random[i, TOP] * (h - box_height + 1))
                out[i, 1] = int(random[i, LEFT] * (w - box_width + 1))
                fits = True
                break
        if not fits:
            box_height, box_width = min(h, np.rint(w / ratio[i, 0])), min(w, np.rint(h * ratio[i, 1]))
            out[i, 0], out[i, 1] = (h - box_height) // 2, (w - box_width) // 2
        out[i, 2], out[i, 3] = box_height, box_width  # pyrefly: ignore[unbound-name]
