"""Provides mathematics that methods share: input checks, full precision, cross-entropy, information measures."""

import functools
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
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
    """Wraps a function so that it ignores autocast, and converts its half-precision arguments to float32.

    Args:
        function: A function of tensors, lists or tuples of tensors, and other values.
    """

    def widen(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        return [widen(item) for item in value] if isinstance(value, (list, tuple)) else value

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        flat = [item for x in (*args, *kwargs.values()) for item in (x if isinstance(x, (list, tuple)) else [x])]
        device = next((x.device.type for x in flat if isinstance(x, Tensor)), "cpu")
        with torch.autocast("cpu" if device == "meta" else device, enabled=False):
            return function(*map(widen, args), **{name: widen(x) for name, x in kwargs.items()})  # type: ignore

    return wrapper


def check_rows(name: str, x: Any, *, min_rows: int = 1, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Checks that ``x`` is a finite floating-point matrix with one row a sample.

    Args:
        name: The name of the argument, for the message.
        x: The value to check.
        min_rows: The smallest number of rows that the global batch may have.
        like: A tensor whose shape ``x`` must have; one of float64 wants another of float64. None allows any.

    Returns:
        The smallest and the largest element of ``x``, two scalars.

    Raises:
        ValueError: If ``x`` is something else. The message names the argument, its value and what would be right.
    """
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point():
        actual = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a floating-point matrix, one row a sample, but is {actual}")
    if like is not None and x.shape != like.shape:
        raise ValueError(f"{name} must have the shape {list(like.shape)} of its counterpart, but has {list(x.shape)}")
    if like is not None:
        check_precision(name, x, like)
    if 0 in x.shape or global_count(x) < min_rows:
        raise ValueError(f"{name} needs at least {min_rows} row(s) and 1 column, but has shape {list(x.shape)}")
    low, high = x.detach().aminmax()  # one pass over memory; NaN propagates into both
    if not (low.isfinite() & high.isfinite()):
        raise ValueError(f"{name} contains NaN or infinity")
    return low, high


def check_precision(name: str, x: Tensor, like: Tensor) -> None:
    """Checks that both tensors are computed with in float64, or neither, as torch multiplies no other pair.

    Args:
        name: The name of ``x``, for the message.
        x, like: The tensors.

    Raises:
        ValueError: If one of them alone is of float64. The message names both types.
    """
    if (x.dtype == torch.float64) != (like.dtype == torch.float64):
        raise ValueError(f"{name} must have the type {like.dtype} of its counterpart, but has {x.dtype}")


def check_views(name: str, views: Any, *, full: int = 1) -> list[Tensor]:
    """Checks that ``views`` holds finite floating-point matrices of one shape, one a view, with one row a sample.

    Args:
        name: The name of the argument, for the message.
        views: The value to check: a list or tuple of matrices, or a tensor [V, B, D].
        full: The smallest number of views.

    Returns:
        The matrices.

    Raises:
        ValueError: If ``views`` is something else. The message names the argument, its value and what would be right.
    """
    if not isinstance(views, (list, tuple, Tensor)) or (isinstance(views, Tensor) and views.ndim != 3):
        actual = f"a tensor {[*views.shape]}" if isinstance(views, Tensor) else type(views).__name__
        raise ValueError(f"{name} must be a list of matrices, one a view, but is {actual}")
    if len(views) < full:
        raise ValueError(f"{name} must hold at least {full} matrices, but has {len(views)}")
    for view, z in enumerate(views):
        check_rows(f"{name}[{view}]", z, like=views[0])
    return list(views)


def row_blocks(*matrices: Tensor, width: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Yields corresponding blocks of rows of all ``matrices``.

    On a CPU a block fits its cache, so that several operations on a block touch memory once. On a GPU, and for a
    compiler, which makes blocks of its own, all rows are one block.

    Args:
        matrices: Tensors [n, ...] with the same number of rows; the width of the first one decides the block's size.
        width: Another width that decides it, as that of what is computed of a block.
    """
    if matrices[0].is_cuda or torch.compiler.is_compiling():
        rows = len(matrices[0])
    else:  # some MB a thread; a compiler could not trace the number of threads
        rows = torch.get_num_threads() * (2**19 // (width or matrices[0].shape[1]) + 1)
    return zip(*(matrix.split(rows) for matrix in matrices), strict=True)


class _SoftCrossEntropy(torch.autograd.Function):
    """Computes :func:`soft_cross_entropy` with a gradient of its own.

    Autograd would keep the logarithms until the backward pass, and write the matrix several times there.
    """

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
        for out, x, t, s in row_blocks(gradient, logits, target, scale):
            torch.softmax(x / ctx.temperature, 1, out=out).mul_(t.sum(1, keepdim=True)).sub_(t).mul_(s)
        return gradient, None, None


def soft_cross_entropy(
    logits: Float[Tensor, "b k"], target: Float[Tensor, "b k"], temperature: float
) -> Float[Tensor, " b"]:
    """Computes ``-sum_j target_j log softmax(logits / temperature)_j`` of each row, in nats.

    It checks nothing. :func:`swapped_cross_entropy` is made of it.

    Args:
        logits: The logits of each sample, [B, K]; gradients flow to them.
        target: The target weight of each class, [B, K]; held constant.
        temperature: The temperature of the softmax, above 0.

    Returns:
        The cross-entropies, [B].

    Example:
        >>> import torch
        >>> from infomax.functional import soft_cross_entropy
        >>> logits = torch.tensor([[0.2, 0.0], [0.2, 0.0]])
        >>> target = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> soft_cross_entropy(logits, target, temperature=0.1)  # log(1 + exp(-2)), and 1 more
        tensor([0.1269, 1.1269])
    """
    return _SoftCrossEntropy.apply(logits, target, temperature)  # pyrefly: ignore[bad-return]


@full_precision
def swapped_cross_entropy(
    logits: Sequence[Float[Tensor, "b k"]], targets: Sequence[Float[Tensor, "b k"]], temperature: float
) -> Float[Tensor, ""]:
    """Computes the mean cross-entropy with which each crop predicts the targets of the other crops, in nats.

    ``1/M sum_m 1/(V-1) sum_{c != m} CE(targets[m], softmax(logits[c] / temperature))``, over the global batch. It
    checks nothing. The losses of MIRA, SwAV and DINO are this, with different targets.

    Args:
        logits: The logits of V >= 2 crops, each [B, K]; gradients flow to them.
        targets: The targets of the first M crops, each [B, K]; held constant.
        temperature: The temperature of the softmax, above 0.

    Returns:
        The loss, a scalar.

    Example:
        >>> import torch
        >>> from infomax.functional import swapped_cross_entropy
        >>> logits = [torch.tensor([[0.2, 0.0]]), torch.tensor([[0.0, 0.2]])]
        >>> targets = [torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])]
        >>> swapped_cross_entropy(logits, targets, temperature=0.1)  # each predicts the other: log(1 + exp(-2))
        tensor(0.1269)
    """
    # Cross-entropy is linear in its target, so a crop that predicts several targets needs one softmax, not several.
    losses = []
    for crop, crop_logits in enumerate(logits):
        others = [target for position, target in enumerate(targets) if position != crop]
        if others:
            losses.append(soft_cross_entropy(crop_logits, reduce(torch.add, others), temperature))
    return global_mean(torch.stack(losses).sum(0)) / (len(targets) * (len(logits) - 1))


class _LogDet(torch.autograd.Function):
    """Computes ``log det(matrix + ridge I)`` with the closed-form gradient, d log det A = tr(A^-1 dA).

    Autograd through a Cholesky factor costs 2-3 times as much.
    """

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
        if factor.is_cuda and factor.ndim > 2:  # for a stack of matrices, some builds of torch make the host wait
            inverse = torch.stack([torch.cholesky_inverse(matrix) for matrix in factor])
        else:
            inverse = torch.cholesky_inverse(factor)
        return gradients[0][..., None, None] * inverse, None


@full_precision
def log_det(matrix: Float[Tensor, "d d"]) -> Float[Tensor, ""]:
    """Computes the natural log-determinant of a symmetric positive-definite matrix.

    It uses a Cholesky factor, and the closed-form gradient ``A^-1``. The determinant itself may overflow.

    Args:
        matrix: A symmetric positive-definite matrix A, [D, D], of which the lower triangle alone is read.

    Returns:
        The log-determinant, a scalar.

    Raises:
        ValueError: If ``matrix`` is not square, or not positive definite.

    Example:
        >>> import torch
        >>> from infomax.functional import log_det
        >>> round(log_det(torch.tensor([[2.0, 1.0], [1.0, 3.0]])).item(), 4)  # log 5
        1.6094
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, but has shape {list(matrix.shape)}")
    if (value := log_det_or_nan(matrix)).isnan():
        raise ValueError("matrix must be symmetric positive definite; its Cholesky factorisation failed")
    return value


def log_det_or_nan(matrix: Float[Tensor, "... d d"], ridge: float = 0.0) -> Float[Tensor, "..."]:
    """Computes ``log det(matrix + ridge I)`` of one symmetric matrix or a stack of them, without any check.

    It computes in the precision of ``matrix``, and does not wait for the device.

    Args:
        matrix: One matrix or a stack of them, [..., D, D].
        ridge: The number that is added to the diagonal.

    Returns:
        The log-determinants, [...]; NaN if a sum is not positive definite.
    """
    return _LogDet.apply(matrix, ridge)  # pyrefly: ignore[bad-return]


class _Scatter(torch.autograd.Function):
    """Computes :func:`scatter` with a gradient of its own.

    The result is symmetric, so one matrix product is enough for the gradient; autograd would take two.
    """

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


def centre_distance(views: list[Float[Tensor, "b d"]], full: int) -> Float[Tensor, ""]:
    """Computes the mean squared distance of each view's embedding from the mean of the image's full views.

    It is the mean over views, images of the global batch, and dimensions: the prediction term of LeJEPA and VISReg.

    Args:
        views: The embeddings of each view, [B, D], the full views first; gradients flow to them, through the mean too.
        full: The number of full views.

    Returns:
        The distance, a scalar.
    """
    centre = torch.stack(views[:full]).mean(0)
    return global_mean(torch.stack([(z - centre).square().mean(1) for z in views]).mean(0))


def scatter(x: Float[Tensor, "n d"], centre: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """Computes the scatter matrix ``sum_i (x_i - centre)(x_i - centre)'`` of this rank's rows.

    Args:
        x: The samples, [N, D]; gradients flow to them.
        centre: The point that is subtracted from each sample, [D]; gradients flow to it too.

    Returns:
        The scatter matrix, [D, D].
    """
    return _Scatter.apply(x, centre)  # pyrefly: ignore[bad-return]


def split_diagonal(
    matrix: Float[Tensor, "d d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Sets the diagonal of a matrix to zero, in place, and squares what is left.

    Args:
        matrix: A square matrix, [D, D].

    Returns:
        The diagonal as it was, and the sums over each row and over each column of the squares of all other elements.
        They are never computed as differences of sums, which would lose digits if they are small.
    """
    diagonal = matrix.diagonal().clone()
    matrix.diagonal().zero_()
    of_rows, of_columns = [], torch.zeros_like(diagonal)
    for (rows,) in row_blocks(matrix):
        squares = rows.square()
        of_rows.append(squares.sum(1))
        of_columns += squares.sum(0)
    return diagonal, torch.cat(of_rows), of_columns


def _covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Computes the covariance of the global batch, normalised by its number of rows."""
    return global_quotient(scatter(x, global_mean(x)), len(x))  # centred first: E[xx'] - mm' would cancel


def _regularised_log_det(covariance: Tensor, epsilon: float) -> Tensor:
    return log_det(covariance + epsilon * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device))


@full_precision
def ld_entropy(x: Float[Tensor, "n d"], *, epsilon: float = 1e-8) -> Float[Tensor, ""]:
    """Computes the log-determinant entropy of the rows of ``x``, in nats (CorInfoMax Eq. A.2).

    ``1/2 log det(R + epsilon I) + d/2 log(2 pi e)`` with the covariance ``R`` of the global batch: the differential
    entropy of a Gaussian with that covariance. It is computed in float64.

    Args:
        x: The samples, [N, D] with N >= 2 over all ranks; gradients flow to them.
        epsilon: The number above 0 that is added to the diagonal of the covariance.

    Returns:
        The entropy, a scalar of the type of ``x``.

    Raises:
        ValueError: If ``x`` is not a finite matrix with at least 2 rows, or ``epsilon`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.functional import ld_entropy
        >>> x = torch.tensor([[-1.0], [1.0]])  # variance 1: the entropy is log(2 pi e) / 2
        >>> round(ld_entropy(x).item(), 4), round(ld_entropy(10 * x).item(), 4)
        (1.4189, 3.7215)
    """
    check_rows("x", x, min_rows=2)
    check_number("epsilon", epsilon, low=0, open_low=True)
    log_determinant = _regularised_log_det(_covariance(x.double()), epsilon)
    return (log_determinant / 2 + x.shape[1] / 2 * log(2 * pi * e)).to(x.dtype)


@full_precision
def ld_mutual_information(
    x: Float[Tensor, "n d1"], y: Float[Tensor, "n d2"], *, epsilon: float = 1e-8
) -> Float[Tensor, ""]:
    """Computes the log-determinant mutual information between the rows of ``x`` and ``y``, in nats.

    ``1/2 [log det(R_x + epsilon I) + log det(R_y + epsilon I) - log det(R_xy + epsilon I)]`` with the covariances
    ``R_x`` and ``R_y`` and the joint covariance ``R_xy`` of the global batch. It equals CorInfoMax Eqs. 1, A.4 and
    A.5, but is symmetric and needs no inverse. It is computed in float64.

    Args:
        x: Samples of the first variable, [N, D1] with N >= 2 over all ranks; gradients flow to them.
        y: Samples of the second variable, [N, D2], row by row those that belong to ``x``; gradients flow to them.
        epsilon: The number above 0 that is added to the diagonals of the covariances.

    Returns:
        The mutual information, a scalar of the wider type of ``x`` and ``y``.

    Raises:
        ValueError: If ``x`` or ``y`` is not a finite matrix with at least 2 rows, if they have different numbers of
            rows, or if ``epsilon`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.functional import ld_mutual_information
        >>> x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
        >>> y = torch.tensor([[-2.0], [0.0], [0.0], [2.0]])  # squared correlation 1/2: the information is log(2) / 2
        >>> round(ld_mutual_information(x, y).item(), 4)
        0.3466
    """
    check_rows("x", x, min_rows=2)
    check_rows("y", y, min_rows=2)
    check_number("epsilon", epsilon, low=0, open_low=True)
    if len(x) != len(y):
        raise ValueError(f"y must have as many rows as x, {len(x)}, but has {len(y)}")
    joint = _covariance(torch.cat([x.double(), y.double()], dim=1))
    d = x.shape[1]
    log_det_x, log_det_y, log_det_joint = (
        _regularised_log_det(block, epsilon) for block in (joint[:d, :d], joint[d:, d:], joint)
    )
    return ((log_det_x + log_det_y - log_det_joint) / 2).to(torch.promote_types(x.dtype, y.dtype))
