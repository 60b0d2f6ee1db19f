"""MIRA: "Unsupervised Visual Representation Learning via Mutual Information Regularized Assignment",
Lee, Choi, Kim, Chung, arXiv 2211.02284.

Pseudo-labels are the optimum of a convex problem (Eq. 4): stay close to the teacher's predictions, and carry as much
information about the image as possible. The student predicts the labels of one view from the other views (Eq. 8).
"""

import warnings
from collections.abc import Iterable, Sequence
from math import ceil, isfinite, log, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision, row_blocks, swapped_cross_entropy
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.balancing import COSINE_RANGE, LinearForm, LogForm, fits_linear_form, sinkhorn_knopp
from infomax.nn.blocks import Prototypes, Teacher, mlp
from infomax.nn.schedules import cosine
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_max, global_mean

MAX_ACCELERATED_BETA = 0.9  # acceleration converged from every start that was tried, up to this beta
PAPER_ITERATIONS = 30
PROBABILITY_ERROR = 1e-2  # by which rounding in half precision may leave 0 to 1


def assign(
    logits: Float[Tensor, "b k"], *, temperature: float = 0.225, beta: float = 2 / 3, iterations: int | None = None
) -> Float[Tensor, "b k"]:
    """Computes the pseudo-labels: the minimiser of Eq. 4 over the global batch, by the fixed point of Eqs. 5 and 7.

    The exponent in the loop is -beta/(1 - beta) as in Eq. 7. The paper's Algorithm 1 prints -beta there; its targets
    minimise neither Eq. 4 nor the other problem that its loop solves (docs/decisions.md, mira-exponent). No gradient
    flows through the result.

    Args:
        logits: The teacher's logits, [B, K], one row an image. In the paper they are cosines in [-1, 1]; any finite
            values will do.
        temperature: The temperature of the teacher's softmax, above 0.
        beta: The weight of the mutual information, in [0, 1). With 0 the result is the softmax itself.
        iterations: The number of iterations of Eq. 7 after a first one from u = 1, as in the official code. The error
            falls at least as fast as beta^iterations; a warning tells if that is not enough. None goes to the limit, as
            far as the precision of ``logits`` resolves it, by fewer, accelerated iterations, for beta up to 0.9; above,
            it takes the paper's 30 (docs/decisions.md, mira-limit).

    Returns:
        The targets, [B, K]; each row is non-negative and sums to 1.

    Raises:
        ValueError: If ``logits`` is not a finite floating-point matrix, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.mira import assign
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
        >>> (logits / 0.225).softmax(1)  # all images prefer the first cluster
        tensor([[0.9722, 0.0278],
                [0.9350, 0.0650],
                [0.7087, 0.2913],
                [0.6093, 0.3907]])
        >>> assign(logits).round(decimals=3)  # surer of each image, and more even over the clusters
        tensor([[1.0000, 0.0000],
                [0.9970, 0.0030],
                [0.6410, 0.3590],
                [0.3200, 0.6800]])
    """
    low, high = check_rows("logits", logits)
    if iterations is None and beta > MAX_ACCELERATED_BETA:
        iterations = PAPER_ITERATIONS
    check_assignment(temperature, beta, iterations)
    spread, scale = float(global_max(high.double()) + global_max(-low.double())), temperature * (1 - beta)
    if not isfinite(spread / scale):
        raise ValueError(f"temperature={temperature:.3g} is too small for logits that span {spread:.3g}")
    precision = torch.promote_types(logits.dtype, torch.float32)
    chebyshev_weights = _chebyshev_weights(beta, _chebyshev_iterations(beta, precision) if iterations is None else 0)
    linear_form = fits_linear_form(spread / scale, precision)
    return _fixed_points([logits], scale, beta, iterations or 0, chebyshev_weights, linear_form)[0]


@full_precision
def assignment_objective(
    assignments: Float[Tensor, "b k"],
    logits: Float[Tensor, "b k"],
    *,
    temperature: float = 0.225,
    beta: float = 2 / 3,
) -> Float[Tensor, ""]:
    """Computes what MIRA's pseudo-labels minimise, over the global batch, in nats (Eqs. 1 and 4).

    ``1/B sum_i KL(w_i || p_i) - beta I(W)``, where p is the softmax of the logits over the temperature, and I the
    mutual information between cluster and image under the assignments W (Eq. 2). :func:`assign` returns its minimum,
    and :func:`assign_evenly` that among assignments which use all clusters evenly. It is computed in float64.

    Args:
        assignments: The assignments, [B, K], one row an image: not negative, each row of sum 1. Gradients flow to them,
            minus infinity where one is 0.
        logits: The teacher's logits, [B, K]; gradients flow to them.
        temperature: The temperature of the teacher's softmax, above 0.
        beta: The weight of the mutual information, in [0, 1).

    Returns:
        The objective, a scalar of the type of ``assignments``.

    Raises:
        ValueError: If a matrix is not finite or they differ in shape, a row of the assignments is no distribution, or a
            number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.mira import assign, assignment_objective
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
        >>> softmax, even = (logits / 0.225).softmax(1), torch.full((4, 2), 0.5)
        >>> [round(assignment_objective(w, logits).item(), 4) for w in (assign(logits), softmax, even)]
        [-0.0996, -0.0544, 0.4851]
    """
    low, _ = check_rows("assignments", assignments)
    check_rows("logits", logits, like=assignments)
    check_number("temperature", temperature, low=0, open_low=True)
    check_number("beta", beta, low=0, high=1)
    w = assignments.double()
    if low < 0 or float((w.detach().sum(1) - 1).abs().max()) > PROBABILITY_ERROR:
        raise ValueError(f"assignments must be distributions, rows of sum 1, but have values from {float(low):.3g}")
    log_p = (logits.double() / temperature).log_softmax(1)
    # KL and I have -H(W) in common, which is one term here: apart, the gradient would be NaN where an assignment is 0.
    divergence = global_mean(((beta - 1) * torch.special.entr(w) - w * log_p).sum(1))
    return (divergence - beta * torch.special.entr(global_mean(w)).sum()).to(assignments.dtype)


def assign_evenly(
    logits: Float[Tensor, "b k"], *, temperature: float = 0.225, beta: float = 2 / 3, iterations: int = 30
) -> Float[Tensor, "b k"]:
    """Computes the minimiser of Eq. 4 among assignments that use all clusters evenly over the global batch.

    The marginal is then a constant, and what is left is the transport problem of SwAV with epsilon = temperature
    (1 - beta) (footnote 4), which Sinkhorn-Knopp's iteration solves. No gradient flows through the result.

    Args:
        logits: The teacher's logits, [B, K], one row an image.
        temperature: The temperature of the teacher's softmax, above 0.
        beta: The weight of the mutual information, in [0, 1).
        iterations: The number of iterations, at least 1. Each makes the clusters even and then the rows sum to 1; after
            few of them, the clusters are not yet even.

    Returns:
        The targets, [B, K]; each row sums to 1, and each column to B/K in the limit.

    Raises:
        ValueError: If ``logits`` is not a finite floating-point matrix, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.mira import assign_evenly
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
        >>> assign_evenly(logits, iterations=100).sum(0).round(decimals=3)  # where assign gives 2.961 and 1.039
        tensor([2., 2.])
    """
    low, high = check_rows("logits", logits)
    check_number("temperature", temperature, low=0, open_low=True)
    check_number("beta", beta, low=0, high=1)
    check_count("iterations", iterations, low=1)
    largest, scale = float(global_max(torch.maximum(high, -low).double())), temperature * (1 - beta)
    return _even_targets([logits], scale, iterations, fits_linear_form(2 * largest / scale, logits.dtype))[0]


@torch.no_grad()
@full_precision
def _even_targets(logits: Sequence[Tensor], scale: float | Tensor, iterations: int, linear_form: bool) -> list[Tensor]:
    """Computes the targets of several views by Sinkhorn-Knopp's iteration, each view on its own.

    Args:
        logits: The logits of each view, [B, K].
        scale: ``temperature * (1 - beta)``, SwAV's epsilon.
        iterations: The number of iterations.
        linear_form: As in :func:`_fixed_points`.
    """
    return sinkhorn_knopp((LinearForm if linear_form else LogForm)(logits, scale), iterations)


def check_assignment(temperature: float, beta: float, iterations: int | None) -> None:
    """Checks the settings of :func:`assign`, and warns if the iterations cannot have converged.

    Args:
        temperature: The temperature of the teacher's softmax.
        beta: The weight of the mutual information.
        iterations: The number of iterations, or None for the limit.

    Raises:
        ValueError: If a setting is out of range, or ``iterations`` is missing with a beta above 0.9.
    """
    check_number("temperature", temperature, low=0, open_low=True)
    check_number("beta", beta, low=0, high=1)
    if iterations is None:
        if beta > MAX_ACCELERATED_BETA:
            raise ValueError(
                f"iterations must be given, as iterations=30, if beta is above {MAX_ACCELERATED_BETA}: it is {beta:.4g}"
            )
        return
    check_count("iterations", iterations, low=0)
    if (error_bound := beta ** (iterations + 1)) > 2e-4:
        warnings.warn(
            f"iterations={iterations} may leave MIRA's targets unconverged at beta={beta:.4g}: "
            f"the bound on the error, which shrinks by beta an iteration, is still {error_bound:.1g} of its start",
            stacklevel=3,
        )


def _chebyshev_iterations(beta: float, dtype: torch.dtype) -> int:
    """Returns the number of accelerated iterations that reach the limit, as far as ``dtype`` resolves it.

    At the fixed point the derivative of Eq. 7's map of log u is beta times a stochastic matrix that is similar to a
    symmetric, positive semi-definite one: its eigenvalues are real, within [0, beta]. Of all iterations of such a map
    Chebyshev's has the least error, 2 rate^n, where plain iteration has beta^n (Golub and Varga 1961).
    """
    if beta == 0:
        return 0
    rate = beta / (1 + sqrt(1 - beta)) ** 2
    return ceil(log(0.5 / torch.finfo(dtype).eps) / -log(rate))


def _chebyshev_weights(beta: float, count: int) -> list[float]:
    """Returns the extrapolation weight of each Chebyshev iteration, relative to the point before the last."""
    weights, omega = [1.0] * count, 2.0  # the recursion starts from 2, though the first iteration has weight 1
    for iteration in range(1, count):
        weights[iteration] = omega = 1 / (1 - (beta / (2 - beta)) ** 2 * omega / 4)
    return weights


@torch.no_grad()
@full_precision
def _fixed_points(
    logits: Sequence[Tensor],
    scale: float | Tensor,
    beta: float | Tensor,
    plain_iterations: int,
    chebyshev_weights: Sequence[float | Tensor],
    linear_form: bool,
) -> list[Tensor]:
    """Computes the targets of several views by Eqs. 5 and 7, each view on its own.

    The views iterate in step, so that an iteration is one collective. There is a first iteration from u = 1, then
    ``plain_iterations``, then an accelerated one for each of ``chebyshev_weights``.

    Args:
        logits: The logits of each view, [B, K].
        scale: ``temperature * (1 - beta)``: the softmax of ``logits / scale`` is p^(1/(1-beta)) of Eq. 5, up to a
            factor per row.
        beta: The weight of the mutual information.
        plain_iterations: The number of iterations of Eq. 7 as it stands.
        chebyshev_weights: The extrapolation weights of the accelerated iterations.
        linear_form: Which of two equal forms is computed: with probabilities, or with their logarithms. A bound on the
            range of the logits decides it, never the data.

    Returns:
        The targets of each view, [B, K].
    """
    columns = (LinearForm if linear_form else LogForm)(logits, scale, normalize_rows=True)
    # log_v is log u^(-beta/(1-beta)), up to a constant. If u is 1, each row's sum over clusters is 1 too.
    sums = columns.log_column_sums(None)
    beta, *chebyshev_weights = (x.to(sums) if isinstance(x, Tensor) else x for x in (beta, *chebyshev_weights))
    log_v, previous = sums * -beta, torch.zeros_like(sums)
    for weight in [*[None] * plain_iterations, *chebyshev_weights]:
        updated = columns.log_column_sums(log_v) * -beta
        if weight is not None:
            updated = torch.lerp(previous, torch.lerp(log_v, updated, 2 / (2 - beta)), weight)
        log_v, previous = updated, log_v
    return columns.assignments(log_v)


def swapped_prediction_loss(
    student_logits: Sequence[Float[Tensor, "b k"]],
    targets: Sequence[Float[Tensor, "b k"]],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Computes the loss with which each crop predicts the targets of the other crops: Eq. 8, averaged, in nats.

    ``1/M sum_m 1/(V-1) sum_{c != m} CE(targets[m], student_logits[c])``. For two crops this is half of Eq. 8, as in the
    official code (docs/decisions.md, mira-loss-scale).

    Args:
        student_logits: The student's logits of V crops, each [B, K]; the first M crops are those that the targets were
            computed from. Gradients flow to them.
        targets: The targets of the first M crops, each [B, K], with M >= 2; 2 in the paper. They are held constant.
        temperature: The temperature of the student's softmax, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If there are fewer than 2 targets or fewer crops than targets, a matrix is not finite or of another
            shape than the first target, a target has values that are no probabilities, or ``temperature`` is not above
            0.

    Example:
        >>> import torch
        >>> from infomax.methods.mira import swapped_prediction_loss
        >>> student_logits = [torch.tensor([[0.2, 0.0]]), torch.tensor([[0.0, 0.2]])]
        >>> targets = [torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])]
        >>> round(swapped_prediction_loss(student_logits, targets).item(), 4)  # each crop predicts the other's target
        0.1269
        >>> round(swapped_prediction_loss(student_logits, targets[::-1]).item(), 4)
        2.1269
    """
    for name, value in (("student_logits", student_logits), ("targets", targets)):
        if isinstance(value, Tensor) and value.ndim < 3:  # one matrix alone, whose rows would be taken for matrices
            raise ValueError(f"{name} must be a list of matrices, one a crop, but is a tensor {[*value.shape]}")
    if len(targets) < 2:
        raise ValueError(f"targets must be those of the first two crops or more, but there are {len(targets)}")
    if len(student_logits) < len(targets):
        raise ValueError(
            f"student_logits must hold the {len(targets)} crops of the targets, but has {len(student_logits)}"
        )
    check_number("temperature", temperature, low=0, open_low=True)
    for position, target in enumerate(targets):
        low, high = check_rows(f"targets[{position}]", target, like=targets[0])
        if low < -PROBABILITY_ERROR or high > 1 + PROBABILITY_ERROR:
            raise ValueError(
                f"targets[{position}] must hold probabilities, as assign returns them, but has values from {low:.3g} "
                f"to {high:.3g}"
            )
    for crop, logits in enumerate(student_logits):
        check_rows(f"student_logits[{crop}]", logits, like=targets[0])
    return swapped_cross_entropy(student_logits, targets, temperature)


class Mira(Method):
    """A method that trains MIRA's student and its prototypes, to predict the targets of an EMA teacher.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        prototypes: The number of clusters, K.
        student_temperature: The temperature of the loss; see :func:`swapped_prediction_loss`.
        teacher_temperature: The temperature of the targets; see :func:`assign`.
        beta: The weight of the mutual information at the end of the run; see :func:`assign`.
        beta_start: Its weight at the start; a cosine leads to ``beta`` (appendix A.4.1).
        iterations: The number of iterations, or None for the limit; see :func:`assign`.
        momentum: The EMA momentum of the teacher at the start; a cosine raises it to 1. None trains without a teacher:
            the targets are then those of the student's own detached logits (Algorithm 1).
        freeze_prototypes_epochs: The number of epochs at the start in which the prototypes keep their initial values.
        equipartition: Whether the targets use all clusters evenly, as SwAV's do; see :func:`assign_evenly`. It needs a
            number of iterations.

    Raises:
        ValueError: If a width or a number is out of range, or ``iterations`` is missing with ``equipartition``.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        prototypes: int,
        student_temperature: float,
        teacher_temperature: float,
        beta: float,
        beta_start: float,
        iterations: int | None,
        momentum: float | None,
        freeze_prototypes_epochs: int,
        equipartition: bool = False,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("prototypes", prototypes)):
            check_count(name, width, low=1)
        if equipartition:
            check_count("iterations, with equipartition,", 0 if iterations is None else iterations, low=1)
        self.equipartition = equipartition
        check_number("student_temperature", student_temperature, low=0, open_low=True)
        check_number("beta_start", beta_start, low=0, high=1)
        check_assignment(teacher_temperature, max(beta, beta_start), iterations)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.beta, self.beta_start, self.iterations = beta, beta_start, iterations
        self.freeze_prototypes_epochs = freeze_prototypes_epochs
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, hidden_bias=False)
        self.prototypes = Prototypes(dimension, prototypes)  # shared by the teacher (decisions: mira-shared-prototypes)
        self.teacher = None if momentum is None else Teacher(self._student, momentum)

    @property
    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector)

    @property
    def eval_encoder(self) -> Encoder:
        return self.encoder if self.teacher is None else self.teacher.module[0]  # pyrefly: ignore

    def cluster_logits(self, features: Tensor) -> Tensor:
        projector: Any = self.projector if self.teacher is None else self.teacher.module[1]  # pyrefly: ignore
        return self.prototypes(projector(features))

    def online(self, views: Views) -> list[Tensor]:
        embeddings = self.forward_each(self._student, views.crops)
        return [self.prototypes(z) for z in embeddings]

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        if self.teacher is None:
            return []
        return [self.prototypes(z) for z in self.forward_each(self.teacher, views.global_crops)]

    @full_precision
    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        return [(logits / self.student_temperature).softmax(1) for logits in online]

    @property
    def _largest_beta(self) -> float:
        """Returns the largest beta of the run, which decides the form and the number of iterations of all its steps."""
        return max(self.beta, self.beta_start)

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns beta, and the weights of the accelerated iterations, which depend on it."""
        beta, dtype = cosine(self.beta_start, self.beta, progress.fraction), self.prototypes.weight.dtype
        count = _chebyshev_iterations(self._largest_beta, dtype) if self.iterations is None else 0
        return beta, *_chebyshev_weights(beta, count)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        beta, *chebyshev_weights = schedule_values
        scale, plain_iterations = self.teacher_temperature * (1 - beta), self.iterations or 0
        teacher_logits = target or online[: self.global_crop_count]
        exponent_range = COSINE_RANGE / (self.teacher_temperature * (1 - self._largest_beta))
        linear_form = fits_linear_form(exponent_range, teacher_logits[0].dtype)
        if self.equipartition:
            targets = _even_targets(teacher_logits, scale, plain_iterations, linear_form)
        else:
            targets = _fixed_points(teacher_logits, scale, beta, plain_iterations, chebyshev_weights, linear_form)
        loss = swapped_cross_entropy(online, targets, self.student_temperature)
        return Loss(loss, {"target_information": _mutual_information(targets[0])})

    def after_backward(self, progress: Progress) -> None:
        if progress.epoch < self.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.ema_update(self._student, progress.fraction)


@torch.no_grad()
def _mutual_information(assignment: Tensor) -> Tensor:
    """Computes the mutual information between cluster and image under an assignment (Eq. 2), in nats.

    Args:
        assignment: Rows that sum to 1, [B, K].

    Returns:
        A scalar of at most log K.
    """
    marginal = global_mean(assignment)
    negentropies = torch.cat([(rows * rows.clamp_min(1e-30).log()).sum(1) for (rows,) in row_blocks(assignment)])
    return global_mean(negentropies) - torch.xlogy(marginal, marginal).sum()
