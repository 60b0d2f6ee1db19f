"""CARL: "Consistent Assignment for Representation Learning", Silva, Ramirez Rivera.

Two views of an image must be assigned to the same clusters (Eq. 4), while the mean assignment of the batch stays close
to uniform (Eqs. 5 and 6). The assigner is one linear layer, trained with the encoder; there is no temperature.
"""

from collections.abc import Iterable
from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from infomax.functional import check_rows, full_precision, row_blocks
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.nn.schedules import cosine, linear
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.collectives import global_logmeanexp, global_mean, global_quotient


def consistency_loss(anchor_logits: Float[Tensor, "b k"], positive_logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Computes ``-mean_i log <softmax(anchor_i), softmax(positive_i)>`` over the global batch, in nats (Eq. 4).

    It is 0 for equal one-hot assignments. Gradients flow to both arguments; detach the view that is not to be trained.

    Args:
        anchor_logits: The cluster logits of one view, [B, K], one row an image.
        positive_logits: The cluster logits of the other view of the same images, [B, K].

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, or their shapes differ.

    Example:
        >>> import torch
        >>> from infomax.methods.carl import consistency_loss
        >>> sure_of_first, sure_of_second = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 9.0]])
        >>> round(consistency_loss(sure_of_first, sure_of_first).item(), 4)
        0.0002
        >>> round(consistency_loss(sure_of_first, sure_of_second).item(), 4)
        8.3071
    """
    check_rows("anchor_logits", anchor_logits)
    check_rows("positive_logits", positive_logits, like=anchor_logits)
    return _consistency_loss(anchor_logits, positive_logits)


@full_precision
def _consistency_loss(anchor_logits: Tensor, positive_logits: Tensor) -> Tensor:
    # In the log domain throughout: nothing bounds these logits, and their probabilities underflow from about 40.
    return global_mean(-(anchor_logits.log_softmax(1) + positive_logits.log_softmax(1)).logsumexp(1))


def uniformity_loss(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Computes ``KL(mean_i softmax(logits_i) || uniform)`` over the global batch, in nats (Eqs. 5 and 6).

    It is 0 if all clusters are used evenly, and log K at collapse. The paper prints log2 K beside natural logarithms,
    which would not vanish at uniform (docs/decisions.md, carl-natural-log).

    Args:
        logits: The cluster logits, [B, K], one row an image; gradients flow to them.

    Returns:
        The loss, a scalar in [0, log K].

    Raises:
        ValueError: If ``logits`` is not a finite floating-point matrix.

    Example:
        >>> import torch
        >>> from infomax.methods.carl import uniformity_loss
        >>> collapsed = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
        >>> round(uniformity_loss(collapsed).item(), 4)  # log 2
        0.6931
        >>> mostly_first = torch.tensor([[50.0, 0.0], [0.0, 0.0]])  # the mean assignment is 3/4 and 1/4
        >>> round(uniformity_loss(mostly_first).item(), 4)
        0.1308
    """
    check_rows("logits", logits)
    return _uniformity_loss(logits)


@full_precision
def _uniformity_loss(logits: Tensor) -> Tensor:
    log_mean = global_logmeanexp(logits.log_softmax(1))
    return (log_mean.exp() * log_mean).sum() + log(logits.shape[1])


def _pairs(views: int, global_crops: int) -> list[tuple[int, int]]:
    """Returns the positions of each pair of views once, the second of which is a global crop.

    The first view of a pair is an anchor; the second is one too if the first is a global crop.

    Args:
        views: The number of views.
        global_crops: The number of global crops, which come first among the views.
    """
    return [(first, second) for first in range(views) for second in range(min(first, global_crops))]


def _anchors(pair: tuple[int, int], global_crops: int) -> tuple[int, ...]:
    """Returns the views of a pair that are anchors: both if both are global crops, else the first."""
    return pair if pair[0] < global_crops else pair[:1]


class _Assignments(torch.autograd.Function):
    """Computes what both losses need of the assignments p = softmax(logits) of all views.

    The outputs are ``-log <p_i, r_i>`` for each row and pair of views, [B, pairs], whose gradient is shared by the
    anchors of the pair; and the sums of p over the rows, [views, K].

    The gradient of ``-log <p, r>`` at the logits of p is p - s, with s = p r / <p, r>. Autograd would keep a matrix for
    each operation, and go over memory for each.
    """

    @staticmethod
    def forward(ctx, global_crops: int, *logits: Tensor) -> tuple[Tensor, Tensor]:
        ctx.global_crops = global_crops
        ctx.save_for_backward(*logits)
        disagreements, sums = [], logits[0].new_zeros(len(logits), logits[0].shape[1])
        for block in row_blocks(*logits):
            log_p = [x.log_softmax(1) for x in block]  # nothing bounds the logits: probabilities underflow
            by_pair = [-(log_p[a] + log_p[b]).logsumexp(1) for a, b in _pairs(len(logits), global_crops)]
            disagreements.append(torch.stack(by_pair, dim=1))
            for total, x in zip(sums, log_p, strict=True):
                total += x.exp_().sum(0)
        return torch.cat(disagreements), sums

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        disagreement_gradient, sum_gradients = gradients
        logits, global_crops, views = ctx.saved_tensors, ctx.global_crops, len(ctx.saved_tensors)
        logit_gradients = [torch.empty_like(x) for x in logits]
        for *blocks, weights in row_blocks(*logits, *logit_gradients, disagreement_gradient):
            log_p, out_blocks = [x.log_softmax(1) for x in blocks[:views]], blocks[views:]
            p = [x.exp() for x in log_p]
            for x, out, sum_gradient in zip(p, out_blocks, sum_gradients, strict=True):
                torch.mul(x, sum_gradient - (x @ sum_gradient).unsqueeze(1), out=out)
            for (a, b), weight in zip(_pairs(views, global_crops), weights.split(1, dim=1), strict=True):
                s = (log_p[a] + log_p[b]).softmax(1)
                anchors = _anchors((a, b), global_crops)
                for anchor in anchors:
                    out_blocks[anchor].addcmul_(p[anchor] - s, weight, value=1 / len(anchors))
        return None, *logit_gradients


@full_precision
def _losses(logits: list[Tensor], global_crops: int) -> tuple[Tensor, Tensor]:
    """Computes the consistency loss and the uniformity loss of all views.

    Args:
        logits: The cluster logits of each view, [B, K], the global crops first.
        global_crops: The number of global crops.

    Returns:
        The consistency loss, averaged over all pairs of an anchor and another global crop; and the uniformity loss,
        averaged over the views.
    """
    disagreements, sums = _Assignments.apply(global_crops, *logits)  # pyrefly: ignore[not-iterable]
    means = global_quotient(torch.cat([disagreements.sum(0), sums.flatten()]), len(disagreements))
    pairs = _pairs(len(logits), global_crops)
    pair_means, p = means[: len(pairs)], means[len(pairs) :]
    anchors = [len(_anchors(pair, global_crops)) for pair in pairs]
    consistency = torch.stack([count * x for count, x in zip(anchors, pair_means, strict=True)]).sum() / sum(anchors)
    negentropy = (p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum() / len(logits)
    return consistency, negentropy + log(sums.shape[1])


DECAYS = ("linear", "exponential", "cosine")
"""The ways of the uniformity loss's weight from its start to its end: the paper's, and two that it names."""


def kl_weight(epoch: float, *, start: float, end: float, epochs: float, decay: str = "linear") -> float:
    """Returns the weight of the uniformity loss in an epoch (Eq. 8).

    The weight is ``start`` at epoch 0, ``end`` at ``epochs``, and stays there afterwards. Between them it is on a line
    as in Eq. 8; or falls by one factor each epoch, or along half a cosine, which the paper names as other choices.

    Args:
        epoch: The epoch, from 0.
        start: The weight at epoch 0, not negative.
        end: The weight from ``epochs`` on, not negative.
        epochs: The length of the way in epochs, above 0.
        decay: ``linear``, ``exponential`` or ``cosine``; an exponential needs weights above 0.

    Raises:
        ValueError: If an argument is out of range, or not finite.

    Example:
        >>> from infomax.methods.carl import DECAYS, kl_weight
        >>> [kl_weight(epoch, start=4.0, end=1.5, epochs=100) for epoch in (0, 50, 100, 150)]
        [4.0, 2.75, 1.5, 1.5]
        >>> [round(kl_weight(50, start=4.0, end=1.0, epochs=100, decay=decay), 3) for decay in DECAYS]
        [2.5, 2.0, 2.5]
    """
    choose("decay", decay, DECAYS)
    check_number("epoch", epoch, low=0)
    check_number("start", start, low=0, open_low=decay == "exponential")
    check_number("end", end, low=0, open_low=decay == "exponential")
    check_number("epochs", epochs, low=0, open_low=True)
    progress = min(epoch / epochs, 1.0)
    if decay == "exponential":
        return start * (end / start) ** progress
    return (cosine if decay == "cosine" else linear)(start, end, progress)


class Carl(Method):
    """A method that trains CARL's encoder, projector and assigner, which all views share.

    The loss is Eq. 7 averaged over both roles of the two views, each time with the other view's assignment held
    constant, plus the uniformity loss averaged over the views (docs/decisions.md, carl-symmetric). If there are more
    views, each is the anchor to each global crop but itself (docs/decisions.md, carl-crops).

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        prototypes: The number of clusters, K.
        kl_start: The weight of the uniformity loss at epoch 0; see :func:`kl_weight`.
        kl_end: Its weight from epoch ``kl_epochs`` on.
        kl_epochs: The number of epochs in which it changes.
        kl_decay: Along what it changes; see :func:`kl_weight`.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        prototypes: int,
        kl_start: float,
        kl_end: float,
        kl_epochs: int,
        kl_decay: str = "linear",
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("prototypes", prototypes)):
            check_count(name, width, low=1)
        self.schedule = {"start": kl_start, "end": kl_end, "epochs": kl_epochs, "decay": kl_decay}
        self._kl_weight(0)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=True)
        self.assigner = nn.Linear(dimension, prototypes, bias=False)

    def cluster_logits(self, features: Tensor) -> Tensor:
        return self.assigner(self.projector(features))

    @full_precision  # nothing bounds these logits, which half precision could not hold
    def _logits(self, embeddings: Tensor) -> Tensor:
        return self.assigner(embeddings)

    def online(self, views: Views) -> list[Tensor]:
        embeddings = self.forward_each(self.project, views.crops)
        return [self._logits(z) for z in embeddings]

    @full_precision
    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        return [logits.softmax(1) for logits in online]

    def schedule_values(self, progress: Progress) -> tuple[float]:
        return (self._kl_weight(progress.epoch),)

    def _kl_weight(self, epoch: int) -> float:
        return kl_weight(epoch, **self.schedule)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        consistency, uniformity = _losses(online, self.global_crop_count)
        (uniformity_weight,) = schedule_values
        terms = {"consistency": consistency.detach(), "uniformity": uniformity.detach()}
        return Loss((consistency + uniformity_weight * uniformity).to(consistency.dtype), terms)
