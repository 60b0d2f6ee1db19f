"""Draws random numbers that are equal on all ranks and devices: functions of the recipe's seed and the step alone.

They are computed by integer operations on tensors, which torch.compile takes; it takes no generator that is seeded at
each step. Rounding alone differs between devices.
"""

from math import pi
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from infomax.functional import check_rows

Integers = TypeVar("Integers", int, Tensor)
WORD = 2**32 - 1
MULTIPLIER = 0x45D9F3B  # below 2^31: its product with a word of 32 bits fits an integer of 64


@torch.no_grad()
def draw_directions(
    dimension: int, count: int, *, seed: int, step: float | Tensor, like: Tensor
) -> Float[Tensor, "d m"]:
    """Draws directions that are uniform on the unit sphere, one a column.

    Args:
        dimension: The length of a direction, D.
        count: The number of directions, M.
        seed: The recipe's seed.
        step: The step, a whole number; a compiled loss has it in a scalar tensor.
        like: A tensor that has the result's dtype and device.

    Returns:
        The directions, [D, M].

    Example:
        >>> import torch
        >>> from infomax.nn.draws import draw_directions
        >>> directions = draw_directions(3, 2, seed=0, step=5, like=torch.zeros(1))
        >>> directions.norm(dim=0)
        tensor([1., 1.])
        >>> torch.equal(directions, draw_directions(3, 2, seed=0, step=5, like=torch.zeros(1)))
        True
    """
    half = (dimension * count + 1) // 2
    uniform = (_words(2 * half, seed, step, like.device).double() + 0.5) / (WORD + 1)
    radius, angle = (-2 * uniform[:half].log()).sqrt(), 2 * pi * uniform[half:]
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()])  # the Box-Muller transform
    return F.normalize(normal[: dimension * count].view(dimension, count), dim=0).to(like.dtype)


def check_directions(name: str, directions: Tensor, z: Tensor) -> None:
    """Checks that ``directions`` holds directions of unit norm, one a column, for the embeddings ``z``.

    Args:
        name: The name of the argument, for the message.
        directions: The value to check.
        z: Embeddings, [B, D], that were checked before.

    Raises:
        ValueError: If ``directions`` is something else. The message says what would be right.
    """
    check_rows(name, directions)
    if len(directions) != z.shape[1]:
        raise ValueError(
            f"{name} must have a row for each of the embeddings' {z.shape[1]} columns, but have {len(directions)}"
        )
    if (deviation := float((directions.detach().float().norm(dim=0) - 1).abs().max())) > 1e-2:
        raise ValueError(f"{name} must have columns of unit norm, but one is off by {deviation:.3g}")


@torch.no_grad()
def draw_order(count: int, *, seed: int, step: float | Tensor, device: torch.device) -> Int64[Tensor, " n"]:
    """Draws a random order of the images of the global batch.

    Args:
        count: The number of images.
        seed: The recipe's seed.
        step: The step, a whole number; a compiled loss has it in a scalar tensor.
        device: The device of the result.

    Returns:
        A permutation of 0 to ``count - 1``.

    Example:
        >>> import torch
        >>> from infomax.nn.draws import draw_order
        >>> sorted(draw_order(4, seed=0, step=1, device=torch.device("cpu")).tolist())
        [0, 1, 2, 3]
    """
    return _words(count, seed, step, device).argsort(stable=True)


def _words(count: int, seed: int, step: float | Tensor, device: torch.device) -> Tensor:
    """Draws uniform integers of 32 bits, as int64."""
    step = step.to(torch.int64) if isinstance(step, Tensor) else torch.tensor(int(step), device=device)
    seed_key = _mix(_mix(seed & WORD) ^ (seed >> 32 & WORD))
    key = _mix(_mix(step & WORD) ^ seed_key)
    return _mix(_mix(torch.arange(count, device=device) ^ key) + key & WORD)


def _mix(word: Integers) -> Integers:
    """Maps words of 32 bits one to one to words whose bits each depend on all bits, by shifts and products."""
    for _ in range(2):
        word = ((word >> 16) ^ word) * MULTIPLIER & WORD
    return (word >> 16) ^ word
