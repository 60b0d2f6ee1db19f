"""Mathematics that is no method's own: checked inputs, full precision, cross-entropy, log-determinants, information."""

import functools
from collections.abc import Callable, Iterator
from math import e, log, pi
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from infomax.runtime.checks import check_number
from infomax.runtime.collectives import global_count, global_mean, global_quotient

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with autocast ignored; half-precision tensors among its arguments become float32."""

    def widen(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return [widen(item) for item in x] if isinstance(x, (list, tuple)) else x

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        flat = [item for x in (*args, *kwargs.values()) for item in (x if isinstance(x, (list, tuple)) else [x])]
        device = next((x.device.type for x in flat if isinstance(x, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*map(widen, args), **{name: widen(x) for name, x in kwargs.items()})  # type: ignore

    return wrapper


def check_rows(name: str, x: Any, *, minimum: int = 1, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Refuse what is not a finite floating-point matrix, one row a sample, of the shape of ``like``.

    Returns:
        Its smallest and its largest element.

    Raises:
        ValueError: naming the argument, what was given and what would be right.
    """
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point():
        given = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a floating-point matrix, one row a sample, but is {given}")
    if like is not None and x.shape != like.shape:
        raise ValueError(f"{name} must have the shape {list(like.shape)} of its counterpart, but has {list(x.shape)}")
    if 0 in x.shape or global_count(x) < minimum:
        raise ValueError(f"{name} needs at least {minimum} row(s) and 1 column, but has shape {list(x.shape)}")
    low, high = x.detach().aminmax()  # one pass; NaN propagates into both
    if not (low.isfinite() & high.isfinite()):
        raise ValueError(f"{name} contains NaN or infinity")
    return low, high


def row_blocks(*x: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of all, on a CPU so many as fit in its cache: what is computed from a block touches memory once."""
    whole = x[0].is_cuda or torch.compiler.is_compiling()  # a compiler makes blocks of its own
    rows = len(x[0]) if whole else torch.get_num_threads() * (2**19 // x[0].shape[1] + 1)  # some MB a thread
    return zip(*(each.split(rows) for each in x), strict=True)


class _SoftCrossEntropy(torch.autograd.Function):
    """Autograd would keep the logarithms until the backward pass, and write the matrix several times in it."""

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.temperature = temperature
        return torch.cat([-(t * (x / temperature).log_softmax(1)).sum(1) for x, t in row_blocks(logits, target)])

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore[bad-override]
        logits, target = ctx.saved_tensors
        gradient, scale = torch.empty_like(logits), gradients[0].unsqueeze(1) / ctx.temperature
        for into, x, t, s in row_blocks(gradient, logits, target, scale):
            torch.softmax(x / ctx.temperature, 1, out=into).mul_(t.sum(1, keepdim=True)).sub_(t).mul_(s)
        return gradient, None, None


def soft_cross_entropy(
    logits: Float[Tensor, "b k"], target: Float[Tensor, "b k"], temperature: float
) -> Float[Tensor, " b"]:
    """Of each row, ``-sum_j target_j log softmax(logits / temperature)_j``, with the targets held constant. In nats."""
    return _SoftCrossEntropy.apply(logits, target, temperature)  # pyrefly: ignore[bad-return]


class _LogDet(torch.autograd.Function):
    """Autograd through a Cholesky factor costs 2-3 times the closed form, d log det A = tr(A^-1 dA)."""

    @staticmethod
    def forward(ctx, matrix: Tensor, ridge: float) -> Tensor:
        matrix = matrix.clone()
        matrix.diagonal(dim1=-2, dim2=-1).add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(matrix)  # cholesky would wait for a GPU, to raise an error
        ctx.save_for_backward(factor)
        value = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.where(failed == 0, value, torch.nan)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # pyrefly: ignore[bad-override]
        (factor,) = ctx.saved_tensors
        if factor.is_cuda and factor.ndim > 2:  # of many at once, some builds of torch make the host wait
            inverse = torch.stack([torch.cholesky_inverse(x) for x in factor])
        else:
            inverse = torch.cholesky_inverse(factor)
        return gradients[0][..., None, None] * inverse, None


@full_precision
def log_det(matrix: Float[Tensor, "d d"]) -> Float[Tensor, ""]:
    """Log-determinant of a symmetric positive-definite matrix by Cholesky, with the closed-form gradient ``A^-1``.

    Raises:
        ValueError: if ``matrix`` is not square, or not positive definite.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, but has shape {list(matrix.shape)}")
    if (value := log_det_or_nan(matrix)).isnan():
        raise ValueError("matrix must be symmetric positive definite; its Cholesky factorisation failed")
    return value


def log_det_or_nan(matrix: Float[Tensor, "... d d"], ridge: float = 0.0) -> Float[Tensor, "..."]:
    """The same, of one matrix or a stack, to whose diagonal ``ridge`` is added; unchecked and in their precision: NaN,
    without waiting for the device, where it fails."""
    return _LogDet.apply(matrix, ridge)  # pyrefly: ignore[bad-return]


class _Scatter(torch.autograd.Function):
    """Autograd would take two matrix products backwards, where a symmetric result needs one."""

    @staticmethod
    def forward(ctx, x: Tensor, centre: Tensor) -> Tensor:
        centred = x - centre
        ctx.save_for_backward(centred)
        return centred.T @ centred

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        (centred,) = ctx.saved_tensors
        gradient = centred @ (gradients[0] + gradients[0].T)
        return gradient, gradient.sum(0).neg()


def scatter(x: Float[Tensor, "n d"], centre: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """``sum_i (x_i - centre)(x_i - centre)'``, by one matrix product, and its gradient by another."""
    return _Scatter.apply(x, centre)  # pyrefly: ignore[bad-return]


def _covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Covariance over the global batch, normalised by n. Centred first: E[xx'] - mm' would cancel."""
    return global_quotient(scatter(x, global_mean(x)), len(x))


def _regularised_log_det(covariance: Tensor, epsilon: float) -> Tensor:
    return log_det(covariance + epsilon * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device))


@full_precision
def ld_entropy(x: Float[Tensor, "n d"], *, epsilon: float = 1e-8) -> Float[Tensor, ""]:
    """Log-determinant entropy of the rows of ``x``, in nats (CorInfoMax Eq. A.2). Computed in float64.

    ``1/2 log det(R + epsilon I) + d/2 log(2 pi e)`` with the covariance ``R`` of the global batch: the differential
    entropy of a Gaussian with that covariance.
    """
    check_rows("x", x, minimum=2)
    check_number("epsilon", epsilon, low=0, open_low=True)
    log_determinant = _regularised_log_det(_covariance(x.double()), epsilon)
    return (log_determinant / 2 + x.shape[1] / 2 * log(2 * pi * e)).to(x.dtype)


@full_precision
def ld_mutual_information(
    x: Float[Tensor, "n d1"], y: Float[Tensor, "n d2"], *, epsilon: float = 1e-8
) -> Float[Tensor, ""]:
    """Log-determinant mutual information between the rows of ``x`` and ``y``, in nats. Computed in float64.

    ``1/2 [log det(R_x + epsilon I) + log det(R_y + epsilon I) - log det(R_xy + epsilon I)]`` with the joint covariance
    ``R_xy``. Equal to CorInfoMax Eqs. 1, A.4 and A.5 but symmetric, and needs no inverse.
    """
    check_rows("x", x, minimum=2)
    check_rows("y", y, minimum=2)
    check_number("epsilon", epsilon, low=0, open_low=True)
    if len(x) != len(y):
        raise ValueError(f"y must have as many rows as x, {len(x)}, but has {len(y)}")
    joint = _covariance(torch.cat([x.double(), y.double()], dim=1))
    d = x.shape[1]
    terms = [_regularised_log_det(part, epsilon) for part in (joint[:d, :d], joint[d:, d:], joint)]
    return ((terms[0] + terms[1] - terms[2]) / 2).to(torch.promote_types(x.dtype, y.dtype))
