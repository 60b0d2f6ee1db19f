"""Shows how fast two iterations reach balanced assignments: Sinkhorn-Knopp's, as in SwAV, and MIRA's (MIRA, Fig. 2).

Both scale the columns of a matrix so that the prototypes are used evenly, and normalise its rows. In the logarithm of
the scaling factors they are one map; MIRA's takes the power beta of each step, Sinkhorn-Knopp's is that of beta = 1.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from infomax.analysis.rows import gather_rows
from infomax.nn.balancing import LinearForm, LogForm, fits_linear_form
from infomax.runtime.checks import check_count, check_number

LARGEST_EXPONENT = 1e300
"""The size up to which sums of exponents do not overflow."""


def sinkhorn(logits: Float[Tensor, "b k"], *, epsilon: float = 0.05, iterations: int = 3) -> Float64[Tensor, "b k"]:
    """Computes SwAV's assignments: Sinkhorn-Knopp's iteration on ``exp(logits / epsilon)``, in float64.

    Each iteration first scales the prototypes to the sum 1/K, then the samples to 1/B; the result is times B.

    Source: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (SwAV), 2020.

    Args:
        logits: This rank's logits, [B, K], one row a sample; in the paper they are cosines.
        epsilon: The weight of the entropy, above 0.
        iterations: The number of iterations, at least 1.

    Returns:
        The assignments of the samples of all ranks, in the order of the ranks, [B, K]; each row sums to 1.

    Raises:
        ValueError: On all ranks, if ``logits`` is not a finite floating-point matrix with at least 1 row, or a number
            is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.convergence import sinkhorn
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])  # all prefer the first
        >>> sinkhorn(logits, epsilon=0.225, iterations=100).round(decimals=3)
        tensor([[0.8440, 0.1560],
                [0.6890, 0.3110],
                [0.2730, 0.7270],
                [0.1940, 0.8060]], dtype=torch.float64)
    """

    def check() -> None:
        check_number("epsilon", epsilon, low=0, open_low=True)
        check_count("iterations", iterations, low=1)

    logits, _ = gather_rows("logits", logits, "n k", check=check)
    scaled = _divide(logits, "epsilon", epsilon)
    (potential,) = islice(_potentials(scaled, 1.0, rows_first=False), iterations - 1, iterations)
    return (scaled + potential).softmax(1)


def sinkhorn_convergence(
    logits: Float[Tensor, "b k"], *, epsilon: float = 0.05, iterations: int = 30, truth: int = 1000
) -> Float64[Tensor, " iterations"]:
    """Computes the squared error of :func:`sinkhorn` after each iteration: the sum over B x K of (W_t - W_truth)^2.

    Source: MIRA, Fig. 2.

    Args:
        logits: This rank's logits, [B, K], one row a sample.
        epsilon: The weight of the entropy, above 0.
        iterations: The number of iterations that are shown, at least 1.
        truth: The number of iterations that count as the limit, at least 1.

    Returns:
        The errors after 1, 2, ... ``iterations`` iterations.

    Raises:
        ValueError: On all ranks, if ``logits`` is not a finite floating-point matrix with at least 1 row, or a number
            is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.convergence import sinkhorn_convergence
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
        >>> errors = sinkhorn_convergence(logits, epsilon=0.225, iterations=3)
        >>> errors.shape, bool((errors.diff() < 0).all())
        (torch.Size([3]), True)
    """

    def check() -> None:
        check_number("epsilon", epsilon, low=0, open_low=True)
        _check_iterations(iterations, truth)

    logits, _ = gather_rows("logits", logits, "n k", check=check)
    scaled = _divide(logits, "epsilon", epsilon)
    return _squared_errors(scaled, _potentials(scaled, 1.0, rows_first=False), iterations, truth)


def mira_convergence(
    logits: Float[Tensor, "b k"],
    *,
    temperature: float = 0.225,
    beta: float = 2 / 3,
    iterations: int = 30,
    truth: int = 1000,
) -> Float64[Tensor, " iterations"]:
    """Computes the squared error of MIRA's targets after each iteration: the sum over B x K of (W_t - W_truth)^2.

    W_t is Eq. 5 with the u that t sweeps of Eq. 7 make of u = 1, none of them accelerated.

    Source: MIRA, Fig. 2.

    Args:
        logits: This rank's logits, [B, K], one row a sample.
        temperature: The temperature of the teacher's softmax, above 0.
        beta: The weight of the mutual information, in [0, 1).
        iterations: The number of iterations that are shown, at least 1.
        truth: The number of iterations that count as the limit, at least 1.

    Returns:
        The errors after 1, 2, ... ``iterations`` iterations.

    Raises:
        ValueError: On all ranks, if ``logits`` is not a finite floating-point matrix with at least 1 row, or a number
            is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.convergence import mira_convergence
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
        >>> errors = mira_convergence(logits, iterations=3)
        >>> errors.shape, bool((errors.diff() < 0).all())
        (torch.Size([3]), True)
    """

    def check() -> None:
        check_number("temperature", temperature, low=0, open_low=True)
        check_number("beta", beta, low=0, high=1)
        _check_iterations(iterations, truth)

    logits, _ = gather_rows("logits", logits, "n k", check=check)
    # The softmax of this is p^(1/(1-beta)) of Eq. 5, up to a factor of each row.
    scaled = _divide(logits, "temperature", temperature * (1 - beta))
    return _squared_errors(scaled, _potentials(scaled, beta, rows_first=True), iterations, truth)


def _check_iterations(iterations: int, truth: int) -> None:
    check_count("iterations", iterations, low=1)
    check_count("truth", truth, low=1)


def _divide(logits: Float64[Tensor, "b k"], argument: str, divisor: float) -> Float64[Tensor, "b k"]:
    """Returns the logits over a divisor; if that is too small, the ValueError names the argument it comes from."""
    scaled = logits / divisor
    if not float(scaled.abs().max()) < LARGEST_EXPONENT:
        raise ValueError(f"{argument} is too small for logits as large as {float(logits.abs().max()):.3g}")
    return scaled


def _potentials(scaled: Float64[Tensor, "b k"], power: float, *, rows_first: bool) -> Iterator[Float64[Tensor, " k"]]:
    """Yields the logarithms of the columns' scaling factors after 1, 2, ... iterations, up to a constant.

    The assignments are then the softmax of the rows of ``scaled`` plus them.

    Args:
        scaled: The logits over temperature or epsilon, [B, K].
        power: The power of a column's sum, of which the factor is the inverse: beta of MIRA, where it is
            u^(-beta/(1-beta)), and 1 of Sinkhorn-Knopp.
        rows_first: Whether the rows are normalised before the first iteration, as from u = 1, or only after it.
    """
    low, high = scaled.aminmax()
    exponent_range = high - low if rows_first else 2 * torch.maximum(-low, high)
    form = LinearForm if fits_linear_form(float(exponent_range), scaled.dtype) else LogForm
    # Each rank has the rows of all, so that sums over ranks are a multiple: the same up to a constant.
    columns, potential = form([scaled], 1.0, normalize_rows=rows_first), None
    while True:
        potential = columns.log_column_sums(potential) * -power
        yield potential[0]


def _squared_errors(
    scaled: Float64[Tensor, "b k"], potentials: Iterator[Float64[Tensor, " k"]], iterations: int, truth: int
) -> Float64[Tensor, " iterations"]:
    """Computes the squared error of the assignments after each of the first ``iterations`` of ``potentials``."""
    # Small tensors that outlived an iteration would keep its memory in pieces.
    shown, errors = scaled.new_empty(iterations, scaled.shape[1]), scaled.new_empty(iterations)
    limit = scaled.new_empty(scaled.shape[1])
    for iteration, potential in enumerate(islice(potentials, max(iterations, truth))):
        if iteration < iterations:
            shown[iteration] = potential
        if iteration == truth - 1:
            limit.copy_(potential)
    true_assignments = (scaled + limit).softmax(1)
    for iteration, potential in enumerate(shown):
        errors[iteration] = ((scaled + potential).softmax(1) - true_assignments).square().sum()
    return errors
