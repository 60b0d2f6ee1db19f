"""Divides non-negative numbers by their sum, and computes the entropy of such shares."""

import torch
from torch import Tensor


def divide_by_sum(x: Tensor) -> Tensor:
    """Divides non-negative numbers by their sum; if that is 0, all are 0."""
    return x / total if (total := x.sum()) > 0 else torch.zeros_like(x)


def entropy(p: Tensor) -> float:
    """Computes ``-sum p log p``, also if the sum of ``p`` is not 1."""
    return float(torch.special.entr(p).sum())
