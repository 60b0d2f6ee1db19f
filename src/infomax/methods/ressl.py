"""ReSSL: "ReSSL: Relational Self-Supervised Learning with Weak Augmentation", Zheng, You, Wang, Qian, Zhang, Wang, Xu,
arXiv 2107.09282.

A strongly augmented view is to be as similar to earlier images as the teacher finds a weakly augmented view of the same
image to be (Eq. 5 there). No image is a negative: the target is a distribution over the queue.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision, soft_cross_entropy
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.nn.queue import Queue, check_queue
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_mean


def relation_loss(
    query: Float[Tensor, "b d"],
    key: Float[Tensor, "b d"],
    queue: Float[Tensor, "k d"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """Computes ReSSL's loss: the mean cross-entropy between teacher's and student's similarities to a queue, in nats.

    ``-1/B sum_i sum_n softmax(k_i queue / t_t)_n log softmax(q_i queue / t_s)_n`` over the global batch (Eqs. 3 to 5
    there). The key itself is not among what is compared with.

    Args:
        query: Embeddings of the strong view, [B, D]; they are L2-normalised here. Gradients flow to them.
        key: The teacher's embeddings of the weak view of the same images, [B, D]; they are L2-normalised here, and held
            constant.
        queue: Keys of earlier batches, [K, D], of unit norm and the same on every rank; they are held constant.
        student_temperature: The temperature of the student's similarities, t_s, above 0.
        teacher_temperature: The temperature of the teacher's similarities, t_t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or a temperature is not
            above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.ressl import relation_loss
        >>> query, queue = torch.tensor([[1.0, 0.0]]), torch.eye(2)
        >>> round(relation_loss(query, queue[:1], queue).item(), 4)  # both are like the first row: log(1 + e^-10)
        0.0
        >>> round(relation_loss(query, queue[1:], queue).item(), 4)  # the teacher's is like the second one: 10 more
        10.0
    """
    check_rows("query", query)
    check_rows("key", key, like=query)
    check_queue(queue, query)
    check_number("student_temperature", student_temperature, low=0, open_low=True)
    check_number("teacher_temperature", teacher_temperature, low=0, open_low=True)
    return _relation_loss(query, _relation(key, queue, teacher_temperature), queue, student_temperature)


@torch.no_grad()
@full_precision
def _relation(key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Computes the teacher's distribution over the queue for each key, [B, K]."""
    return (l2_normalize(key) @ queue.T / temperature).softmax(1)


@full_precision
def _relation_loss(query: Tensor, relation: Tensor, queue: Tensor, temperature: float) -> Tensor:
    return global_mean(soft_cross_entropy(l2_normalize(query) @ queue.detach().T, relation, temperature))


class ReSsl(Method):
    """A method that trains ReSSL's student, with the relations that an EMA teacher finds to a queue of its keys.

    The last global crop, which is to be weakly augmented, is the teacher's, and all other views are the student's. The
    loss is the mean of :func:`relation_loss` over the student's views, with the queue before the step. The keys then
    join the queue.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        projector_norm: Whether the projector's hidden layer has BatchNorm, which the paper's has not.
        student_temperature: The temperature of the student; see :func:`relation_loss`.
        teacher_temperature: The temperature of the teacher.
        queue_size: The number of keys in the queue.
        momentum: The EMA momentum of the teacher at the start of the run.
        momentum_end: Its EMA momentum at the end, to which a cosine leads.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        projector_norm: bool,
        student_temperature: float,
        teacher_temperature: float,
        queue_size: int,
        momentum: float,
        momentum_end: float,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("queue_size", queue_size)):
            check_count(name, width, low=1)
        check_number("student_temperature", student_temperature, low=0, open_low=True)
        check_number("teacher_temperature", teacher_temperature, low=0, open_low=True)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=projector_norm)
        self.teacher = Teacher(self._student, momentum, momentum_end)
        self.queue = Queue(queue_size, dimension)

    @property
    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector)

    def online(self, views: Views) -> list[Tensor]:
        """Returns the student's embeddings of all views but the last global crop."""
        return self.forward_each(self._student, [*views.global_crops[:-1], *views.local_crops])

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        """Returns the teacher's embeddings of the last global crop alone."""
        return [self.teacher(views.global_crops[-1])]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        key, queue = l2_normalize(target[0]), self.queue.before_step()
        relation = _relation(key, queue, self.teacher_temperature)
        losses = [_relation_loss(query, relation, queue, self.student_temperature) for query in online]
        if self.training and torch.is_grad_enabled():
            self.queue.enqueue(key)
        return Loss(torch.stack(losses).mean(), {})

    def after_step(self, progress: Progress) -> None:
        self.teacher.ema_update(self._student, progress.fraction)
