"""MIRA: "Unsupervised Visual Representation Learning via Mutual Information Regularized Assignment",
Lee, Choi, Kim, Chung, arXiv 2211.02284.

Pseudo-labels are the optimum of a convex problem (Eq. 4): stay close to the teacher's predictions, and carry as much
information about the image as possible. The student predicts the labels of one view from the other views (Eq. 8).
"""

import warnings
from collections.abc import Sequence
from functools import reduce
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from infomax.arguments import check_count, check_number
from infomax.distributed import global_count, global_logmeanexp, global_max, global_mean, global_sum
from infomax.encoders import Encoder
from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views, others
from infomax.nn import Prototypes, Teacher, mlp
from infomax.schedules import cosine

# While exponents stay within 68 nats, no product, sum or quotient of the linear form can leave float32: its entries lie
# between exp(-68)/K and K B exp(68), with K B up to 10^8. It costs a tenth of the log-domain form.
LINEAR_RANGE = 68.0


@torch.no_grad()
def assign(
    logits: Float[Tensor, "b k"], *, temperature: float = 0.225, beta: float = 2 / 3, iterations: int = 30
) -> Float[Tensor, "b k"]:
    """Pseudo-labels: the minimiser of Eq. 4 over the global batch, by the fixed point of Eqs. 5 and 7. No gradient.

    The iteration starts from one step of Eq. 7 at u = 1, as the official code does, so ``iterations=0`` is that step.
    The exponent in the loop is -beta/(1 - beta) as in Eq. 7; the paper's Algorithm 1 prints -beta, which solves another
    problem (docs/decisions.md, mira-exponent).

    Args:
        logits: Teacher logits, one row an image; cosines in [-1, 1] in the paper, but any finite values will do.
        temperature: Of the teacher's softmax.
        beta: Weight of the mutual information, in [0, 1). 0 returns the softmax itself.
        iterations: Of Eq. 7. The error falls at least as fast as beta^iterations; a warning says where that is slow.

    Returns:
        Targets; each row is non-negative and sums to 1.

    Raises:
        ValueError: naming the argument that is out of range, or not finite.
    """
    check_rows("logits", logits)
    check_assignment(temperature, beta, iterations)
    low, high = logits.aminmax()
    spread = float(global_max(high) + global_max(-low))
    if not isfinite(spread / (temperature * (1 - beta))):
        raise ValueError(f"temperature={temperature:.3g} is too small for logits that span {spread:.3g}")
    return _fixed_points([logits], temperature * (1 - beta), beta, iterations, spread)[0]


def check_assignment(temperature: float, beta: float, iterations: int) -> None:
    """Refuse settings of :func:`assign` that are out of range; warn where the iterations cannot have converged."""
    check_number("temperature", temperature, low=0, open_low=True)
    check_number("beta", beta, low=0, high=1)
    check_count("iterations", iterations, low=0)
    if (left := beta ** (iterations + 1)) > 2e-4:
        warnings.warn(
            f"iterations={iterations} may leave MIRA's targets unconverged at beta={beta:.4g}: "
            f"the bound on the error, which shrinks by beta an iteration, is still {left:.1g} of its start",
            stacklevel=4,
        )


@full_precision
def _fixed_points(logits: Sequence[Tensor], scale: float, beta: float, iterations: int, spread: float) -> list[Tensor]:
    """Eqs. 5 and 7 for p^(1/(1-beta)), which up to a factor per row is the softmax of ``logits / scale``.

    For the logits of several views, each on its own, in step, so that an iteration is one collective. ``spread`` bounds
    the range of the logits. It alone, never the data, decides which of two equal forms is computed.
    """
    exponent = beta / (1 - beta)
    views, clusters = len(logits), logits[0].shape[1]
    if spread / scale <= LINEAR_RANGE:
        batch = global_count(logits[0])
        q = [x / scale for x in logits]
        for x in q:
            torch.softmax(x, 1, out=x)  # in place, as below: on a CPU fresh memory costs more than the arithmetic
        log_u = [x.new_zeros(clusters) for x in logits]
        for _ in range(iterations + 1):
            shift = [(-exponent * u).max() for u in log_u]
            v = [(-exponent * u - s).exp() for u, s in zip(log_u, shift, strict=True)]
            columns = global_sum(torch.stack([_column_sums(x, w) for x, w in zip(q, v, strict=True)]))
            log_u = [(1 - beta) * ((column / batch).log() - s) for column, s in zip(columns, shift, strict=True)]
        v = [(-exponent * (u - u.min())).exp() for u in log_u]
        for x, w in zip(q, v, strict=True):
            row = x @ w
            x.mul_(w).div_(row.unsqueeze(1))
        return q
    # Far outside float32's exponents float32 logits have too few digits too: beta = 0.99 multiplies them by hundreds.
    log_q = [(x.double() / scale).log_softmax(1) for x in logits]
    log_u = [x.new_zeros(clusters) for x in log_q]
    for _ in range(iterations + 1):
        row = [(x - exponent * u).logsumexp(1, keepdim=True) for x, u in zip(log_q, log_u, strict=True)]
        means = global_logmeanexp(torch.cat([x - r for x, r in zip(log_q, row, strict=True)], dim=1))
        log_u = [(1 - beta) * mean for mean in means.chunk(views)]
    return [(x - exponent * u).softmax(1).to(logits[0].dtype) for x, u in zip(log_q, log_u, strict=True)]


def _blocks(x: Tensor) -> Sequence[Tensor]:
    """The rows, on a CPU in blocks that fit in its cache: what is computed from a block touches memory once."""
    return [x] if x.is_cuda else x.split(torch.get_num_threads() * (2**19 // x.shape[1] + 1))  # 2 MB a thread


def _column_sums(q: Tensor, v: Tensor) -> Tensor:
    """``sum_i q_ij / <q_i, v>``."""
    sums = torch.zeros_like(v)
    for block in _blocks(q):
        sums.addmv_(block.T, (block @ v).reciprocal_())
    return sums


class _CrossEntropy(torch.autograd.Function):
    """Of each row, ``-sum_j target_j log softmax(logits / temperature)_j``, with the targets held constant.

    Autograd would keep the logarithms until the backward pass, and write the matrix several times in it.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.temperature = temperature
        blocks = zip(_blocks(logits), _blocks(target), strict=True)
        return torch.cat([-(t * (x / temperature).log_softmax(1)).sum(1) for x, t in blocks])

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore[bad-override]
        logits, target = ctx.saved_tensors
        gradient = logits / ctx.temperature
        torch.softmax(gradient, 1, out=gradient)
        gradient.mul_(target.sum(1, keepdim=True)).sub_(target)
        return gradient.mul_(gradients[0].unsqueeze(1) / ctx.temperature), None, None


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
            f"student_logits must hold at least the {len(targets)} crops of the targets, but there are "
            f"{len(student_logits)}"
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
        losses.append(_CrossEntropy.apply(logits, target, temperature))
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
        iterations: int,
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
    def representation(self) -> Encoder:
        return self.encoder if self.teacher is None else self.teacher.module[0]  # pyrefly: ignore

    def cluster_logits(self, features: Tensor) -> Tensor:
        projector: Any = self.projector if self.teacher is None else self.teacher.module[1]  # pyrefly: ignore
        return self.prototypes(projector(features))

    def online(self, views: Views) -> list[Tensor]:
        return [self.prototypes(z) for z in self.each(self._student, [*views.full, *views.local])]

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return [] if self.teacher is None else [self.prototypes(z) for z in self.each(self.teacher, views.full)]

    def loss(self, online: list[Tensor], target: list[Tensor], progress: Progress) -> Loss:
        beta = cosine(self.beta_start, self.beta, progress.fraction)
        targets = self._assign(target or online[: self.full_views], beta)
        loss = _swapped_prediction_loss(online, targets, self.student_temperature)
        return Loss(loss, {"target_information": _mutual_information(targets[0])})

    @torch.no_grad()
    def _assign(self, logits: list[Tensor], beta: float) -> list[Tensor]:
        # Cosines span 2, which is known without reading the device.
        return _fixed_points(logits, self.teacher_temperature * (1 - beta), beta, self.iterations, spread=2.0)

    def after_backward(self, progress: Progress) -> None:
        if progress.epoch < self.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def advance(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.follow(self._student, progress.fraction)


@torch.no_grad()
def _mutual_information(assignment: Tensor) -> Tensor:
    """Between cluster and image under this assignment (Eq. 2), in nats: at most the logarithm of the cluster count."""
    marginal = global_mean(assignment)
    given = torch.cat([(rows * rows.clamp_min(1e-30).log()).sum(1) for rows in _blocks(assignment)])
    return global_mean(given) - torch.xlogy(marginal, marginal).sum()
