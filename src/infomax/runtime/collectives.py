"""Sums, maxima and gathers over the global batch; no other file has collectives. They change nothing on a single rank.

The global batch is the rows of all ranks together. Each rank passes its own rows, every rank computes the same global
loss, and the backward pass of a sum over ranks is again a sum over ranks. Gradients averaged over ranks, as
DistributedDataParallel does, are then those of one process that holds the whole batch, up to rounding, also if ranks
hold different numbers of rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from infomax.runtime.failures import CollapseError

T = TypeVar("T")


@dataclass
class TrafficCounter:
    """A dataclass that counts the bytes of the collectives that one of ``world_size`` ranks takes part in."""

    world_size: int
    reduced_bytes: int = 0
    """Size of the tensors that were summed by all-reduce."""
    gathered_bytes: int = 0
    """Size of the results of all-gather, the rank's own share included."""

    @property
    def sent_bytes(self) -> int:
        """Returns the bytes that the rank sends if ranks form a ring, which a sum passes twice and a gather once."""
        return (2 * self.reduced_bytes + self.gathered_bytes) * (self.world_size - 1) // self.world_size


_simulated: TrafficCounter | None = None


@contextmanager
def simulated_ranks(counter: TrafficCounter) -> Iterator[None]:
    """Acts as the first of ``counter.world_size`` ranks without any other process, and counts the bytes in ``counter``.

    A sum returns this rank's share of it, and a gather repeats this rank's rows: shapes are right, numbers are not.
    """
    global _simulated
    _simulated = counter
    try:
        yield
    finally:
        _simulated = None


def _all_reduce(x: Tensor, *operation: Any) -> None:
    """Replaces ``x`` by its sum over ranks, or by the result of another operation, such as ``ReduceOp.MAX``."""
    if _simulated is None:
        dist.all_reduce(x, *operation)
    else:
        _simulated.reduced_bytes += x.nbytes


def _all_gather(x: Tensor) -> list[Tensor]:
    """Returns the ``x`` of every rank, in rank order; all must have the same shape."""
    if _simulated is None:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return parts
    _simulated.gathered_bytes += x.nbytes * _simulated.world_size
    return [x.clone() for _ in range(_simulated.world_size)]


def world_size() -> int:
    """Returns the number of ranks; 1 without a process group."""
    if _simulated is not None:
        return _simulated.world_size
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's rank, from 0; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 and _simulated is None else 0


@contextmanager
def process_group(rank: int, world_size: int, *, device: torch.device) -> Iterator[None]:
    """Joins the ranks that MASTER_ADDR and MASTER_PORT name, and leaves them at the end.

    Ranks communicate by NCCL if ``device`` is a GPU, and by gloo if it is the CPU.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(device)  # collectives of Python objects go through the current device
    dist.init_process_group(backend, rank=rank, world_size=world_size, device_id=device if backend == "nccl" else None)
    try:
        yield
    except (SystemExit, CollapseError):  # all ranks stop after the same step
        _leave_process_group()
        raise
    # After any other error this is skipped: other ranks may be gone, and NCCL would wait for them.
    _leave_process_group()


def _leave_process_group() -> None:
    """Leaves the process group once all ranks are about to: one that left early would close connections in use.

    All have reached the barrier when the first one passes it. That one then closes its connections, which a slower one
    may see before the barrier's last message; it has nothing left to send either.
    """
    with suppress(RuntimeError):
        dist.barrier()
    dist.destroy_process_group()


def broadcast_from_rank0(make: Callable[[], T]) -> T:
    """Calls ``make`` on the first rank alone; every rank then returns its result or raises its exception."""
    if world_size() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = make()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def barrier() -> None:
    """Waits until every rank has called this function."""
    if world_size() > 1:
        dist.barrier()


def all_ranks_max(number: int, device: torch.device) -> int:
    """Returns the largest of the numbers that the ranks pass."""
    return number if world_size() == 1 else int(global_max(torch.tensor(number, device=device)))


@torch.no_grad()
def average_in_place(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over ranks, with one collective for all of them."""
    if world_size() == 1 or not tensors:
        return
    flat = global_sum(torch.cat([x.flatten() for x in tensors])) / world_size()
    for x, mean in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
        x.copy_(mean.view_as(x))


class _Sum(torch.autograd.Function):
    """Sums over ranks; the backward pass sums the ranks' gradients, because each rank's loss uses the same sum."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        _all_reduce(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        _all_reduce(gradient)
        return gradient


def global_sum(x: Tensor) -> Tensor:
    """Sums ``x`` elementwise over ranks; differentiable. All ranks pass tensors of the same shape."""
    if world_size() == 1:
        return x
    return _Sum.apply(x)  # pyrefly: ignore[bad-return]


def global_max(x: Tensor) -> Tensor:
    """Returns the elementwise maximum of ``x`` over ranks, without gradient; all ranks pass the same shape."""
    if world_size() == 1:
        return x.detach()
    x = x.detach().clone(memory_format=torch.contiguous_format)
    _all_reduce(x, dist.ReduceOp.MAX)
    return x


def global_count(x: Tensor) -> int:
    """Returns the number of rows in the global batch: the sum over ranks of ``len(x)``."""
    if world_size() == 1:
        return len(x)
    return int(global_sum(torch.tensor(len(x), device=x.device)))


def global_quotient(total: Tensor, count: int, *, correction: int = 0) -> Tensor:
    """Divides the sum of ``total`` over ranks by the sum of ``count`` over ranks, with one collective.

    Args:
        total: This rank's summand, of the same shape on all ranks; gradients flow to it.
        count: This rank's share of the divisor.
        correction: The number that is subtracted from the divisor, as 1 for an unbiased variance.
    """
    if world_size() == 1:
        return total / (count - correction)
    sums = global_sum(torch.cat([total.flatten(), total.new_tensor([count])]))
    return (sums[:-1] / (sums[-1].detach() - correction)).view_as(total)


def global_mean(x: Tensor) -> Tensor:
    """Returns the mean over the rows of the global batch, of shape ``x.shape[1:]``; differentiable."""
    return x.mean(0) if world_size() == 1 else global_quotient(x.sum(0), len(x))


def global_means(xs: list[Tensor]) -> list[Tensor]:
    """Returns the :func:`global_mean` of each tensor, with one collective; on a rank all have as many rows."""
    if world_size() == 1:
        return [x.mean(0) for x in xs]
    means = global_quotient(torch.cat([x.sum(0).flatten() for x in xs]), len(xs[0]))
    sizes = [x[0].numel() for x in xs]
    return [mean.view(x.shape[1:]) for mean, x in zip(means.split(sizes), xs, strict=True)]


def global_logmeanexp(x: Tensor) -> Tensor:
    """Computes ``log(mean(exp(x)))`` over the rows of the global batch, without overflow; differentiable."""
    shift = global_max(x.amax(0))
    return shift + global_mean((x - shift).exp()).log()


def gather_objects(x: T) -> list[T]:
    """Returns what each rank passes, any object that pickle can write, in rank order."""
    if world_size() == 1:
        return [x]
    if _simulated is not None:
        return [x] * _simulated.world_size
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, x)
    return parts


def row_counts(x: Tensor) -> list[int]:
    """Returns the number of rows of ``x`` on each rank, in rank order."""
    if world_size() == 1:
        return [len(x)]
    return [int(count) for count in _all_gather(torch.tensor([len(x)], device=x.device))]


def gather(x: Tensor, counts: list[int] | None = None) -> tuple[Tensor, slice]:
    """Gathers the rows of every rank, without gradient.

    Args:
        x: This rank's rows; ranks may hold different numbers of them.
        counts: The result of :func:`row_counts`, to spare its collective if it was called before.

    Returns:
        The rows of the global batch in rank order, and the slice of it that holds this rank's rows.
    """
    x = x.detach()
    if world_size() == 1:
        return x, slice(0, len(x))
    # all_gather needs the same number of rows on every rank: pad to the largest number, then cut.
    counts = counts or row_counts(x)
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = _all_gather(padded)
    start = sum(counts[: rank()])
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]), slice(start, start + len(x))


class _Gather(torch.autograd.Function):
    """Gathers rows; the backward pass sums the ranks' gradients, because each rank's loss uses the same rows."""

    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, slice]:
        rows, ctx.mine = gather(x)
        return rows, ctx.mine

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Any) -> Tensor:  # pyrefly: ignore[bad-override]
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        _all_reduce(gradient)
        return gradient[ctx.mine]


def gather_with_gradient(x: Tensor) -> tuple[Tensor, slice]:
    """Gathers the rows of every rank as :func:`gather` does, with gradient.

    A loss of the gathered rows must be the same on every rank, as the losses of the global batch are.

    Args:
        x: This rank's rows; ranks may hold different numbers of them.

    Returns:
        The rows of the global batch in rank order, and the slice of it that holds this rank's rows.
    """
    return (x, slice(0, len(x))) if world_size() == 1 else _Gather.apply(x)  # pyrefly: ignore[bad-return]
