"""A linear classifier on frozen features: multinomial logistic regression, solved to its optimum."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.evaluation.logistic import logistic_path
from infomax.evaluation.scores import top_k

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FEW_PENALTY = 1e-2
RADIUS = 10.0


def linear_scores(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    classes: int,
    penalty: float | None = None,
) -> tuple[Float[Tensor, "m classes"], float]:
    """Fits logistic regression to ``train`` and computes the class scores of ``test``.

    Args:
        train: Features of the labelled images. Both sets are centred at their mean and scaled by one number, so that
            the penalty means the same for every encoder and distances keep their proportions.
        labels: Their classes.
        test: Features of the images to classify.
        classes: Number of classes.
        penalty: Penalty on half the squared weights, beside the mean cross-entropy. None chooses among powers of ten on
            every fifth training image of each class, never on ``test``, and then fits to all of ``train``; it takes
            0.01 if no class has five images.

    Returns:
        The class scores, and the penalty.
    """
    train, test = train.float(), test.float()
    mean = train.mean(0)
    scale = RADIUS / (train - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
    train, test = (train - mean) * scale, (test - mean) * scale
    if penalty is None:
        penalty = _choose(train, labels, classes)
    fit = logistic_path(train, labels, classes=classes, penalties=[penalty * len(train)])[0]
    return fit.scores(test).float(), penalty


def _choose(x: Tensor, labels: Tensor, classes: int) -> float:
    """Returns the penalty that does best on every fifth image of each class."""
    held_out = torch.zeros(len(labels), dtype=torch.bool, device=x.device)
    for label in range(classes):
        held_out[(labels == label).nonzero()[4::5]] = True
    if not held_out.any():  # nothing to choose by
        return FEW_PENALTY
    train, validation = x[~held_out], x[held_out]
    path = logistic_path(train, labels[~held_out], classes=classes, penalties=[p * len(train) for p in PENALTIES])
    accuracies = [top_k(fit.scores(validation), labels[held_out]) for fit in path]
    return PENALTIES[accuracies.index(max(accuracies))]
