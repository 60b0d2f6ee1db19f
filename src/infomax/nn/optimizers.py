"""Provides optimisers, and divides parameters into the groups that they take."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COMPILER_WRAPPERS = {"torch._compile", "torch.optim.optimizer"}
"""The modules whose wrappers of an optimiser's methods import torch's compiler at the first call."""
WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")


@cache
def without_compiler(optimizer_class: Any) -> Any:
    """Returns a subclass of an optimiser that does the same without importing torch's compiler, which takes seconds.

    torch wraps some methods of its optimisers so that ``torch.compile`` does not trace into them. Each wrapper imports
    ``torch._dynamo``, whether anything is compiled or not. The subclass has the wrapped functions themselves, and is
    not to be used within compiled code. If a later torch wraps them in another way, its wrappers stay.

    Args:
        optimizer_class: An optimiser of torch, or one of our own that inherits such methods.

    Example:
        >>> import torch
        >>> from infomax.nn.optimizers import without_compiler
        >>> weight = torch.nn.Parameter(torch.tensor([3.0]))
        >>> weight.grad = torch.tensor([10.0])
        >>> without_compiler(torch.optim.SGD)([weight], lr=0.1).step()
        >>> weight.data
        tensor([2.])
    """
    methods: dict[str, Any] = {}
    for name in WRAPPED:
        method = inner = getattr(optimizer_class, name)
        while isinstance(inner, FunctionType) and inner.__globals__.get("__name__") in COMPILER_WRAPPERS:
            if (wrapped := getattr(inner, "__wrapped__", None)) is None:
                break
            inner = wrapped
        if inner is not method:  # the wrapper of step switches gradients off too
            methods[name] = torch.no_grad()(inner) if name == "step" else inner
    return type(optimizer_class.__name__, (optimizer_class,), methods)


class Lars(Optimizer):
    """An optimiser that scales SGD's steps of matrices by their own norm (LARS; You, Gitman, Ginsburg 2017).

    A parameter p with two dimensions or more and gradient g has the update ``u = g + weight_decay p``, scaled by
    ``trust |p| / |u|``, or by 1 if one of the norms is zero. Each step moves p by ``-lr m``, where m is
    ``momentum m + scaled update``. Parameters with one dimension, which are biases and those of normalisation layers,
    take plain steps without weight decay. The official MIRA and MVEB code does the same.

    Args:
        params: The parameters or parameter groups to train.
        lr: The learning rate.
        momentum: The momentum, in [0, 1); it has no dampening.
        weight_decay: The weight decay of parameters with two dimensions or more.
        trust: The trust coefficient: the norm of a scaled update over the norm of its parameter.

    Example:
        >>> import torch
        >>> from infomax.nn.optimizers import Lars
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))  # norm 5
        >>> weight.grad = torch.tensor([[200.0, 0.0]])  # only its direction counts
        >>> Lars([weight], lr=1.0, trust=0.1).step()
        >>> weight.data
        tensor([[2.5000, 4.0000]])
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
        """Updates all parameters that have a gradient.

        Args:
            closure: A function that computes the loss and its gradient; None uses the gradients in place.

        Returns:
            The loss of ``closure``, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            # On a GPU few kernels over many parameters; a CPU takes half the time if each stays in its cache.
            on_cpu = [[p] for p in trained if p.device.type == "cpu"]
            on_gpu = [p for p in trained if p.device.type != "cpu"]
            for params in (*on_cpu, [p for p in on_gpu if p.ndim > 1], [p for p in on_gpu if p.ndim <= 1]):
                if params:
                    self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Updates parameters that all are matrices, or all are not, without waiting for the device."""
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        averages = [self.state[p]["momentum_buffer"] for p in params]
        gradients: Any = [p.grad for p in params]
        torch._foreach_mul_(averages, group["momentum"])
        if self._scales(params[0], group):
            updates = [*torch._foreach_add(gradients, params, alpha=group["weight_decay"])]
            ratios = self._ratios(params, gradients, updates, group)
            torch._foreach_addcmul_(averages, updates, ratios.unbind())
        else:
            torch._foreach_add_(averages, gradients)
        torch._foreach_add_(params, averages, alpha=-group["lr"])

    def _scales(self, parameter: Tensor, group: dict[str, Any]) -> bool:
        return parameter.ndim > 1

    def _ratios(
        self, params: list[Tensor], gradients: list[Tensor], updates: list[Tensor], group: dict[str, Any]
    ) -> Tensor:
        """Returns the factor of each update."""
        norms, update_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (params, updates))
        ratios = group["trust"] * norms / update_norms
        return torch.where((norms > 0) & (update_norms > 0), ratios, 1.0)


class Larc(Lars):
    """An optimiser that scales SGD's steps by norms as apex's LARC and solo-learn's LARS do.

    It differs from :class:`Lars` in the norm of the update ``u = g + weight_decay p``, which is scaled by
    ``trust |p| / (|g| + weight_decay |p| + 1e-8)``, or by 1 if |p| or |g| is zero (docs/decisions.md, larc). With
    ``clip`` the scale is divided by the learning rate and is at most 1, so that no step is longer than SGD's.

    Args:
        params: The parameters or parameter groups to train.
        lr: The learning rate.
        momentum: The momentum, in [0, 1); it has no dampening.
        weight_decay: The weight decay of parameters with two dimensions or more; of all, with ``scale_vectors``.
        trust: The trust coefficient. solo-learn has 0.02.
        clip: Whether no step is longer than SGD's.
        scale_vectors: Whether parameters with one dimension, which are biases and those of normalisation layers, are
            scaled too, as LARC does; otherwise they take plain steps.

    Example:
        >>> import torch
        >>> from infomax.nn.optimizers import Larc
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))  # norm 5
        >>> weight.grad = torch.tensor([[0.5, 0.0]])
        >>> Larc([weight], lr=0.1, trust=0.1, clip=True).step()  # 0.1 * 5 / 0.5 / 0.1 is 10, which is above 1
        >>> weight.data
        tensor([[2.9500, 4.0000]])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        clip: bool = False,
        scale_vectors: bool = False,
    ):
        super().__init__(params, lr, momentum, weight_decay, trust)
        self.clip, self.scale_vectors = clip, scale_vectors

    def _scales(self, parameter: Tensor, group: dict[str, Any]) -> bool:
        return self.scale_vectors or parameter.ndim > 1

    def _ratios(
        self, params: list[Tensor], gradients: list[Tensor], updates: list[Tensor], group: dict[str, Any]
    ) -> Tensor:
        norms, gradient_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (params, gradients))
        ratios = group["trust"] * norms / (gradient_norms + group["weight_decay"] * norms + 1e-8)
        if self.clip:
            ratios = (ratios / group["lr"]).clamp_max(1) if group["lr"] else torch.ones_like(ratios)
        return torch.where((norms > 0) & (gradient_norms > 0), ratios, 1.0)


def parameter_groups(
    module: nn.Module, weight_decay: float, *, decay_all: bool, rate_factors: Mapping[Tensor, float] | None = None
) -> list[dict[str, Any]]:
    """Divides the trained parameters of a module into groups for an optimiser.

    Args:
        module: The module whose parameters are trained.
        weight_decay: The weight decay of parameters with two dimensions or more.
        decay_all: Whether biases and the parameters of normalisation layers, which have one dimension, decay too.
        rate_factors: The factors of the learning rate by parameter; one that is not there has the factor 1. None leaves
            the groups without a factor.

    Returns:
        One group if ``decay_all``; else the group that decays, and the group that does not. With ``rate_factors``, each
        of them is divided further by the factor, which is its ``rate_factor``.

    Example:
        >>> import torch
        >>> from infomax.nn.optimizers import parameter_groups
        >>> groups = parameter_groups(torch.nn.Linear(3, 2), 0.1, decay_all=False)
        >>> [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups]
        [(0.1, [(2, 3)]), (0.0, [(2,)])]
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if decay_all:
        groups = [{"params": trained, "weight_decay": weight_decay}]
    else:
        matrices = [p for p in trained if p.ndim > 1]
        vectors = [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return groups if rate_factors is None else [part for group in groups for part in _by_factor(group, rate_factors)]


def with_constant_rate(
    groups: Iterable[dict[str, Any]], parameters: Collection[Tensor], rate: float
) -> list[dict[str, Any]]:
    """Returns groups of parameters in which some parameters have a learning rate that no schedule changes.

    Args:
        groups: The groups of :func:`parameter_groups`.
        parameters: The parameters that keep their rate.
        rate: Their learning rate.
    """
    constant = {id(parameter) for parameter in parameters}
    divided = []
    for group in groups:
        scheduled = [p for p in group["params"] if id(p) not in constant]
        divided += [{**group, "params": scheduled}] if scheduled else []
        if kept := [p for p in group["params"] if id(p) in constant]:
            divided.append({**group, "params": kept, "constant_rate": rate})
    return divided


def _by_factor(group: dict[str, Any], rate_factors: Mapping[Tensor, float]) -> list[dict[str, Any]]:
    """Divides a group of parameters by the factors of their learning rates."""
    parameters_of: dict[float, list[Tensor]] = {}
    for parameter in group["params"]:
        parameters_of.setdefault(rate_factors.get(parameter, 1.0), []).append(parameter)
    return [{**group, "params": parameters, "rate_factor": factor} for factor, parameters in parameters_of.items()]


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of each group of an optimiser: ``rate`` times the group's ``rate_factor``, if it has one.

    A group with a ``constant_rate`` has that instead.

    Args:
        optimizer: The optimiser, over groups of :func:`parameter_groups`.
        rate: The learning rate of parameters whose factor is 1.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.get("constant_rate", rate * group.get("rate_factor", 1.0))


def lay_out_state(optimizer: Optimizer, layout: torch.memory_format) -> None:
    """Gives what an optimiser keeps of convolutions the layout of their weights, which another device may have changed.

    Args:
        optimizer: The optimiser, after it has loaded its state.
        layout: The layout of the weights [out, in, height, width].
    """
    for of_parameter in optimizer.state.values():
        for name, value in of_parameter.items():
            if isinstance(value, Tensor) and value.ndim == 4:
                of_parameter[name] = value.contiguous(memory_format=layout)
