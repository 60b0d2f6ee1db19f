"""Blocks that methods share by composition: projector, prototypes, teacher; and BatchNorm over many ranks or parts."""

import copy
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from infomax.arguments import check_number
from infomax.distributed import global_sum
from infomax.encoders import Chain
from infomax.functional import full_precision
from infomax.schedules import cosine


def mlp(*widths: int, norm: bool, hidden_bias: bool = True, output_bias: bool = True) -> Chain:
    """Linear layers of these widths with (BatchNorm and) ReLU between them, and nothing after the last."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=hidden_bias))
        layers += [nn.BatchNorm1d(width_out)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return Chain(*layers, nn.Linear(widths[-2], widths[-1], bias=output_bias))


@full_precision
def unit(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Rows divided by their L2 norm."""
    return F.normalize(z, dim=1)


class Prototypes(nn.Module):
    """Weight-normalised linear layer with gain 1 on L2-normalised embeddings: logits are cosines, in [-1, 1]."""

    def __init__(self, dimension: int, prototypes: int):
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(dimension, prototypes, bias=False).weight.detach())

    @full_precision  # a bfloat16 cosine would move the targets by half a per cent
    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return F.linear(unit(z), unit(self.weight))


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
    def follow(self, student: nn.Module, progress: float) -> None:
        """``teacher <- m * teacher + (1 - m) * student``; a cosine takes m from ``momentum`` to 1 over the run."""
        momentum = cosine(self.momentum, 1.0, progress)
        # One kernel over all parameters, at a quarter of the time of a loop with temporaries.
        mine, theirs = list(self.module.parameters()), list(student.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - momentum)  # pyrefly: ignore[no-matching-overload]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm whose batch is that of all ranks, which may hold different numbers of images, on any device.

    torch's SyncBatchNorm does the same, faster, on GPUs alone.
    """

    def _check_input_dim(self, x: Tensor) -> None:  # pyrefly: ignore[bad-param-name-override]
        """Any that has channels second."""

    def forward(self, images: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:  # pyrefly: ignore
        if not self.training:
            return super().forward(images)
        x = images.float() if images.dtype in (torch.bfloat16, torch.float16) else images
        others, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        sums = global_sum(torch.cat([x.sum(others), x.new_tensor([x.numel() / x.shape[1]])]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = x - mean.view(shape)
        variance = global_sum(centred.square().sum(others)) / count  # E[x^2] - mean^2 would cancel
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)  # pyrefly: ignore
                self.running_mean.lerp_(mean, self.momentum)  # pyrefly: ignore
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # pyrefly: ignore
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(images.dtype)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers of a module."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def globalise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Let BatchNorm take the statistics of the global batch, so that many ranks compute what one would."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for layer in batch_norms(module):
        layer.__class__ = GlobalBatchNorm  # parameters, buffers and their names stay
    return module


class RunningStatistics:
    """BatchNorm's running statistics over a step that is made in several parts.

    Each part starts from those of the step before, and the step's are the mean over its parts: what equal parts on as
    many ranks would give, however often a part passes a layer.
    """

    def __init__(self, norms: list[_BatchNorm]):
        self._buffers = [buffer for norm in norms for buffer in norm.buffers()]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        self._parts = 0

    def begin_part(self) -> None:
        """Before a part's first pass."""
        for buffer, old in zip(self._buffers, self._before, strict=True):
            buffer.copy_(old)

    def count_part(self) -> None:
        """After a part's first pass; what later passes change is forgotten."""
        for total, buffer in zip(self._sums, self._buffers, strict=True):
            total += buffer
        self._parts += 1

    def finish(self) -> None:
        """After the last pass."""
        for buffer, total in zip(self._buffers, self._sums, strict=True):
            buffer.copy_(total / self._parts)


@torch.no_grad()
def copy_all(to: list[Tensor], given: list[Tensor]) -> None:
    """Copy each tensor; on a GPU by one operation for each precision, not one for each of a hundred small tensors."""
    for dtype in {x.dtype for x in given}:
        where = [i for i, x in enumerate(given) if x.dtype == dtype]
        torch._foreach_copy_([to[i] for i in where], [given[i] for i in where])
