"""BatchNorm whose batch is that of all ranks, and its running statistics over a step made in microbatches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from infomax.runtime.collectives import global_sum


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


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
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
