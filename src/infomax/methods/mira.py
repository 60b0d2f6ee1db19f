"""MIRA: "Unsupervised Visual Representation Learning via Mutual Information Regularized Assignment",
Lee, Choi, Kim, Chung, arXiv 2211.02284.

Pseudo-labels are the optimum of a convex problem (Eq. 4): stay close to the teacher's predictions, and carry as much
information about the image as possible. The student predicts the labels of one view from the other views (Eq. 8).
"""

import warnings
from collections.abc import Iterable, Sequence
from functools import reduce
from math import ceil, isfinite, log, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision, row_blocks, soft_cross_entropy
from infomax.methods.base import Loss, Method, Progress, Views, others
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Prototypes, Teacher, mlp
from infomax.nn.schedules import cosine
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_logmeanexp, global_max, global_mean, global_sum

# While exponents stay within 68 nats, all that the linear form computes lies between exp(-68)/K and K B exp(68), within
# float32 for K B up to 10^8. It costs a tenth of the log-domain form.
LINEAR_RANGE = 68.0
COSINES = 2.0  # the range of logits in training, which is known without reading the device
ACCELERATED = 0.9  # the largest beta for which acceleration converged from wherever it was tried to start


def assign(
    logits: Float[Tensor, "b k"], *, temperature: float = 0.225, beta: float = 2 / 3, iterations: int | None = None
) -> Float[Tensor, "b k"]:
    """Pseudo-labels: the minimiser of Eq. 4 over the global batch, by the fixed point of Eqs. 5 and 7. No gradient.

    The exponent in the loop is -beta/(1 - beta) as in Eq. 7; the paper's Algorithm 1 prints -beta, which solves another
    problem (docs/decisions.md, mira-exponent).

    Args:
        logits: Teacher logits, one row an image; cosines in [-1, 1] in the paper, but any finite values will do.
        temperature: Of the teacher's softmax.
        beta: Weight of the mutual information, in [0, 1). 0 returns the softmax itself.
        iterations: Of Eq. 7, after a first one from u = 1, as in the official code. The error falls at least as fast
            as beta^iterations; a warning says where that is slow. None goes to the limit, as far as the precision of
            ``logits`` tells it apart, in fewer, accelerated iterations (mira-limit), for beta up to 0.9.

    Returns:
        Targets; each row is non-negative and sums to 1.

    Raises:
        ValueError: naming the argument that is out of range, or not finite.
    """
    low, high = check_rows("logits", logits)
    check_assignment(temperature, beta, iterations)
    spread, scale = float(global_max(high.double()) + global_max(-low.double())), temperature * (1 - beta)
    if not isfinite(spread / scale):
        raise ValueError(f"temperature={temperature:.3g} is too small for logits that span {spread:.3g}")
    precision = torch.promote_types(logits.dtype, torch.float32)
    onwards = _chebyshev_weights(beta, _chebyshev_iterations(beta, precision) if iterations is None else 0)
    return _fixed_points([logits], scale, beta, iterations or 0, onwards, spread / scale <= LINEAR_RANGE)[0]


def check_assignment(temperature: float, beta: float, iterations: int | None) -> None:
    """Refuse settings of :func:`assign` that are out of range; warn where the iterations cannot have converged."""
    check_number("temperature", temperature, low=0, open_low=True)
    check_number("beta", beta, low=0, high=1)
    if iterations is None:
        if beta > ACCELERATED:
            raise ValueError(
                f"iterations must be given, as iterations=30, where beta is above {ACCELERATED}: it is {beta:.4g}"
            )
        return
    check_count("iterations", iterations, low=0)
    if (left := beta ** (iterations + 1)) > 2e-4:
        warnings.warn(
            f"iterations={iterations} may leave MIRA's targets unconverged at beta={beta:.4g}: "
            f"the bound on the error, which shrinks by beta an iteration, is still {left:.1g} of its start",
            stacklevel=3,
        )


def _chebyshev_iterations(beta: float, dtype: torch.dtype) -> int:
    """Iterations to the limit, as far as a precision tells it apart.

    At the fixed point the derivative of Eq. 7's map of log u is beta times a stochastic matrix that is similar to a
    symmetric, positive semi-definite one: its eigenvalues are real, within [0, beta]. Of all iterations of such a map
    Chebyshev's has the least error, 2 rate^n where plain iteration has beta^n (Golub and Varga 1961).
    """
    if beta == 0:
        return 0
    rate = beta / (1 + sqrt(1 - beta)) ** 2
    return ceil(log(0.5 / torch.finfo(dtype).eps) / -log(rate))


def _chebyshev_weights(beta: float, count: int) -> list[float]:
    """How far each of Chebyshev's iterations goes on from the point before."""
    found, omega = [1.0] * count, 2.0  # where the recursion starts, though its first step has 1
    for number in range(1, count):
        found[number] = omega = 1 / (1 - (beta / (2 - beta)) ** 2 * omega / 4)
    return found


@torch.no_grad()
@full_precision
def _fixed_points(
    logits: Sequence[Tensor],
    scale: float | Tensor,
    beta: float | Tensor,
    plain: int,
    onwards: Sequence[float | Tensor],
    linear: bool,
) -> list[Tensor]:
    """Eqs. 5 and 7 for p^(1/(1-beta)), which up to a factor per row is the softmax of ``logits / scale``.

    For the logits of several views, each on its own, in step, so that an iteration is one collective: a first one and
    ``plain`` more as they stand, then an accelerated one for each of ``onwards``. ``linear`` says which of two equal
    forms is computed; a bound on the range of the logits decides it, never the data.
    """
    dtype = logits[0].dtype
    # Far outside float32's exponents float32 logits have too few digits too: beta = 0.99 multiplies them by hundreds.
    wide, softmax = (dtype, torch.softmax) if linear else (torch.float64, torch.log_softmax)
    q = torch.empty(len(logits), *logits[0].shape, dtype=wide, device=logits[0].device)
    sums, before = q.new_zeros(2, len(q), q.shape[2])
    for x, view, total in zip(q, logits, sums, strict=True):
        for into, rows in row_blocks(x, view):
            softmax(rows.to(wide) / scale, 1, out=into)
            if linear:
                total += into.sum(0)
    beta, *onwards = (x.to(wide) if isinstance(x, Tensor) else x for x in (beta, *onwards))
    # a is the logarithm of u^(-beta/(1-beta)), but for a constant. Where u is 1 so is each sum over clusters.
    a = (global_sum(sums).log() if linear else _log_column_sums_of_logs(q, before)) * -beta
    for onward in [*[None] * plain, *onwards]:
        found = (_log_column_sums if linear else _log_column_sums_of_logs)(q, a) * -beta
        if onward is not None:
            found = torch.lerp(before, torch.lerp(a, found, 2 / (2 - beta)), onward)
        a, before = found, a
    if not linear:
        return list((q + a.unsqueeze(1)).softmax(2).to(dtype))
    for x, v in zip(q, a.softmax(1), strict=True):
        for (rows,) in row_blocks(x):
            rows.div_((rows @ v).unsqueeze(1)).mul_(v)  # in place: on a CPU fresh memory costs more than the arithmetic
    return list(q)


def _log_column_sums(q: Float[Tensor, "v b k"], a: Float[Tensor, "v k"]) -> Float[Tensor, "v k"]:
    """Of each view, ``log sum_i q_ij / <q_i, exp a>``, but for a constant."""
    v = a.softmax(1)  # with weights of sum 1, no <q_i, v> is beyond the least and the largest of q
    if q.is_cuda or torch.compiler.is_compiling():  # all views at once: on a GPU the number of operations counts
        return global_sum(((q @ v.unsqueeze(2)).reciprocal_().mT @ q).squeeze(1)).log()
    sums = torch.zeros_like(v)
    for view, powers, total in zip(q, v, sums, strict=True):
        for (rows,) in row_blocks(view):
            total.addmv_(rows.T, (rows @ powers).reciprocal_())
    return global_sum(sums).log()


def _log_column_sums_of_logs(log_q: Float[Tensor, "v b k"], a: Float[Tensor, "v k"]) -> Float[Tensor, "v k"]:
    row = (log_q + a.unsqueeze(1)).logsumexp(2, keepdim=True)
    return global_logmeanexp(torch.cat(list(log_q - row), dim=1)).view_as(a)


def swapped_prediction_loss(
    student_logits: Sequence[Float[Tensor, "b k"]],
    targets: Sequence[Float[Tensor, "b k"]],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Each crop predicts the targets of the other crops' images: Eq. 8, averaged over targets and crops. In nats.

    ``1/M sum_m 1/(V-1) sum_{c != m} CE(targets[m], student_logits[c])``: half of Eq. 8 for two crops, as in the
    official code (docs/decisions.md, mira-loss-scale).

    Args:
        student_logits: Of V crops; the first M are those that the targets were computed from.
        targets: Of the first M crops; 2 in the paper, at least. Held constant.
        temperature: Of the student's softmax.
    """
    if len(targets) < 2:
        raise ValueError(f"targets must be those of the first two crops or more, but there are {len(targets)}")
    if len(student_logits) < len(targets):
        raise ValueError(
            f"student_logits must hold the {len(targets)} crops of the targets, but has {len(student_logits)}"
        )
    check_number("temperature", temperature, low=0, open_low=True)
    for position, target in enumerate(targets):
        check_rows(f"targets[{position}]", target, like=targets[0])
    for crop, logits in enumerate(student_logits):
        check_rows(f"student_logits[{crop}]", logits, like=targets[0])
    return _swapped_prediction_loss(student_logits, targets, temperature)


@full_precision
def _swapped_prediction_loss(student_logits: Sequence[Tensor], targets: Sequence[Tensor], temperature: float) -> Tensor:
    # Cross-entropy is linear in its target, so a crop that predicts several targets needs one softmax, not several.
    losses = []
    for crop, logits in enumerate(student_logits):
        target = reduce(torch.add, [targets[view] for view in others(crop, len(targets))])
        losses.append(soft_cross_entropy(logits, target, temperature))
    return global_mean(torch.stack(losses).sum(0)) / (len(targets) * (len(student_logits) - 1))


class Mira(Method):
    """MIRA's student, its prototypes, and the teacher that makes the targets.

    Args:
        encoder: Images to features.
        hidden, dimension: Widths of the projector's hidden layers and of its output.
        prototypes: K, the number of clusters.
        student_temperature, teacher_temperature, beta, iterations: As in :func:`assign` and the loss.
        beta_start: Of the cosine that ends at ``beta`` (appendix A.4.1).
        momentum: Of the teacher's moving average at the start; a cosine raises it to 1. None trains without a teacher:
            the targets are then those of the student's own detached logits (Algorithm 1).
        freeze_prototypes_epochs: Epochs at the start in which the prototypes stay as they were drawn.
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
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("prototypes", prototypes)):
            check_count(name, width, low=1)
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
        return [self.prototypes(z) for z in self.each(self._student, [*views.global_crops, *views.local_crops])]

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return [] if self.teacher is None else [self.prototypes(z) for z in self.each(self.teacher, views.global_crops)]

    @property
    def _largest_beta(self) -> float:
        """Decides what all steps of a run compute, whatever their own."""
        return max(self.beta, self.beta_start)

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        beta, dtype = cosine(self.beta_start, self.beta, progress.fraction), self.prototypes.weight.dtype
        return beta, *_chebyshev_weights(
            beta, _chebyshev_iterations(self._largest_beta, dtype) if self.iterations is None else 0
        )

    def compute_loss(self, online: list[Tensor], target: list[Tensor], numbers: Iterable[float | Tensor]) -> Loss:
        beta, *onwards = numbers
        scale, plain = self.teacher_temperature * (1 - beta), self.iterations or 0
        linear = COSINES / (self.teacher_temperature * (1 - self._largest_beta)) <= LINEAR_RANGE
        targets = _fixed_points(target or online[: self.global_views], scale, beta, plain, onwards, linear)
        loss = _swapped_prediction_loss(online, targets, self.student_temperature)
        return Loss(loss, {"target_information": _mutual_information(targets[0])})

    def after_backward(self, progress: Progress) -> None:
        if progress.epoch < self.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.ema_update(self._student, progress.fraction)


@torch.no_grad()
def _mutual_information(assignment: Tensor) -> Tensor:
    """Between cluster and image under this assignment (Eq. 2), in nats: at most the logarithm of the cluster count."""
    marginal = global_mean(assignment)
    given = torch.cat([(rows * rows.clamp_min(1e-30).log()).sum(1) for (rows,) in row_blocks(assignment)])
    return global_mean(given) - torch.xlogy(marginal, marginal).sum()
