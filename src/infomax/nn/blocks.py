"""Blocks that methods share by composition: projector, prototypes, teacher; and BatchNorm over many ranks or parts."""

import copy
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.functional import full_precision
from infomax.nn.schedules import cosine
from infomax.runtime.checks import check_number


class Chain(nn.Sequential):
    """Layers one after another, which torch.compile takes as one; some releases pass over torch's own modules."""

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        for layer in self:
            x = layer(x)
        return x


def mlp(*widths: int, norm: bool, hidden_bias: bool = True, output_bias: bool = True) -> Chain:
    """Linear layers of these widths with (BatchNorm and) ReLU between them, and nothing after the last."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=hidden_bias))
        layers += [nn.BatchNorm1d(width_out)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return Chain(*layers, nn.Linear(widths[-2], widths[-1], bias=output_bias))


@full_precision
def l2_normalize(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Rows divided by their L2 norm."""
    return F.normalize(z, dim=1)


class Prototypes(nn.Module):
    """Weight-normalised linear layer with gain 1 on L2-normalised embeddings: logits are cosines, in [-1, 1]."""

    def __init__(self, dimension: int, prototypes: int):
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(dimension, prototypes, bias=False).weight.detach())

    @full_precision  # a bfloat16 cosine would move the targets by half a per cent
    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return F.linear(l2_normalize(z), l2_normalize(self.weight))


class Teacher(nn.Module):
    """A copy of a module whose parameters follow it by exponential moving average; buffers stay its own.

    Its BatchNorm layers therefore normalise by their own batch statistics, as in the official MIRA and MVEB code.
    """

    def __init__(self, student: nn.Module, momentum: float):
        super().__init__()
        check_number("momentum", momentum, low=0, high=1, open_high=False)
        self.momentum = momentum
        self.module = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def ema_update(self, student: nn.Module, progress: float) -> None:
        """``teacher <- m * teacher + (1 - m) * student``; a cosine takes m from ``momentum`` to 1 over the run."""
        momentum = cosine(self.momentum, 1.0, progress)
        # One kernel over all parameters, at a quarter of the time of a loop with temporaries.
        mine, theirs = list(self.module.parameters()), list(student.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - momentum)  # pyrefly: ignore[no-matching-overload]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@torch.no_grad()
def copy_all(to: list[Tensor], given: list[Tensor]) -> None:
    """Copy each tensor; on a GPU by one operation for each precision, not one for each of a hundred small tensors."""
    for dtype in {x.dtype for x in given}:
        where = [i for i, x in enumerate(given) if x.dtype == dtype]
        torch._foreach_copy_([to[i] for i in where], [given[i] for i in where])
