"""Optimisers and parameter groups."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Lars(Optimizer):
    """SGD with momentum whose matrices take steps in proportion to their own norm (You, Gitman, Ginsburg 2017).

    A parameter p of two dimensions or more with gradient g moves by ``learning_rate * momentum average of
    trust * |p| / |g + decay p| * (g + decay p)``, without the ratio where a norm is zero. Biases and the parameters of
    normalisation layers, which have one dimension, take plain steps. As in the official MIRA and MVEB code.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Of the average, which has no dampening.
        weight_decay: Of the parameters with two dimensions or more.
        trust: Of the ratio.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            # On a GPU few kernels over many parameters; a CPU takes half the time if each stays in its cache.
            on_cpu = [[p] for p in trained if p.device.type == "cpu"]
            rest = [p for p in trained if p.device.type != "cpu"]
            for together in (*on_cpu, [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]):
                if together:
                    self._move(together, group)
        return loss

    def _move(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Of parameters that all are matrices, or all are not; nothing is read back from the device."""
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        averages = [self.state[p]["momentum_buffer"] for p in params]
        updates: Any = [p.grad for p in params]
        torch._foreach_mul_(averages, group["momentum"])
        if params[0].ndim > 1:
            updates = torch._foreach_add(updates, params, alpha=group["weight_decay"])
            norms, update_norms = (torch.stack(torch._foreach_norm(x)) for x in (params, updates))
            ratios = group["trust"] * norms / update_norms
            ratios = torch.where((norms > 0) & (update_norms > 0), ratios, 1.0)
            torch._foreach_addcmul_(averages, updates, ratios.unbind())
        else:
            torch._foreach_add_(averages, updates)
        torch._foreach_add_(params, averages, alpha=-group["lr"])


def parameter_groups(module: nn.Module, weight_decay: float, *, decay_all: bool) -> list[dict[str, Any]]:
    """Two groups, so that biases and normalisation layers, with one dimension, do not decay unless ``decay_all``."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if decay_all:
        return [{"params": trained, "weight_decay": weight_decay}]
    matrices = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
