"""Measures how samples are assigned to prototypes: how surely, how evenly, and how many prototypes are in use."""

from functools import partial
from math import exp

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.analysis.measures.entropy import divide_by_sum, entropy
from infomax.analysis.rows import THRESHOLD_ROUNDING, Rows, as_rows
from infomax.runtime.checks import check_number


def assignment_entropy(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the mean entropy of the rows: how unsure the assignment of a sample is, in nats.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The entropy, from 0 to log K.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import assignment_entropy
        >>> round(assignment_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])), 4)  # log(2) / 2
        0.3466
    """
    return float(torch.special.entr(as_rows(p, name="p").probabilities).sum(1).mean())


def marginal_entropy(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the entropy of the mean row: how evenly the prototypes are used, in nats.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The entropy, from 0 of one prototype to log K.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import marginal_entropy
        >>> round(marginal_entropy(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 4)  # log 2
        0.6931
    """
    return entropy(as_rows(p, name="p").probabilities.mean(0))


def mutual_information(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the information that the assignment carries about the sample, in nats.

    It is the :func:`marginal_entropy` minus the :func:`assignment_entropy`.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The information, from 0 of equal rows to log K of sure and even assignments.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import mutual_information
        >>> round(mutual_information(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 4)  # log 2
        0.6931
        >>> mutual_information(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
        0.0
    """
    rows = as_rows(p, name="p")
    return max(0.0, marginal_entropy(rows) - assignment_entropy(rows))


def prototypes_in_use(p: Float[Tensor, "n k"] | Rows, *, share: float = 0.1) -> float:
    """Computes the share of the prototypes that are in use.

    A prototype is in use if it is the most probable one, the first of ties, of at least one row, and of at least
    ``share``/K of the rows, up to 1e-12. If N rows used K prototypes evenly, 1 - exp(-N/K) of them would be seen: with
    fewer than 10 K rows the value says little.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.
        share: The least use of a prototype, not negative, as a share of its even use.

    Returns:
        The share of the prototypes, at most N/K and at most 1.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1; or if ``share`` is negative.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import prototypes_in_use
        >>> prototypes_in_use(torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.1, 0.8, 0.1, 0.0], [0.6, 0.4, 0.0, 0.0]]))
        0.5
    """
    rows = as_rows(p, name="p", check=partial(check_number, "share", share, low=0))
    return share_in_use(rows.largest_counts, share=share)


def share_in_use(counts: Tensor, *, share: float = 0.1) -> float:
    """Computes :func:`prototypes_in_use` from the number of rows of which each prototype is the most probable one.

    Such counts can be summed over batches. It checks nothing, and exchanges nothing between ranks.

    Args:
        counts: The number of rows of each prototype over all ranks, [K].
        share: The least use of a prototype, not negative, as a share of its even use.

    Returns:
        The share of the prototypes, from 0 to 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import share_in_use
        >>> share_in_use(torch.tensor([60, 36, 4, 0])), share_in_use(torch.tensor([60, 36, 4, 0]), share=0.5)
        (0.75, 0.5)
    """
    in_use = (counts > 0) & (counts / counts.sum() >= share / len(counts) - THRESHOLD_ROUNDING)
    return int(in_use.sum()) / len(counts)


def effective_prototypes(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the exponential of the entropy of how often each prototype is the most probable one of a row.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The number of prototypes, from 1 to K.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import effective_prototypes
        >>> round(effective_prototypes(torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])), 4)
        2.0
    """
    return exp(entropy(divide_by_sum(as_rows(p, name="p").largest_counts)))
