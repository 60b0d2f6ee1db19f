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
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad
                if p.ndim > 1:
                    update = update + group["weight_decay"] * p
                    p_norm, update_norm = p.norm(), update.norm()
                    ratio = group["trust"] * p_norm / update_norm
                    update = update * torch.where((p_norm > 0) & (update_norm > 0), ratio, 1.0)
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                average = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                p.add_(average, alpha=-group["lr"])
        return loss


def parameter_groups(module: nn.Module, weight_decay: float, *, decay_all: bool) -> list[dict[str, Any]]:
    """Two groups, so that biases and normalisation layers, with one dimension, do not decay unless ``decay_all``."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if decay_all:
        return [{"params": trained, "weight_decay": weight_decay}]
    matrices = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
