"""k-nearest-neighbour classification: the weighted vote of the nearest labelled images."""

from jaxtyping import Float, Int
from torch import Tensor

from infomax.features.nearest_neighbours import nearest


def vote(
    similarity: Float[Tensor, "m found"],
    index: Int[Tensor, "m found"],
    labels: Int[Tensor, " n"],
    *,
    classes: int,
    k: int,
    temperature: float,
) -> Float[Tensor, "m classes"]:
    """Score of each class: the sum of ``exp(cosine / temperature)`` over those of the first k neighbours.

    Divided by the nearest one's, for each query: the ratio of votes is the same, and nothing overflows.

    Args:
        similarity: Of :func:`nearest`, as the next one. One search for the largest k serves all smaller ones.
        index: Rows of the bank.
        labels: Classes of the bank's rows.
        classes: Number of classes.
        k: Neighbours that vote; all, if fewer were found.
        temperature: Of the weights.
    """
    weight = ((similarity[:, :k] - similarity[:, :1]) / temperature).exp()
    scores, label = weight.new_zeros(len(weight), classes), labels[index[:, :k]]
    # One neighbour of each query at a time: the order of the sums is the same on every device.
    for one, its in zip(label.split(1, dim=1), weight.split(1, dim=1), strict=True):
        scores.scatter_add_(1, one, its)
    return scores


def knn_scores(
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "m classes"]:
    """Score of each class for each query: see :func:`nearest` and :func:`vote`.

    The protocol of DINO's evaluation, which MIRA's Table 3 follows.

    Args:
        bank: Features of the labelled images.
        labels: Their classes.
        queries: Features of the images to classify.
        classes: Number of classes.
        k: Neighbours that vote; all of a smaller bank.
        temperature: Of the weights.
    """
    return vote(*nearest(bank, queries, k), labels, classes=classes, k=k, temperature=temperature)
