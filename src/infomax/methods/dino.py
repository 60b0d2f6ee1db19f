"""DINO: "Emerging Properties in Self-Supervised Vision Transformers", Caron, Touvron, Misra, Jégou, Mairal, Bojanowski,
Joulin, arXiv 2104.14294.

A student predicts, from each view, the distribution over prototypes that an EMA teacher gives for another view. The
teacher's scores are centred, so that no prototype takes all images, and sharpened, so that they are not uniform.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision, swapped_cross_entropy
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Prototypes, Teacher, mlp
from infomax.nn.schedules import linear
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_mean


def dino_loss(
    student: Sequence[Float[Tensor, "b k"]],
    teacher: Sequence[Float[Tensor, "b k"]],
    centre: Float[Tensor, " k"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """Computes the loss of DINO: each view's cross-entropy with the teacher's distribution for another view, in nats.

    It is the mean over the teacher's views i and the student's views v, with v != i, and over images, of
    ``-sum_k p_k log softmax(student[v] / student_temperature)_k`` with
    ``p = softmax((teacher[i] - centre) / teacher_temperature)`` (Eq. 3 and Algorithm 1 there).

    Args:
        student: The student's scores of V >= 2 views, each [B, K], the full views first. Gradients flow to them.
        teacher: The teacher's scores of the full views, each [B, K]; held constant.
        centre: The centre of the teacher's scores, [K], of :func:`update_centre`; held constant.
        student_temperature: The temperature of the student, above 0.
        teacher_temperature: The temperature of the teacher, above 0; see :func:`teacher_temperature`.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If there are fewer than 2 views of the student or more of the teacher, a tensor is not finite or has
            another shape than its counterparts, or a temperature is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.dino import dino_loss
        >>> view = torch.tensor([[0.2, 0.0]])
        >>> round(dino_loss([view, view], [view, view], torch.zeros(2)).item(), 4)
        0.1403
        >>> round(dino_loss([view, view], [view, view], torch.tensor([0.2, 0.0])).item(), 4)  # a uniform teacher
        1.1269
    """
    for name, views in (("student", student), ("teacher", teacher)):
        if isinstance(views, Tensor):
            raise ValueError(f"{name} must be a list of matrices, one a view, but is a tensor {[*views.shape]}")
    if len(student) < 2 or not 1 <= len(teacher) <= len(student):
        raise ValueError(
            "student must be at least 2 views and teacher the first of them or more, but they are "
            f"{len(student)} and {len(teacher)}"
        )
    for name, views in (("student", student), ("teacher", teacher)):
        for view, matrix in enumerate(views):
            check_rows(f"{name}[{view}]", matrix, like=None if matrix is student[0] else student[0])
    _check_centre(centre, student[0].shape[1])
    check_number("student_temperature", student_temperature, low=0, open_low=True)
    check_number("teacher_temperature", teacher_temperature, low=0, open_low=True)
    return _dino_loss(student, teacher, centre, student_temperature, teacher_temperature)


def _check_centre(centre: Tensor, width: int) -> None:
    if not isinstance(centre, Tensor) or centre.shape != (width,) or not centre.is_floating_point():
        actual = [*centre.shape] if isinstance(centre, Tensor) else type(centre).__name__
        raise ValueError(f"centre must be a floating-point vector of {width} elements, but is {actual}")
    if not centre.isfinite().all():
        raise ValueError("centre contains NaN or infinity")


@full_precision
def _dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    centre: Tensor,
    student_temperature: float,
    teacher_temperature: float | Tensor,
) -> Tensor:
    with torch.no_grad():
        targets = [((x - centre) / teacher_temperature).softmax(1).to(x.dtype) for x in teacher]
    return swapped_cross_entropy(student, targets, student_temperature)


def update_centre(
    centre: Float[Tensor, " k"], teacher: Sequence[Float[Tensor, "b k"]], *, momentum: float = 0.9
) -> Float[Tensor, " k"]:
    """Computes the next centre of the teacher's scores: an EMA of their mean over views and the global batch.

    ``momentum * centre + (1 - momentum) * mean`` (Eq. 4 there). The loss of a step uses the centre of before.

    Args:
        centre: The centre, [K]; it is not changed.
        teacher: The teacher's scores of each full view, each [B, K].
        momentum: The momentum, in [0, 1].

    Returns:
        The new centre, [K], without gradient.

    Raises:
        ValueError: If a tensor is not finite or their widths differ, there is no view, or ``momentum`` is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.dino import update_centre
        >>> update_centre(torch.zeros(2), [torch.tensor([[1.0, 0.0], [3.0, 2.0]])])
        tensor([0.2000, 0.1000])
    """
    if isinstance(teacher, Tensor) or not teacher:
        raise ValueError(f"teacher must be a list of matrices, one a view, but is {type(teacher).__name__}")
    for view, matrix in enumerate(teacher):
        check_rows(f"teacher[{view}]", matrix, like=teacher[0] if view else None)
    _check_centre(centre, teacher[0].shape[1])
    check_number("momentum", momentum, low=0, high=1, open_high=False)
    return _next_centre(centre, teacher, momentum)


@torch.no_grad()
@full_precision
def _next_centre(centre: Tensor, teacher: Sequence[Tensor], momentum: float) -> Tensor:
    mean = global_mean(torch.stack(list(teacher)).mean(0))
    return momentum * centre + (1 - momentum) * mean


def teacher_temperature(epoch: int, *, start: float = 0.04, end: float = 0.07, warmup: int = 30) -> float:
    """Returns the temperature of DINO's teacher in an epoch: it is on a line to ``end`` at first, and then constant.

    ``start + (end - start) epoch / (warmup - 1)`` in the first ``warmup`` epochs (appendix A there).

    Args:
        epoch: The epoch, counted from 0.
        start: The temperature of the first epoch, above 0; also that of a warm-up of one epoch.
        end: The temperature from the last epoch of the warm-up on, above 0.
        warmup: The number of epochs of the warm-up; 0 has ``end`` from the start.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from infomax.methods.dino import teacher_temperature
        >>> [round(teacher_temperature(epoch, warmup=4), 3) for epoch in range(6)]
        [0.04, 0.05, 0.06, 0.07, 0.07, 0.07]
    """
    check_count("epoch", epoch, low=0)
    _check_temperatures(start, end, warmup)
    if epoch >= warmup:
        return end
    return linear(start, end, epoch / (warmup - 1)) if warmup > 1 else start


def _check_temperatures(start: float, end: float, warmup: int) -> None:
    check_number("start", start, low=0, open_low=True)
    check_number("end", end, low=0, open_low=True)
    check_count("warmup", warmup, low=0)


class Dino(Method):
    """A method that trains DINO's student, to predict the distributions of an EMA teacher.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        hidden_layers: The number of the projector's hidden layers.
        dimension: The width of the projector's output.
        prototypes: The number of prototypes, K.
        projector_norm: Whether the projector's hidden layers have BatchNorm.
        student_temperature: The temperature of the student; see :func:`dino_loss`.
        temperature_start: The temperature of the teacher in the first epoch; see :func:`teacher_temperature`.
        temperature_end: Its temperature after the warm-up.
        temperature_epochs: The number of epochs of that warm-up.
        centre_momentum: The momentum of the centre; see :func:`update_centre`.
        momentum: The EMA momentum of the teacher at the start; a cosine raises it to 1.
        freeze_prototypes_epochs: The number of epochs at the start in which the prototypes stay as they were drawn.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    centre: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        hidden_layers: int,
        dimension: int,
        prototypes: int,
        projector_norm: bool,
        student_temperature: float,
        temperature_start: float,
        temperature_end: float,
        temperature_epochs: int,
        centre_momentum: float,
        momentum: float,
        freeze_prototypes_epochs: int,
    ):
        super().__init__()
        counts = {"hidden": hidden, "hidden_layers": hidden_layers, "dimension": dimension, "prototypes": prototypes}
        for name, count in counts.items():
            check_count(name, count, low=1)
        check_number("student_temperature", student_temperature, low=0, open_low=True)
        check_number("centre_momentum", centre_momentum, low=0, high=1)
        check_count("freeze_prototypes_epochs", freeze_prototypes_epochs, low=0)
        _check_temperatures(temperature_start, temperature_end, temperature_epochs)
        self.student_temperature, self.centre_momentum = student_temperature, centre_momentum
        self.temperatures = {"start": temperature_start, "end": temperature_end, "warmup": temperature_epochs}
        self.freeze_prototypes_epochs = freeze_prototypes_epochs
        self.encoder = encoder
        widths = (encoder.width, *[hidden] * hidden_layers, dimension)
        self.projector = mlp(*widths, norm=projector_norm, hidden_bias=not projector_norm, activation=nn.GELU)
        self.prototypes = Prototypes(dimension, prototypes)
        self.teacher = Teacher(self._student, momentum)
        self.register_buffer("centre", torch.zeros(prototypes))

    @property
    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector, self.prototypes)

    @property
    def eval_encoder(self) -> Encoder:
        return self.teacher.module[0]  # pyrefly: ignore

    def cluster_logits(self, features: Tensor) -> Tensor:
        return self.teacher.module[2](self.teacher.module[1](features))  # pyrefly: ignore

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self._student, views.crops)

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.teacher, views.global_crops)

    @full_precision
    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        return [(scores / self.student_temperature).softmax(1) for scores in online]

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns the teacher's temperature."""
        return (teacher_temperature(progress.epoch, **self.temperatures),)  # pyrefly: ignore

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        (temperature,) = schedule_values
        loss = _dino_loss(online, target, self.centre, self.student_temperature, temperature)
        if self.training and torch.is_grad_enabled():
            self.centre.copy_(_next_centre(self.centre, target, self.centre_momentum))
        return Loss(loss, {})

    def after_backward(self, progress: Progress) -> None:
        if progress.epoch < self.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, progress: Progress) -> None:
        self.teacher.ema_update(self._student, progress.fraction)
