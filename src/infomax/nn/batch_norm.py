"""Makes BatchNorm take the batch of all ranks, and averages its running statistics over microbatches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from infomax.runtime.collectives import global_sum


class GlobalBatchNorm(_BatchNorm):
    """A BatchNorm layer that takes its statistics over the batch of all ranks, on any device.

    Ranks may hold different numbers of images. torch's SyncBatchNorm does the same, faster, but on GPUs only.
    """

    def _check_input_dim(self, x: Tensor) -> None:  # pyrefly: ignore[bad-param-name-override]
        """Accepts every input: all that matters is that channels come second."""

    def forward(self, images: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:  # pyrefly: ignore
        if not self.training:
            return super().forward(images)
        x = images.float() if images.dtype in (torch.bfloat16, torch.float16) else images
        reduced, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        sums = global_sum(torch.cat([x.sum(reduced), x.new_tensor([x.numel() / x.shape[1]])]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = x - mean.view(shape)
        variance = global_sum(centred.square().sum(reduced)) / count  # E[x^2] - mean^2 would cancel
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)  # pyrefly: ignore
                self.running_mean.lerp_(mean, self.momentum)  # pyrefly: ignore
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # pyrefly: ignore
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(images.dtype)


class GlobalBatchNormAct(GlobalBatchNorm):
    """A :class:`GlobalBatchNorm` for timm's BatchNorm layers that hold an activation, which it applies after them."""

    def forward(self, images: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:  # pyrefly: ignore
        drop, act = self.get_submodule("drop"), self.get_submodule("act")
        return act(drop(super().forward(images)))


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Returns all BatchNorm layers of a module."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Makes the BatchNorm layers of a module take the statistics of the global batch.

    Many ranks then compute what one rank would compute from all images.

    Args:
        module: The module to change.
        device: The device that the module is on: a GPU gets torch's SyncBatchNorm, a CPU :class:`GlobalBatchNorm`.

    Returns:
        The module to use, which may be another object.

    Raises:
        ValueError: if a layer does more than BatchNorm, and it is not known what.
    """
    norms = batch_norms(module)
    with_activation = [_holds_activation(layer) for layer in norms]
    if device.type == "cuda":
        if any(with_activation):
            from timm.layers import convert_sync_batchnorm  # torch's own would leave out the activations

            return convert_sync_batchnorm(module)
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for layer, activation in zip(norms, with_activation, strict=True):
        # Parameters, buffers and their names stay.
        layer.__class__ = GlobalBatchNormAct if activation else GlobalBatchNorm
    return module


def trained_batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Returns the BatchNorm layers whose statistics change in training: those that are in training mode."""
    return [layer for layer in batch_norms(module) if layer.training]


def _holds_activation(layer: _BatchNorm) -> bool:
    """Returns whether a BatchNorm layer is timm's, which applies dropout and an activation after it.

    Raises:
        ValueError: if it is of another class that does more than BatchNorm.
    """
    kind = type(layer)
    if kind.forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward, GlobalBatchNorm.forward):
        return False
    if isinstance(getattr(layer, "act", None), nn.Module) and isinstance(getattr(layer, "drop", None), nn.Module):
        return True
    raise ValueError(
        f"layers of the class {kind.__name__} cannot take the batch of several devices: choose one device, or a "
        "--micro-batch-size"
    )


class RunningStatistics:
    """An object that averages the running statistics of BatchNorm layers over the microbatches of one step.

    Each microbatch starts from the statistics of the step before. The statistics of the step are the mean over its
    microbatches, which is what microbatches of one size on as many ranks would give. It does not matter how often a
    microbatch passes a layer.

    Args:
        norms: The BatchNorm layers.
    """

    def __init__(self, norms: list[_BatchNorm]):
        self._buffers = [buffer for norm in norms for buffer in norm.buffers()]
        self._before_step = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        self._microbatches = 0

    def before_microbatch(self) -> None:
        """Restores the statistics of the step before; call it before the first pass of each microbatch."""
        for buffer, old in zip(self._buffers, self._before_step, strict=True):
            buffer.copy_(old)

    def after_microbatch(self) -> None:
        """Adds the statistics to the sum; call it after the first pass of each microbatch, and not after later ones."""
        for total, buffer in zip(self._sums, self._buffers, strict=True):
            total += buffer
        self._microbatches += 1

    def set_to_mean(self) -> None:
        """Sets the statistics to the mean over the microbatches; call it after the last pass of the step."""
        for buffer, total in zip(self._buffers, self._sums, strict=True):
            buffer.copy_(total / self._microbatches)
