"""Counts what a training step takes without computing it: FLOPs, memory, and bytes that ranks send each other.

The recipe's method makes its step on tensors that have a shape and no values, and every operation that reaches torch is
counted. So this file need not know what a method, a layer or a loss does.
"""

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

from infomax.methods.base import Progress, Views
from infomax.nn.batch_norm import RunningStatistics, batch_norms, synchronise_batch_norm, trained_batch_norms
from infomax.nn.memory import buffers_within_steps
from infomax.recipes.building import AUTOCAST, build_optimizer, build_without_memory
from infomax.recipes.schema import OptimizerSettings, Recipe
from infomax.runtime.collectives import TrafficCounter, average_in_place, simulated_ranks


class Output(NamedTuple):
    """A named tuple that holds the shape of an output of a branch, without the batch dimension."""

    shape: tuple[int, ...]
    is_integer: bool
    """Whether it holds whole numbers, as the clusters of images."""


@dataclass(frozen=True)
class Memory:
    """A frozen dataclass that holds the bytes of tensors on one rank during a step.

    Memory of libraries, of the driver and of the loader's workers is not in it.
    """

    weights: int
    """Parameters and buffers, those of the EMA teacher too."""
    gradients: int
    """Gradients, and with several ranks the buckets in which they are averaged."""
    optimizer: int
    """State of the optimiser, as its momentum."""
    activations: int
    """All that a microbatch keeps for its backward pass, with its views and outputs."""
    peak: int
    """Largest number of bytes at any time, with those that exist only briefly, as the matrices of a loss."""


@dataclass(frozen=True)
class CommunicationBytes:
    """A frozen dataclass that holds the bytes that one rank sends in a step if the ranks communicate in a ring.

    Collectives of single numbers are not in it.
    """

    gradients: int
    """Average of the gradients."""
    norms: int
    """Statistics of BatchNorm."""
    loss: int
    """Collectives of the loss."""

    @property
    def total(self) -> int:
        """Returns the bytes of all three."""
        return self.gradients + self.norms + self.loss


@dataclass(frozen=True)
class StepCost:
    """A frozen dataclass that holds the cost of one training step for one rank.

    A multiplication with its addition counts as two FLOPs. FLOPs "per image" are those for all its views.
    """

    images: int
    """The rank's share of the batch."""
    micro_batch_size: int
    """Images that go through the networks at once on this rank."""
    online_flops: float
    """FLOPs of the online branch's forward pass, per image."""
    target_flops: float
    """FLOPs of the target branch, per image; 0 without a teacher."""
    backward_flops: float
    """FLOPs of the online branch's backward pass, per image."""
    loss_flops: int
    """FLOPs of the loss and its gradient, per step."""
    full_precision_flops: float
    """FLOPs of a step that no tensor core takes: products in float32 or float64 that are no convolutions."""
    moved_bytes: float
    """Bytes that the operations of a step read and write, as if none were fused."""
    operations: float
    """Number of these operations."""
    encoder_flops: float
    """FLOPs of the evaluated encoder, for one image of the preprocessing's size."""
    memory: Memory
    communication: CommunicationBytes
    outputs: tuple[tuple[Output, ...], ...]
    """The loss's inputs: those of the online branch, and those of the target branch. Each has one per view."""

    def network_flops(self, images: int, micro_batch_size: int) -> float:
        """Returns the FLOPs of the networks for a step of another size.

        All microbatches but the last pass the online branch twice, because only the last one keeps its graph until the
        loss is known.

        Args:
            images: Images of the step.
            micro_batch_size: Images that go through the networks at once.
        """
        passes_once = images * (self.online_flops + self.target_flops + self.backward_flops)
        return passes_once + (images - micro_batch_size) * self.online_flops

    @property
    def flops(self) -> float:
        """Returns the FLOPs of the whole step."""
        return self.network_flops(self.images, self.micro_batch_size) + self.loss_flops


def count_step_cost(recipe: Recipe, *, ranks: int = 1, device: str = "cpu", images: int | None = None) -> StepCost:
    """Counts the cost of a recipe's step for each rank.

    Args:
        recipe: The recipe.
        ranks: Number of ranks that share the batch.
        device: ``cpu``, ``cuda`` or ``mps``. The first two synchronise BatchNorm in different ways, and an NVIDIA GPU
            holds the next batch already. Apple's GPU is counted as a CPU, as nobody has measured it.
        images: Number of training images, for a method that remembers them; None counts no memory of any.
    """
    device = "cpu" if device == "mps" else device
    synchronised = ranks > 1 and recipe.micro_batch_size is None
    return _count_step_costs(recipe, ranks, device if synchronised else None, images)[device]


@cache
def _count_step_costs(
    recipe: Recipe, ranks: int, synchronised_on: str | None, images: int | None
) -> dict[str, StepCost]:
    """Returns the cost of a step on a CPU and on a GPU, by counting one step.

    Args:
        recipe: The recipe.
        ranks: Number of ranks that share the batch.
        synchronised_on: The device whose way of synchronising BatchNorm is counted; None if it is not synchronised.
        images: As for :func:`count_step_cost`.
    """
    method: Any = build_without_memory(recipe, images).to(memory_format=torch.channels_last)
    if synchronised_on == "cpu":
        method = synchronise_batch_norm(method, torch.device("cpu"))
    fake_tensors, counted = ShapeOnlyTensors(allow_non_fake_inputs=True), CountedOperations()
    with warnings.catch_warnings(action="ignore"), fake_tensors, counted:
        step = CountedStep(recipe, method.to_empty(device="cpu"), ranks, counted)
        if synchronised_on == "cuda":
            step.count_sync_batch_norm()
        step.run()
        step.run_encoder()
        return {device: step.cost(device) for device in ("cpu", "cuda")}


class CountedStep:
    """One step of a rank that follows :class:`infomax.training.engine.Engine` operation by operation.

    Args:
        recipe: The recipe.
        method: Its method, on tensors without values.
        ranks: Number of ranks.
        counted: Counter of operations, which is active.
    """

    def __init__(self, recipe: Recipe, method: Any, ranks: int, counted: "CountedOperations"):
        self.recipe, self.method, self.ranks, self.counted = recipe, method, ranks, counted
        self.images = -(-recipe.batch_size // ranks)
        self.micro_batch_size = recipe.micro_batch_size or self.images
        self.weight_bytes, self.activation_bytes = counted.live_bytes, 0
        self.norm_traffic, self.loss_traffic = TrafficCounter(ranks), TrafficCounter(ranks)
        self.work_by_stage: dict[str, Work] = {}
        self.outputs: tuple[tuple[Output, ...], ...] = ()

    def run(self) -> None:
        """Runs the step up to the optimiser, which :meth:`cost` accounts for."""
        in_microbatches, norms = self.micro_batch_size < self.images, trained_batch_norms(self.method)
        crops = (*self.recipe.views.global_crops, *self.recipe.views.local_crops)
        # These are not read. They are in memory during a real step, so they must be alive here.
        channels, is_deep = self.recipe.encoder.channels, self.recipe.preprocessing.pixel_format.is_deep
        dtype = torch.uint16 if is_deep else torch.uint8
        pixels = [torch.empty(self.images, view.size, view.size, channels, dtype=dtype) for view in crops]
        buffers = [buffer.clone() for buffer in buffers_within_steps(self.method)]
        statistics = RunningStatistics(norms) if in_microbatches else None
        online, target = self.forward()
        self.activation_bytes = self.counted.live_bytes - self.weight_bytes
        self.outputs = tuple(
            tuple(Output(tuple(x.shape[1:]), not x.is_floating_point()) for x in branch) for branch in (online, target)
        )
        leaves, targets = [x.detach() for x in online], target
        if in_microbatches:  # the outputs of each microbatch exist until they have been joined
            separate = [x.new_empty(self.images, *x.shape[1:]) for x in (*online, *target)]
            joined = [x.clone() for x in separate]
            leaves, targets = joined[: len(online)], joined[len(online) :]
            del separate
        for leaf in leaves:
            leaf.requires_grad_()
        with simulated_ranks(self.loss_traffic), self.counting("loss"):
            self.method.loss(leaves, targets, Progress(step=0, total_steps=1, epoch=0)).total.backward()
        if self.method.remembers_images:
            with simulated_ranks(self.loss_traffic):
                self.method.remember([leaf.detach() for leaf in leaves], targets)
        # The loss may hold an output constant.
        gradients = [None if leaf.grad is None else leaf.grad[: self.micro_batch_size] for leaf in leaves]
        self.backward(online, gradients)
        if in_microbatches:
            online = self.forward()[0]
            self.backward(online, gradients)
            with simulated_ranks(self.norm_traffic):
                running = [x for norm in norms for x in (norm.running_mean, norm.running_var)]
                average_in_place([x for x in running if x is not None])
        del pixels, buffers, statistics

    def run_encoder(self) -> None:
        """Runs the evaluated encoder, as for a score."""
        side, channels = self.recipe.preprocessing.size, self.recipe.encoder.channels
        with self.counting("encoder"), torch.no_grad():
            self.method.eval_encoder.eval()(torch.empty(1, channels, side, side))

    def empty_views(self) -> list[Tensor]:
        """Returns the views of a microbatch, each [micro_batch_size, C, side, side]."""
        dtype = torch.float64 if self.recipe.precision == "64" else AUTOCAST.get(self.recipe.precision, torch.float32)
        crops = (*self.recipe.views.global_crops, *self.recipe.views.local_crops)
        channels = self.recipe.encoder.channels
        return [torch.empty(self.micro_batch_size, channels, view.size, view.size, dtype=dtype) for view in crops]

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the outputs of the online and of the target branch for a microbatch."""
        crops, global_crop_count = self.empty_views(), len(self.recipe.views.global_crops)
        autocast_dtype = AUTOCAST.get(self.recipe.precision)
        positions = torch.zeros(self.micro_batch_size, dtype=torch.int64) if self.method.remembers_images else None
        views = Views(crops[:global_crop_count], crops[global_crop_count:], positions)
        autocast = torch.autocast("cpu", autocast_dtype) if autocast_dtype else nullcontext()
        with simulated_ranks(self.norm_traffic), autocast:
            with self.counting("online"):
                online = self.method.online(views)
            with self.counting("target"):
                return online, self.method.target(views)

    def backward(self, online: list[Tensor], gradients: list[Tensor | None]) -> None:
        """Propagates the gradients of a microbatch's outputs to the weights; an output that has none is left out."""
        pairs = [(x, gradient) for x, gradient in zip(online, gradients, strict=True) if gradient is not None]
        with simulated_ranks(self.norm_traffic), self.counting("backward"):
            torch.autograd.backward([x for x, _ in pairs], [gradient for _, gradient in pairs])

    @contextmanager
    def counting(self, stage: str) -> Iterator[None]:
        """Stores the work of the block; if a stage runs more than once, that of its first time."""
        before = self.counted.work()
        yield
        self.work_by_stage.setdefault(stage, Work(*(x - y for x, y in zip(self.counted.work(), before, strict=True))))

    def work_of_step(self) -> list[float]:
        """Returns the numbers of :class:`Work` for a whole step: those of its microbatches, and once of the loss."""
        microbatches, stages = self.images / self.micro_batch_size, self.work_by_stage
        once = zip(stages["online"], stages["target"], stages["backward"], stages["loss"], strict=True)
        return [
            microbatches * (online + target + backward) + (microbatches - 1) * online + loss
            for online, target, backward, loss in once
        ]

    def count_sync_batch_norm(self) -> None:
        """Counts the bytes that torch's SyncBatchNorm sends, because it does not run without a GPU.

        The forward pass gathers mean, deviation and count of each channel; the backward pass sums two numbers per
        channel.
        """

        def add_bytes(layer: Any, _: Any, output: Tensor) -> None:
            if not layer.training:
                return
            channels: int = layer.num_features
            self.norm_traffic.gathered_bytes += 4 * (2 * channels + 1) * self.ranks
            self.norm_traffic.reduced_bytes += 4 * 2 * channels * output.requires_grad

        for layer in batch_norms(self.method):
            layer.register_forward_hook(add_bytes)

    def cost(self, device: str) -> StepCost:
        """Returns all that was counted.

        Args:
            device: ``cpu``, which may copy the inputs of convolutions, or ``cuda``, where the views of the next batch
                are in memory too, unless the step has microbatches.
        """
        gradients = sum(p.nbytes for p in self.method.parameters() if p.requires_grad)
        buckets = gradients if self.ranks > 1 else 0
        optimizer = round(gradients * _optimizer_bytes_per_byte(self.recipe.optimizer))
        prefetched = sum(x.nbytes for x in self.empty_views()) if self.micro_batch_size == self.images else 0
        counted_peak = self.counted.peak_on_cpu if device == "cpu" else self.counted.peak + prefetched
        # The optimiser's update makes temporary tensors, on a GPU as large as all gradients.
        peak = max(counted_peak, self.weight_bytes + 2 * gradients) + buckets + optimizer
        memory = Memory(self.weight_bytes, gradients + buckets, optimizer, self.activation_bytes, peak)
        stages, (_, full_precision_flops, moved_bytes, operations) = self.work_by_stage, self.work_of_step()
        return StepCost(
            images=self.images,
            micro_batch_size=self.micro_batch_size,
            online_flops=stages["online"].flops / self.micro_batch_size,
            target_flops=stages["target"].flops / self.micro_batch_size,
            backward_flops=stages["backward"].flops / self.micro_batch_size,
            loss_flops=stages["loss"].flops,
            full_precision_flops=full_precision_flops,
            moved_bytes=moved_bytes,
            operations=operations,
            encoder_flops=stages["encoder"].flops,
            memory=memory,
            communication=CommunicationBytes(
                gradients=TrafficCounter(self.ranks, reduced_bytes=gradients).sent_bytes,
                norms=self.norm_traffic.sent_bytes,
                loss=self.loss_traffic.sent_bytes,
            ),
            outputs=self.outputs,
        )


def _optimizer_bytes_per_byte(settings: OptimizerSettings) -> float:
    """Returns the bytes of the optimiser's state per byte of parameters, measured by one step on a small layer."""
    layer: Any = nn.Linear(256, 256)
    # The layer has neither stages nor a predictor.
    optimizer = build_optimizer(layer, replace(settings, backbone_rate=1, layer_decay=1, constant_predictor=False))
    layer(torch.zeros(1, 256)).sum().backward()
    optimizer.step()
    state_bytes = sum(x.nbytes for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor))
    return state_bytes / sum(p.nbytes for p in layer.parameters())


class ShapeOnlyTensors(FakeTensorMode):
    """A mode in which tensors are on the CPU and have a shape but no values."""

    # Without a GPU torch would start a fake one, and forked processes could not run a backward pass any more.
    avoid_device_init = False


class Work(NamedTuple):
    """A named tuple that holds what operations compute and move."""

    flops: int
    full_precision_flops: int
    """FLOPs of products in float32 or float64 that are no convolutions."""
    moved_bytes: int
    """Bytes of the arguments and results of all operations; views of a tensor move nothing."""
    operations: int
    """Number of operations that move bytes."""


class CountedOperations(TorchDispatchMode):
    """A mode that counts what operations compute and move, and the bytes of all living tensors that were made in it.

    Attributes:
        live_bytes: Bytes at present.
        peak: Largest number of bytes until now.
        peak_on_cpu: The same with the temporary memory that convolutions on a CPU may need.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak = self.peak_on_cpu = 0
        self._living: set[int] = set()
        self._flops = self._full_precision_flops = self._moved_bytes = self._operations = 0

    def work(self) -> Work:
        """Returns the work of all operations until now."""
        return Work(self._flops, self._full_precision_flops, self._moved_bytes, self._operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        for x in results:
            self._add(x.untyped_storage())
        self.peak_on_cpu = max(self.peak_on_cpu, self.live_bytes + _unfolded_bytes(func, args, result))
        arguments = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        storages = {x.untyped_storage()._cdata for x in arguments}
        is_view = all(x.untyped_storage()._cdata in storages for x in results) and not func._schema.is_mutable
        if not results or is_view or "empty" in func.name():
            return result
        self._operations += 1
        self._moved_bytes += sum(x.nbytes for x in (*arguments, *results))
        if (formula := FLOP_FORMULAS.get(func._overloadpacket)) is not None:
            flops = formula(*args, **kwargs, out_val=result)
            self._flops += flops
            if "conv" not in func.name() and results[0].dtype in (torch.float32, torch.float64):
                self._full_precision_flops += flops
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        """Counts a storage until it is freed; several tensors may share one."""
        if (key := storage._cdata) not in self._living:
            self._living.add(key)
            self.live_bytes += (size := storage.nbytes())
            self.peak = max(self.peak, self.live_bytes)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._living.remove(key)
        self.live_bytes -= size


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


def _cholesky_flops(shape: Sequence[int], *_: Any, **__: Any) -> int:
    """Returns the FLOPs of the Cholesky factors of matrices of this shape, [..., n, n]."""
    return prod(shape[:-2]) * shape[-1] ** 3 // 3


def _cholesky_solve_flops(right: Sequence[int], factor: Sequence[int], *_: Any, **__: Any) -> int:
    """Returns the FLOPs of solving for right-hand sides of shape ``right``, [..., n, k], with factors [..., n, n]."""
    return 2 * prod(right) * factor[-1]


def _cholesky_inverse_flops(shape: Sequence[int], *_: Any, **__: Any) -> int:
    """Returns the FLOPs of inverting matrices from their Cholesky factors, [..., n, n]."""
    return prod(shape[:-2]) * 2 * shape[-1] ** 3 // 3


FACTORISATION_FLOPS = {
    torch.ops.aten.linalg_cholesky_ex: _cholesky_flops,
    torch.ops.aten.cholesky_solve: _cholesky_solve_flops,
    torch.ops.aten.cholesky_inverse: _cholesky_inverse_flops,
}
"""FLOPs of operations that torch's counter does not know."""
FLOP_FORMULAS = flop_registry | {operation: shape_wrapper(count) for operation, count in FACTORISATION_FLOPS.items()}
"""Functions that count the FLOPs of an operation by its arguments, and by its result as ``out_val``."""
