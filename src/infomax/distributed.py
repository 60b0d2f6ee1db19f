"""Sums, maxima and gathers over the global batch; the identity on one process. The only file with collectives.

Convention: each rank passes its own rows, every rank computes the same global loss, and the backward pass of a sum is
a sum. Gradients averaged over ranks, as DistributedDataParallel does, are then exactly those of one process that holds
the whole batch, also when ranks hold different numbers of rows.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of ranks; 1 where no process group is up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
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
    dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


def global_count(x: Tensor) -> int:
    """Number of rows of ``x`` over all ranks."""
    if world_size() == 1:
        return len(x)
    return int(global_sum(torch.tensor(len(x), device=x.device)))


def global_mean(x: Tensor) -> Tensor:
    """Mean over the rows of the global batch; differentiable."""
    if world_size() == 1:
        return x.mean(0)
    return global_sum(x.sum(0)) / global_count(x)


def global_logmeanexp(x: Tensor) -> Tensor:
    """``log(mean(exp(x)))`` over the rows of the global batch, without overflow; differentiable."""
    shift = global_max(x.amax(0))
    return shift + global_mean((x - shift).exp()).log()


def gather(x: Tensor) -> tuple[Tensor, slice]:
    """The rows of every rank in rank order, and where this rank's rows are among them; no gradient."""
    x = x.detach()
    if world_size() == 1:
        return x, slice(0, len(x))
    # Ranks may hold different numbers of rows, which all_gather does not allow: pad to the longest, then cut.
    counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(x)], device=x.device))
    sizes = [int(count) for count in counts]
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    start = sum(sizes[: dist.get_rank()])
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), slice(start, start + len(x))
