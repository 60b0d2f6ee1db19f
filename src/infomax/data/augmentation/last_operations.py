"""The last operations on normalised views, by torch on any device: noise, channels that are dropped, quarter turns.

``last_kernels.py`` has the same for a CPU.
"""

from functools import cache

import torch
from jaxtyping import Float, Int32
from torch import Tensor

QUANTILES = 2**16


@cache
def normal_quantiles(device: torch.device, dtype: torch.dtype) -> Float[Tensor, " n"]:
    """Returns the middles, by probability, of ``QUANTILES`` equally probable parts of the standard normal distribution.

    One of them, drawn uniformly, is a Gaussian number up to a rounding that is finer than that of images of 8 bits for
    all but very strong noise; and it is the same number on every device. The largest is 4.3.
    """
    share = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    return torch.special.ndtri(share).to(dtype).to(device)


def _mix(x: Int32[Tensor, "..."]) -> Int32[Tensor, "..."]:
    """Returns 32 mixed bits, each of which depends on every bit of ``x``: Chris Wellons's function lowbias32 (2018)."""
    x = x ^ ((x >> 16) & 0xFFFF)  # the shift of a negative number repeats its sign
    x = x * 0x7FEB352D  # the result is taken modulo 2^32
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def standard_noise(
    key: Float[Tensor, "b 2"], channels: int, size: int, quantiles: Float[Tensor, " n"]
) -> Float[Tensor, "b c s s"]:
    """Returns Gaussian noise of standard deviation 1: a function of the key of each view, the pixel and the channel.

    Args:
        key: The upper and the lower 16 bits of the key of each view, as floating-point numbers.
        channels: Number of channels.
        size: Side of the views.
        quantiles: Those of :func:`normal_quantiles`.
    """
    high, low = key.to(torch.int32).unbind(1)
    numbers = torch.arange(size * size * channels, dtype=torch.int32, device=key.device)
    numbers = numbers.view(1, size, size, channels).permute(0, 3, 1, 2)
    bits = _mix(_mix(numbers) + ((high << 16) | low).view(-1, 1, 1, 1))
    return quantiles[((bits >> 16) & 0xFFFF).long()]


def add_noise(
    x: Float[Tensor, "b c s s"],
    std: Float[Tensor, "b 1 1 1"],
    scale: Float[Tensor, "b c 1 1"],
    key: Float[Tensor, "b 2"],
    quantiles: Float[Tensor, " n"],
) -> Float[Tensor, "b c s s"]:
    """Adds noise to normalised views.

    Args:
        x: The views.
        std: Standard deviation of the noise of each view, for images in [0, 1].
        scale: What each channel was multiplied by to normalise it.
        key: As for :func:`standard_noise`.
        quantiles: Those of :func:`normal_quantiles`.
    """
    return x + standard_noise(key, x.shape[1], x.shape[2], quantiles) * (std * scale)


def turn_by_quarters(x: Float[Tensor, "b c s s"], quarters: int) -> Float[Tensor, "b c s s"]:
    """Turns square views by quarters against the clock."""
    return torch.rot90(x, quarters, (2, 3))
