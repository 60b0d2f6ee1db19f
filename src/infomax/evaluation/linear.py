"""A linear classifier on frozen features: multinomial logistic regression, solved to its optimum."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from infomax.evaluation.scores import top_k

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # from strong to weak, so that each solution starts the next
FEW_PENALTY = 1e-2
RADIUS = 10.0

Solution = tuple[Float[Tensor, "classes d"], Float[Tensor, " classes"]]


def linear_scores(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    classes: int,
    penalty: float | None = None,
) -> tuple[Float[Tensor, "m classes"], float]:
    """Class scores of ``test`` by logistic regression on ``train``, and the penalty on the squared weights.

    Args:
        train: Features of the labelled images. Both sets are centred at their mean and scaled by one number, so that
            the penalty means the same for every encoder and distances keep their proportions.
        labels: Their classes.
        test: Features of the images to classify.
        classes: Number of classes.
        penalty: lambda of :func:`logistic_regression`. None chooses among powers of ten on every fifth training
            image of each class, never on ``test``, and then fits to all of ``train``;
            0.01 where no class has five.
    """
    mean = train.mean(0)
    scale = RADIUS / (train - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
    train, test = (train - mean) * scale, (test - mean) * scale
    start = None
    if penalty is None:
        penalty, start = _choose(train, labels, classes)
    weight, bias = logistic_regression(train, labels, classes=classes, penalty=penalty, start=start)
    return test @ weight.T + bias, penalty


def _choose(x: Tensor, labels: Tensor, classes: int) -> tuple[float, Solution | None]:
    """The penalty that does best on every fifth image of each class, and the solution for the others."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        held_out[(labels == label).nonzero()[4::5]] = True
    if not held_out.any():  # nothing to choose by
        return FEW_PENALTY, None
    best, chosen, start = -1.0, (FEW_PENALTY, None), None
    for penalty in PENALTIES:
        start = logistic_regression(x[~held_out], labels[~held_out], classes=classes, penalty=penalty, start=start)
        accuracy = top_k(x[held_out] @ start[0].T + start[1], labels[held_out])
        if accuracy > best:
            best, chosen = accuracy, (penalty, start)
    return chosen


@torch.enable_grad()
def logistic_regression(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, classes: int, penalty: float, start: Solution | None = None
) -> Solution:
    """Weights and bias that minimise the mean cross-entropy plus ``penalty / 2`` times the sum of squared weights.

    ``start`` is where the search begins, not where it ends: the problem is convex.
    """
    weight, bias = start or (x.new_zeros(classes, x.shape[1]), x.new_zeros(classes))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)  # pyrefly: ignore[bad-argument-type]
    return weight.detach(), bias.detach()
