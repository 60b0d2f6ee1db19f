"""k-nearest-neighbour classification: the weighted vote of the nearest labelled images."""

from math import inf

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.features.nearest_neighbours import nearest


def vote(
    similarity: Float[Tensor, "m neighbours"],
    index: Int[Tensor, "m neighbours"],
    labels: Int[Tensor, " n"],
    *,
    classes: int,
    k: int,
    temperature: float,
) -> Float[Tensor, "m classes"]:
    """Computes the score of each class: the sum of ``exp(cosine / temperature)`` over its images among k neighbours.

    The scores of a query are divided by the vote of its nearest neighbour: their ratios are the same, and nothing
    overflows. A class without an image among the neighbours has a score of 0, and any other a positive one, however
    small its share is; :func:`rank_voted` leaves the former out of a ranking.

    Args:
        similarity: Cosines of the neighbours, from :func:`nearest`. One search for the largest k serves all smaller k.
        index: Rows of the neighbours in the bank, from :func:`nearest`.
        labels: Classes of the bank's rows.
        classes: Number of classes.
        k: Neighbours that vote; all of them if there are fewer.
        temperature: Temperature of the weights.
    """
    weight = ((similarity[:, :k] - similarity[:, :1]) / temperature).exp()
    weight = weight.clamp_min(torch.finfo(weight.dtype).tiny)  # at a low temperature it would vanish
    scores, label = weight.new_zeros(len(weight), classes), labels[index[:, :k]]
    # One neighbour of each query at a time: the order of the sums is the same on every device.
    for class_of_one, weight_of_one in zip(label.split(1, dim=1), weight.split(1, dim=1), strict=True):
        scores.scatter_add_(1, class_of_one, weight_of_one)
    return scores


def rank_voted(votes: Float[Tensor, "m classes"]) -> Float[Tensor, "m classes"]:
    """Returns the scores of :func:`vote` with minus infinity for each class that got no vote.

    Such a class is no answer, at whatever rank: with one neighbour, top-5 accuracy is top-1 accuracy.
    """
    return votes.masked_fill(votes == 0, -inf)


def knn_scores(
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "m classes"]:
    """Computes the score of each class for each query, by :func:`nearest` and :func:`vote`.

    This is the protocol of DINO's evaluation, which MIRA's Table 3 follows.

    Args:
        bank: Features of the labelled images.
        labels: Their classes.
        queries: Features of the images to classify.
        classes: Number of classes.
        k: Neighbours that vote; all of a smaller bank.
        temperature: Temperature of the weights.
    """
    return vote(*nearest(bank, queries, k), labels, classes=classes, k=k, temperature=temperature)
