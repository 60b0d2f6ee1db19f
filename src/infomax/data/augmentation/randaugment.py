"""The operations of RandAugment on batches of images, by torch on any device.

They are defined on bytes, as Pillow has them: an image holds whole numbers from 0 to 255, and so does each result.
Between them everything is float64, so that the whole numbers are the same on every device.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from infomax.data.augmentation.randaugment_draws import OPERATIONS, RandAugmentChoices

Bytes = Float[Tensor, "b 3 s s"]  # whole numbers from 0 to 255
Parameters = Float[Tensor, "b n 1 1"]
# Pillow rounds towards 0. What rounding errors leave a little below a whole number is that number.
MARGIN = 2.0**-20
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
"""The operations that move pixels, by an affine map."""


def to_bytes(images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b c s s"]:
    """Rounds numbers in [0, 1] to the nearest of 256 levels, and returns the numbers of the levels.

    A half, which a resized image often has, becomes the upper level even if a rounding error has made it smaller.
    """
    return (images * 255).add_(0.5 + 2.0**-10).floor_().clamp_(0, 255)


def from_bytes(images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b c s s"]:
    """Returns numbers in [0, 1] for whole numbers from 0 to 255."""
    return images / 255


def randaugment_operations(
    choices: RandAugmentChoices, size: int, fill: Sequence[float]
) -> list[tuple[Callable[[Bytes, Parameters], Bytes], np.ndarray, np.ndarray]]:
    """Returns what is done to a batch of images of whole numbers, in this order.

    Args:
        choices: The operations that are done to each image.
        size: Side of the images, in pixels.
        fill: Value in [0, 1] of each channel for pixels that come from beyond an edge, which is rounded to a byte.

    Returns:
        Functions that take images [r, 3, size, size] and parameters [r, n, 1, 1]; for each of them, whether it is done
        to each image [b], and the parameters of all images [b, n].
    """
    operations = []
    for operation, argument, bicubic in zip(choices.operation.T, choices.argument.T, choices.bicubic.T, strict=True):
        for name, function in _BY_NAME.items():
            operations.append((function, operation == OPERATIONS.index(name), argument[:, None]))
        moved = np.isin(operation, [OPERATIONS.index(name) for name in MOVING])
        parameters = np.zeros((len(operation), 6 + len(fill)))
        parameters[:, 6:] = np.floor(255 * np.array(fill) + 0.5)
        for i in moved.nonzero()[0]:
            parameters[i, :6] = _affine_map(OPERATIONS[operation[i]], argument[i], size)
        for cubic in (False, True):
            operations.append((partial(_move, bicubic=cubic), moved & (bicubic == cubic), parameters))
    return operations


def _affine_map(name: str, argument: float, size: int) -> tuple[float, ...]:
    """Returns the numbers a to f of the map from the place (x, y) of a result's pixel to (ax + by + c, dx + ey + f).

    The middle of the first pixel is at (1/2, 1/2), and y points down.
    """
    if name == "rotate":
        cosine, sine = np.cos(np.radians(argument)), np.sin(np.radians(argument))
        centre = size / 2
        return cosine, -sine, centre * (1 - cosine + sine), sine, cosine, centre * (1 - cosine - sine)
    shift = argument * size
    return {
        "shear_x": (1, argument, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, argument, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }[name]


def _move(images: Bytes, parameters: Parameters, *, bicubic: bool) -> Bytes:
    """Takes each pixel from where an affine map says, by interpolation; beyond an edge it takes the fill.

    Args:
        images: The images.
        parameters: The six numbers of :func:`_affine_map`, and the fill of each channel.
        bicubic: Whether to interpolate by the cubic kernel of Keys with parameter -1 instead of linearly; Pillow's
            affine maps have this parameter, and its resizing -1/2.
    """
    size, flat = images.shape[-1], images.double().flatten(2)
    a, b, c, d, e, f = parameters[:, :6, 0].unbind(1)  # [b, 1] each
    middle = torch.arange(size, device=images.device, dtype=torch.float64) + 0.5
    x, y = middle.repeat(size), middle.repeat_interleave(size)
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    x, y = x - 0.5, y - 0.5
    left, top = x.floor(), y.floor()
    interpolate, reach = (_cubic, (-1, 0, 1, 2)) if bicubic else (_linear, (0, 1))

    def line(row: int) -> Tensor:
        start = (top + row).clamp(0, size - 1) * size
        pixels = [(start + (left + column).clamp(0, size - 1)).long() for column in reach]
        return interpolate([flat.gather(2, i.unsqueeze(1).expand_as(flat)) for i in pixels], (x - left).unsqueeze(1))

    result = _whole(interpolate([line(row) for row in reach], (y - top).unsqueeze(1)))
    return torch.where(inside.unsqueeze(1), result, parameters[:, 6:, 0]).view_as(images).to(images.dtype)


def _linear(values: list[Tensor], share: Tensor) -> Tensor:
    first, second = values
    return first + share * (second - first)


def _cubic(values: list[Tensor], share: Tensor) -> Tensor:
    """Interpolates between the second and the third of four values."""
    first, second, third, fourth = values
    slope, bend = third - first, 2 * (first - second) + third - fourth
    return second + share * (slope + share * (bend + share * (second - first + fourth - third)))


def _whole(x: Tensor) -> Tensor:
    """Rounds down to whole numbers from 0 to 255."""
    return (x + MARGIN).floor().clamp(0, 255)


def _blend(images: Bytes, other: Tensor, factor: Parameters) -> Bytes:
    """Returns ``factor`` of the image and ``1 - factor`` of its counterpart; factors above 1 go away from it."""
    x = images.double()
    return _whole(other + factor * (x - other)).to(images.dtype)


def _luma(images: Bytes) -> Float[Tensor, "b 1 s s"]:
    """Returns the luma of ITU-R 601, with Pillow's weights, rounded to whole numbers."""
    red, green, blue = images.double().split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) / 2**16).floor()


def _autocontrast(images: Bytes, _: Parameters) -> Bytes:
    """Stretches each channel of each image to the range from 0 to 255."""
    x = images.double()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, _whole((x - low) * 255 / (high - low).clamp_min(1)), x).to(images.dtype)


def _equalize(images: Bytes, _: Parameters) -> Bytes:
    """Makes all values of each channel of each image about as frequent.

    A value becomes the number of pixels below it, in units of a 255th of those that have not the largest value; half a
    unit is added, and the result is rounded down.
    """
    values = images.flatten(2).long()
    counts = torch.zeros(*images.shape[:2], 256, device=images.device, dtype=torch.int64)
    counts.scatter_add_(2, values, torch.ones_like(values))
    largest = values.amax(2, keepdim=True)
    unit = (values.shape[2] - counts.gather(2, largest)) // 255
    below = counts.cumsum(2) - counts
    table = ((unit // 2 + below) // unit.clamp_min(1)).clamp(max=255)
    return torch.where(unit > 0, table.gather(2, values), values).view_as(images).to(images.dtype)


def _invert(images: Bytes, _: Parameters) -> Bytes:
    return 255 - images


def _posterize(images: Bytes, bits: Parameters) -> Bytes:
    """Keeps the upper bits of each value."""
    step = 2 ** (8 - bits)
    return ((images / step).floor() * step).to(images.dtype)


def _solarize(images: Bytes, first: Parameters) -> Bytes:
    """Inverts values from ``first`` up."""
    return torch.where(images < first, images, 255 - images)


def _solarize_add(images: Bytes, addend: Parameters) -> Bytes:
    """Adds to values below 128, up to 255."""
    return torch.where(images < 128, (images + addend).clamp(max=255), images).to(images.dtype)


def _colour(images: Bytes, factor: Parameters) -> Bytes:
    """Blends each image with its luma."""
    return _blend(images, _luma(images), factor)


def _contrast(images: Bytes, factor: Parameters) -> Bytes:
    """Blends each image with the mean of its luma, rounded."""
    mean = (_luma(images).mean((2, 3), keepdim=True) + 0.5).floor()
    return _blend(images, mean, factor)


def _brightness(images: Bytes, factor: Parameters) -> Bytes:
    """Blends each image with black."""
    return _blend(images, torch.zeros_like(images, dtype=torch.float64), factor)


def _sharpness(images: Bytes, factor: Parameters) -> Bytes:
    """Blends each image with a smooth one: a pixel has 5 parts of itself and 1 of each neighbour, of 13.

    Pixels at the edges, which lack neighbours, stay as they are.
    """
    smooth = images.double()
    if images.shape[-1] > 2:
        block = F.avg_pool2d(smooth, 3, stride=1, divisor_override=1)  # sums of 3 x 3 pixels
        smooth = smooth.clone()
        inner = smooth[:, :, 1:-1, 1:-1]
        inner.copy_(((block + 4 * inner) / 13 + 0.5).floor())
    return _blend(images, smooth, factor)


_BY_NAME: dict[str, Callable[[Bytes, Parameters], Bytes]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "colour": _colour,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
