"""k-nearest-neighbour classification by a weighted vote."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def knn_scores(
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "m classes"]:
    """Score of each class for each query: the sum of ``exp(cosine / temperature)`` over those of its k nearest.

    The protocol of DINO's evaluation, which MIRA's Table 3 follows. Memory is that of the bank, the queries and a
    thousand rows of similarities.

    Args:
        bank: Features of the labelled images.
        labels: Their classes.
        queries: Features of the images to classify.
        classes: Number of classes.
        k: Neighbours that vote; all of a smaller bank.
        temperature: Of the weights.
    """
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    scores = queries.new_zeros(len(queries), classes)
    for chunk, out in zip(queries.split(1024), scores.split(1024), strict=True):
        similarity, nearest = (chunk @ bank.T).topk(min(k, len(bank)), dim=1)
        # Relative to the nearest one: the ratio of votes is the same, and nothing overflows at small temperatures.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        out.scatter_add_(1, labels[nearest], weight)
    return scores
