"""Sums, maxima and gathers over the global batch; the identity on one process. The only file with collectives.

Convention: each rank passes its own rows, every rank computes the same global loss, and the backward pass of a sum is
a sum. Gradients averaged over ranks, as DistributedDataParallel does, are then exactly those of one process that holds
the whole batch, also when ranks hold different numbers of rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

T = TypeVar("T")


@dataclass
class Traffic:
    """What the collectives of one of ``ranks`` ranks leave with it, in bytes."""

    ranks: int
    reduced: int = 0
    """By all-reduce."""
    gathered: int = 0
    """By all-gather, its own share included."""

    @property
    def sent(self) -> int:
        """Bytes that the rank sends, where the ranks stand in a ring: a sum goes round twice, a gather once."""
        return (2 * self.reduced + self.gathered) * (self.ranks - 1) // self.ranks


_simulated: Traffic | None = None


@contextmanager
def simulated_ranks(traffic: Traffic) -> Iterator[None]:
    """Act as the first of ``traffic.ranks`` ranks, of which there is no other, and add to it what would pass.

    A sum is then this rank's part of it, and what is gathered its own rows as often as there are ranks: shapes are
    right, and numbers are not.
    """
    global _simulated
    _simulated = traffic
    try:
        yield
    finally:
        _simulated = None


def _all_reduce(x: Tensor, *operation: Any) -> None:
    """In place; the sum, where no other operation is named."""
    if _simulated is None:
        dist.all_reduce(x, *operation)
    else:
        _simulated.reduced += x.nbytes


def _all_gather(x: Tensor) -> list[Tensor]:
    """``x`` of every rank, all of one shape."""
    if _simulated is None:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return parts
    _simulated.gathered += x.nbytes * _simulated.ranks
    return [x.clone() for _ in range(_simulated.ranks)]


def world_size() -> int:
    """Number of ranks; 1 where no process group is up."""
    if _simulated is not None:
        return _simulated.ranks
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 and _simulated is None else 0


@contextmanager
def process_group(rank: int, world: int, *, device: torch.device) -> Iterator[None]:
    """Join the ranks that MASTER_ADDR and MASTER_PORT name, by NCCL on GPUs and gloo on CPUs, and leave them after."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(device)  # what is sent as bytes goes through the current device
    dist.init_process_group(backend, rank=rank, world_size=world, device_id=device if backend == "nccl" else None)
    try:
        yield
    except SystemExit:  # all ranks stop at the same step
        dist.barrier()
        dist.destroy_process_group()
        raise
    # After any other error there may be nobody to take leave of, for which NCCL would wait.
    dist.barrier()  # a rank that leaves early would take the others' connections with it
    dist.destroy_process_group()


def broadcast_from_rank0(make: Callable[[], T]) -> T:
    """What ``make`` returns or raises on the first rank, on every rank; the others do not call it."""
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
    """Wait until every rank has come here."""
    if world_size() > 1:
        dist.barrier()


def all_ranks_max(number: int, device: torch.device) -> int:
    """The largest of the ranks' numbers."""
    return number if world_size() == 1 else int(global_max(torch.tensor(number, device=device)))


@torch.no_grad()
def average_in_place(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over ranks, in one collective."""
    if world_size() == 1 or not tensors:
        return
    flat = global_sum(torch.cat([x.flatten() for x in tensors])) / world_size()
    for x, mean in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
        x.copy_(mean.view_as(x))


class _Sum(torch.autograd.Function):
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
    """Elementwise sum of ``x`` over ranks; differentiable."""
    if world_size() == 1:
        return x
    return _Sum.apply(x)  # pyrefly: ignore[bad-return]


def global_max(x: Tensor) -> Tensor:
    """Elementwise maximum of ``x`` over ranks; no gradient."""
    if world_size() == 1:
        return x.detach()
    x = x.detach().clone(memory_format=torch.contiguous_format)
    _all_reduce(x, dist.ReduceOp.MAX)
    return x


def global_count(x: Tensor) -> int:
    """Number of rows of ``x`` over all ranks."""
    if world_size() == 1:
        return len(x)
    return int(global_sum(torch.tensor(len(x), device=x.device)))


def global_quotient(total: Tensor, count: int) -> Tensor:
    """Sum of ``total`` over ranks divided by that of ``count``, in one collective; differentiable."""
    if world_size() == 1:
        return total / count
    sums = global_sum(torch.cat([total.flatten(), total.new_tensor([count])]))
    return (sums[:-1] / sums[-1].detach()).view_as(total)


def global_mean(x: Tensor) -> Tensor:
    """Mean over the rows of the global batch; differentiable."""
    return x.mean(0) if world_size() == 1 else global_quotient(x.sum(0), len(x))


def global_means(xs: list[Tensor]) -> list[Tensor]:
    """:func:`global_mean` of several tensors with the same rows, in one collective."""
    if world_size() == 1:
        return [x.mean(0) for x in xs]
    means = global_quotient(torch.cat([x.sum(0).flatten() for x in xs]), len(xs[0]))
    sizes = [x[0].numel() for x in xs]
    return [mean.view(x.shape[1:]) for mean, x in zip(means.split(sizes), xs, strict=True)]


def global_logmeanexp(x: Tensor) -> Tensor:
    """``log(mean(exp(x)))`` over the rows of the global batch, without overflow; differentiable."""
    shift = global_max(x.amax(0))
    return shift + global_mean((x - shift).exp()).log()


def row_counts(x: Tensor) -> list[int]:
    """Number of rows of ``x`` on each rank."""
    if world_size() == 1:
        return [len(x)]
    return [int(count) for count in _all_gather(torch.tensor([len(x)], device=x.device))]


def gather(x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, slice]:
    """The rows of every rank in rank order, and where this rank's rows are among them; no gradient.

    Args:
        sizes: What :func:`row_counts` says, where it is known.
    """
    x = x.detach()
    if world_size() == 1:
        return x, slice(0, len(x))
    # Ranks may hold different numbers of rows, which all_gather does not allow: pad to the longest, then cut.
    sizes = sizes or row_counts(x)
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x
    parts = _all_gather(padded)
    start = sum(sizes[: rank()])
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), slice(start, start + len(x))
