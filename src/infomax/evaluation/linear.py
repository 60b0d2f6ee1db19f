"""A linear classifier on frozen features: multinomial logistic regression, solved to its optimum."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
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
    if penalty is None:
        held_out = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(classes):
            held_out[(labels == label).nonzero()[4::5]] = True
        few = not held_out.any()  # then there is nothing to choose by
        penalty = FEW_PENALTY if few else max(PENALTIES, key=lambda p: _accuracy(train, labels, held_out, classes, p))
    weight, bias = logistic_regression(train, labels, classes=classes, penalty=penalty)
    return test @ weight.T + bias, penalty


def _accuracy(x: Tensor, labels: Tensor, held_out: Tensor, classes: int, penalty: float) -> float:
    weight, bias = logistic_regression(x[~held_out], labels[~held_out], classes=classes, penalty=penalty)
    return float(((x[held_out] @ weight.T + bias).argmax(1) == labels[held_out]).float().mean())


@torch.enable_grad()
def logistic_regression(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, classes: int, penalty: float
) -> tuple[Float[Tensor, "classes d"], Float[Tensor, " classes"]]:
    """Weights and bias that minimise the mean cross-entropy plus ``penalty / 2`` times the sum of squared weights."""
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)  # pyrefly: ignore[bad-argument-type]
    return weight.detach(), bias.detach()
