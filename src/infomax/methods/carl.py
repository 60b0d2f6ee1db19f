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
from infomax.nn.schedules import linear
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_logmeanexp, global_mean, global_quotient


def consistency_loss(anchor_logits: Float[Tensor, "b k"], positive_logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """``-mean_i log <softmax(anchor_i), softmax(positive_i)>``, Eq. 4, in nats; 0 for equal one-hot assignments.

    Gradients flow to both arguments; detach the view that is not to be trained.
    """
    check_rows("anchor_logits", anchor_logits)
    check_rows("positive_logits", positive_logits, like=anchor_logits)
    return _consistency_loss(anchor_logits, positive_logits)


@full_precision
def _consistency_loss(anchor: Tensor, positive: Tensor) -> Tensor:
    # In the log domain throughout: nothing bounds these logits, and their probabilities underflow from about 40.
    return global_mean(-(anchor.log_softmax(1) + positive.log_softmax(1)).logsumexp(1))


def uniformity_loss(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """``KL(mean_i softmax(logits_i) || uniform)`` over the global batch, Eqs. 5 and 6, in nats.

    0 when all clusters are used evenly, log K at collapse. The paper prints log2 K beside natural logarithms, which
    would not vanish at uniform (docs/decisions.md, carl-natural-log).
    """
    check_rows("logits", logits)
    return _uniformity_loss(logits)


@full_precision
def _uniformity_loss(logits: Tensor) -> Tensor:
    log_mean = global_logmeanexp(logits.log_softmax(1))
    return (log_mean.exp() * log_mean).sum() + log(logits.shape[1])


def _pairs(views: int, full: int) -> list[tuple[int, int]]:
    """Each pair of views once, the second of them full; the first is then an anchor, and the second too if both are."""
    return [(first, second) for first in range(views) for second in range(min(first, full))]


class _Assignments(torch.autograd.Function):
    """Of the assignments p = softmax(logits) of views: ``-log <p_i, r_i>`` for each row and pair [B, pairs], whose
    gradient its anchors share; and the sums of p over rows [views, K].

    The gradient at the logits is p - s, with s = p r / <p, r>. Autograd would keep a matrix for each operation, and go
    over memory for each.
    """

    @staticmethod
    def forward(ctx, full: int, *logits: Tensor) -> tuple[Tensor, Tensor]:
        ctx.full = full
        ctx.save_for_backward(*logits)
        unlike, sums = [], logits[0].new_zeros(len(logits), logits[0].shape[1])
        for rows in row_blocks(*logits):
            log_p = [x.log_softmax(1) for x in rows]  # nothing bounds the logits: probabilities underflow
            each = [-(log_p[a] + log_p[b]).logsumexp(1) for a, b in _pairs(len(logits), full)]
            unlike.append(torch.stack(each, dim=1))
            for total, x in zip(sums, log_p, strict=True):
                total += x.exp_().sum(0)
        return torch.cat(unlike), sums

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        of_rows, of_sums = gradients
        logits, full, views = ctx.saved_tensors, ctx.full, len(ctx.saved_tensors)
        found = [torch.empty_like(x) for x in logits]
        for *blocks, weights in row_blocks(*logits, *found, of_rows):
            log_p, into = [x.log_softmax(1) for x in blocks[:views]], blocks[views:]
            p = [x.exp() for x in log_p]
            for x, out, of_sum in zip(p, into, of_sums, strict=True):
                torch.mul(x, of_sum - (x @ of_sum).unsqueeze(1), out=out)
            for (a, b), weight in zip(_pairs(views, full), weights.split(1, dim=1), strict=True):
                s = (log_p[a] + log_p[b]).softmax(1)
                anchors = (a, b) if a < full else (a,)
                for anchor in anchors:
                    into[anchor].addcmul_(p[anchor] - s, weight, value=1 / len(anchors))
        return None, *found


@full_precision
def _losses(logits: list[Tensor], full: int) -> tuple[Tensor, Tensor]:
    """The consistency loss, averaged over anchors and the full views they have, and the uniformity loss, over views."""
    unlike, sums = _Assignments.apply(full, *logits)  # pyrefly: ignore[not-iterable]
    means = global_quotient(torch.cat([unlike.sum(0), sums.flatten()]), len(unlike))
    pairs = _pairs(len(logits), full)
    of_pairs, p = means[: len(pairs)], means[len(pairs) :]
    anchors = [2 if first < full else 1 for first, _ in pairs]
    consistency = torch.stack([count * x for count, x in zip(anchors, of_pairs, strict=True)]).sum() / sum(anchors)
    negentropy = (p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum() / len(logits)
    return consistency, negentropy + log(sums.shape[1])


def kl_weight(epoch: float, *, start: float, end: float, epochs: float) -> float:
    """Weight of the uniformity loss, Eq. 8: on a line from ``start`` at epoch 0 to ``end`` at ``epochs`` and after."""
    check_number("epoch", epoch, low=0)
    check_number("start", start, low=0)
    check_number("end", end, low=0)
    check_number("epochs", epochs, low=0, open_low=True)
    return linear(start, end, epoch / epochs)


class Carl(Method):
    """CARL's shared branch and its assigner.

    The loss is Eq. 7 averaged over both roles of the two views, each time with the other view's assignment held
    constant, plus the uniformity loss averaged over the views (docs/decisions.md, carl-symmetric). Of more views, each
    is the anchor to each full one but itself (carl-crops).

    Args:
        encoder: Images to features.
        hidden, dimension: Widths of the projector's hidden layer and of its output.
        prototypes: K, the number of clusters.
        kl_start, kl_end, kl_epochs: As in :func:`kl_weight`.
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
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("prototypes", prototypes)):
            check_count(name, width, low=1)
        kl_weight(0, start=kl_start, end=kl_end, epochs=kl_epochs)
        self.kl_start, self.kl_end, self.kl_epochs = kl_start, kl_end, kl_epochs
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=True)
        self.assigner = nn.Linear(dimension, prototypes, bias=False)

    @property
    def eval_encoder(self) -> Encoder:
        return self.encoder

    def cluster_logits(self, features: Tensor) -> Tensor:
        return self.assigner(self.projector(features))

    @full_precision  # nothing bounds these logits, which half precision could not hold
    def _energies(self, z: Tensor) -> Tensor:
        return self.assigner(z)

    def online(self, views: Views) -> list[Tensor]:
        return [self._energies(z) for z in self.each(self._embed, [*views.global_crops, *views.local_crops])]

    def _embed(self, x: Tensor) -> Tensor:
        return self.projector(self.encoder(x))

    def schedule_values(self, progress: Progress) -> tuple[float]:
        return (kl_weight(progress.epoch, start=self.kl_start, end=self.kl_end, epochs=self.kl_epochs),)

    def compute_loss(self, online: list[Tensor], target: list[Tensor], numbers: Iterable[float | Tensor]) -> Loss:
        consistency, uniformity = _losses(online, self.global_views)
        (weight,) = numbers
        terms = {"consistency": consistency.detach(), "uniformity": uniformity.detach()}
        return Loss((consistency + weight * uniformity).to(consistency.dtype), terms)
