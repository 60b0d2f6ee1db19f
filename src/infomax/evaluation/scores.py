"""Class scores to accuracy."""

from jaxtyping import Float, Int
from torch import Tensor


def top_k(scores: Float[Tensor, "m classes"], labels: Int[Tensor, " m"], k: int = 1) -> float:
    """Share of rows whose own class is among the ``k`` highest scores; of equal scores the first class wins."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return float((best == labels.unsqueeze(1)).any(1).float().mean())
