"""What a step of a recipe takes, counted without computing it: FLOPs, memory, and what ranks send each other.

The recipe's method makes its step on tensors that have a shape and no numbers, and every operation that reaches torch
is noted. So nothing here knows what a method, a layer or a loss does.
"""

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from infomax.methods.base import Progress, Views
from infomax.nn.batch_norm import RunningStatistics, batch_norms, synchronise_batch_norm
from infomax.recipes.building import AUTOCAST, build_method, build_optimizer
from infomax.recipes.schema import OptimizerSettings, Recipe
from infomax.runtime.collectives import TrafficCounter, average_in_place, simulated_ranks


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank holds during a step: of tensors, not of the libraries, the driver or a loader's workers."""

    weights: int
    """Parameters and buffers, those of a moving average too."""
    gradients: int
    """With the buckets that they are averaged over ranks in, where there are several."""
    optimizer: int
    activations: int
    """What the images that go through the networks at once leave for the backward pass; views and outputs are in it."""
    peak: int
    """The most at any time: with what is there for a moment, as the matrices of a loss."""


@dataclass(frozen=True)
class CommunicationBytes:
    """Bytes that one rank sends in a step, where the ranks stand in a ring; but for single numbers."""

    gradients: int
    norms: int
    """Statistics of BatchNorm."""
    loss: int

    @property
    def total(self) -> int:
        return self.gradients + self.norms + self.loss


@dataclass(frozen=True)
class Cost:
    """Of one step, on one of the ranks that share it. FLOPs are two for a product and its sum."""

    images: int
    """The rank's share of the batch."""
    part: int
    """Images that go through the networks at once."""
    online: float
    """FLOPs of the trained branch's forward pass, an image with all its views."""
    target: float
    """The same of a teacher's."""
    backward: float
    """The same of the trained branch's backward pass."""
    loss: int
    """FLOPs of the loss and its gradient, a step."""
    encode: float
    """FLOPs of the encoder that is judged, an image."""
    memory: Memory
    sent: CommunicationBytes
    outputs: tuple[tuple[tuple[int, ...], ...], ...]
    """Of an image, the shapes of what the loss is given: of the trained branch, and of a teacher, a view each."""

    def networks(self, images: int, part: int) -> float:
        """FLOPs of the networks, of so many images in parts. All parts but the last, which keeps its graph, pass the
        trained branch twice."""
        return images * (self.online + self.target + self.backward) + (images - part) * self.online

    @property
    def flops(self) -> float:
        """Of the step."""
        return self.networks(self.images, self.part) + self.loss


@cache
def count(recipe: Recipe, *, ranks: int = 1, device: str = "cpu") -> Cost:
    """What a step of a recipe takes on each of ``ranks`` ranks.

    Args:
        device: ``cpu`` or ``cuda``: BatchNorm sees all ranks in different ways there, and a GPU has the next batch too.
    """
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # which the run itself will give
        method: Any = build_method(recipe).to(memory_format=torch.channels_last)
    together = ranks > 1 and recipe.micro_batch_size is None
    if together and device == "cpu":
        method = synchronise_batch_norm(method, torch.device(device))
    flops = FlopCounterMode(display=False, custom_mapping=FACTORISATIONS)
    shapes = _Shapes(allow_non_fake_inputs=True)
    with warnings.catch_warnings(action="ignore"), shapes, flops, _Live(device) as live:
        step = _Step(recipe, method.to_empty(device="cpu"), ranks, flops, live)
        if together and device == "cuda":
            step.synchronise_batch_norm()
        step.make(ahead=device == "cuda")
        return step.cost()


class _Step:
    """One step of a rank: what :class:`infomax.training.engine.Engine` does, in its order."""

    def __init__(self, recipe: Recipe, method: Any, ranks: int, flops: FlopCounterMode, live: "_Live"):
        self.recipe, self.method, self.ranks, self.flops, self.live = recipe, method, ranks, flops, live
        self.images = -(-recipe.batch_size // ranks)
        self.part = recipe.micro_batch_size or self.images
        self.weights, self.activations = live.now, 0
        self.norms, self.loss = TrafficCounter(ranks), TrafficCounter(ranks)
        self.spent: dict[str, int] = {}
        self.outputs: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def make(self, *, ahead: bool) -> None:
        """The step, but for the optimiser's part of it.

        Args:
            ahead: Whether the views of the next batch are there too.
        """
        parts, norms = self.part < self.images, batch_norms(self.method)
        each = (*self.recipe.views.global_crops, *self.recipe.views.local_crops)
        pixels = [torch.empty(self.images, view.size, view.size, 3, dtype=torch.uint8) for view in each]
        another = self.views() if ahead and not parts else []
        kept = [buffer.clone() for buffer in self.method.buffers()], RunningStatistics(norms) if parts else None
        online, target = self.forward()
        self.activations = self.live.now - self.weights
        self.outputs = tuple(tuple(tuple(x.shape[1:]) for x in branch) for branch in (online, target))
        leaves, targets = [x.detach() for x in online], target
        if parts:  # what was made of each part is there until it has been joined
            each_part = [x.new_empty(self.images, *x.shape[1:]) for x in (*online, *target)]
            joined = [x.clone() for x in each_part]
            leaves, targets = joined[: len(online)], joined[len(online) :]
            del each_part
        for leaf in leaves:
            leaf.requires_grad_()
        with simulated_ranks(self.loss), self.counted("loss"):
            self.method.loss(leaves, targets, Progress(step=0, total_steps=1, epoch=0)).total.backward()
        gradients = [leaf.grad[: self.part] for leaf in leaves if leaf.grad is not None]
        self.backward(online, gradients)
        if parts:
            online = self.forward()[0]
            self.backward(online, gradients)
            with simulated_ranks(self.norms):
                average_in_place([x for norm in norms for x in (norm.running_mean, norm.running_var) if x is not None])
        del pixels, another, kept

    def views(self) -> list[Tensor]:
        dtype = torch.float64 if self.recipe.precision == "64" else AUTOCAST.get(self.recipe.precision, torch.float32)
        each = (*self.recipe.views.global_crops, *self.recipe.views.local_crops)
        return [torch.empty(self.part, 3, view.size, view.size, dtype=dtype) for view in each]

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        made, full, half = self.views(), len(self.recipe.views.global_crops), AUTOCAST.get(self.recipe.precision)
        views = Views(made[:full], made[full:])
        with simulated_ranks(self.norms), torch.autocast("cpu", half) if half else nullcontext():
            with self.counted("online"):
                online = self.method.online(views)
            with self.counted("target"):
                return online, self.method.target(views)

    def backward(self, online: list[Tensor], gradients: list[Tensor]) -> None:
        with simulated_ranks(self.norms), self.counted("backward"):
            torch.autograd.backward(online, gradients)

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Keep the FLOPs of what is done the first time."""
        before = self.flops.get_total_flops()
        yield
        self.spent.setdefault(name, self.flops.get_total_flops() - before)

    def synchronise_batch_norm(self) -> None:
        """Count what torch's SyncBatchNorm sends, which needs a GPU to be tried: mean, deviation and count of each
        channel are gathered; backward, two sums of each are made."""

        def note(layer: Any, _: Any, output: Tensor) -> None:
            if not layer.training:
                return
            channels: int = layer.num_features
            self.norms.gathered_bytes += 4 * (2 * channels + 1) * self.ranks
            self.norms.reduced_bytes += 4 * 2 * channels * output.requires_grad

        for layer in batch_norms(self.method):
            layer.register_forward_hook(note)

    def cost(self) -> Cost:
        """All that was counted."""
        trained = [p for p in self.method.parameters() if p.requires_grad]
        gradients, side = sum(p.nbytes for p in trained), self.recipe.preprocessing.size
        buckets = gradients if self.ranks > 1 else 0
        optimizer = round(gradients * _optimizer_share(self.recipe.optimizer))
        most = max(self.live.most, self.weights + 2 * gradients)  # the optimiser's step needs as much again, on a GPU
        memory = Memory(self.weights, gradients + buckets, optimizer, self.activations, most + buckets + optimizer)
        with self.counted("encode"), torch.no_grad():
            self.method.eval_encoder.eval()(torch.empty(1, 3, side, side))
        return Cost(
            images=self.images,
            part=self.part,
            **{name: self.spent[name] / self.part for name in ("online", "target", "backward")},
            loss=self.spent["loss"],
            encode=self.spent["encode"],
            memory=memory,
            sent=CommunicationBytes(
                gradients=TrafficCounter(self.ranks, reduced_bytes=gradients).sent_bytes,
                norms=self.norms.sent_bytes,
                loss=self.loss.sent_bytes,
            ),
            outputs=self.outputs,
        )


def _optimizer_share(settings: OptimizerSettings) -> float:
    """Bytes that the optimiser keeps for each of a parameter, by a step of it."""
    layer: Any = nn.Linear(256, 256)
    optimizer = build_optimizer(layer, settings)
    layer(torch.zeros(1, 256)).sum().backward()
    optimizer.step()
    kept = sum(x.nbytes for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor))
    return kept / sum(p.nbytes for p in layer.parameters())


class _Shapes(FakeTensorMode):
    """Tensors of the CPU that have a shape and no numbers."""

    # Where there is no GPU torch would feign one, and then no process that is forked could make a backward pass.
    avoid_device_init = False


class _Live(TorchDispatchMode):
    """Bytes of all tensors that were made since and are still there, and the most there have been at once."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, Tensor):
                self._note(x.untyped_storage())
        if self._device == "cpu":
            self.most = max(self.most, self.now + _unfolded_bytes(func, args, made))
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if (key := storage._cdata) not in self._known:
            self._known.add(key)
            self.now += (size := storage.nbytes())
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.now -= size


def _unfolded_bytes(func: Any, args: Sequence[Any], result: Any) -> int:
    """Returns the bytes that a CPU takes for a moment to multiply a convolution's unfolded input as a matrix.

    oneDNN convolves without them, but not all types of numbers: float32 always, bfloat16 if the processor has
    instructions for it (AVX-512, AMX), float16 on few processors, float64 never. For the others torch copies the
    neighbourhood of each pixel, of the whole batch at once. We ask torch which of the two it would choose for these
    arguments, because its choice follows ``ONEDNN_MAX_CPU_ISA`` as well; the flags of ``torch.cpu`` do not.
    """
    if func is torch.ops.aten.convolution.default:
        output, (x, weight, bias), settings, bias_sizes = result, args[:3], args[3:9], None
    elif func is torch.ops.aten.convolution_backward.default:
        output, x, weight, bias, settings, bias_sizes = *args[:3], None, args[4:10], args[3]
    else:
        return 0
    stride, padding, _, _, _, groups = settings
    choice = torch._C._select_conv_backend(x, weight, bias, *settings, bias_sizes)
    is_matrix_already = prod(weight.shape[2:]) == prod(stride) == 1 and not any(padding)
    if choice.name != "Slow2d" or is_matrix_already:
        return 0
    pixels, neighbours = len(output) * prod(output.shape[2:]), x.shape[1] // groups * prod(weight.shape[2:])
    return pixels * neighbours * x.element_size()


def _cholesky(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return prod(shape[:-2]) * shape[-1] ** 3 // 3


def _cholesky_solve(right: Sequence[int], factor: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(right) * factor[-1]


def _cholesky_inverse(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return prod(shape[:-2]) * 2 * shape[-1] ** 3 // 3


FACTORISATIONS = {  # which torch does not count
    torch.ops.aten.linalg_cholesky_ex: _cholesky,
    torch.ops.aten.cholesky_solve: _cholesky_solve,
    torch.ops.aten.cholesky_inverse: _cholesky_inverse,
}
