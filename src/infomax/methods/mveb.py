"""MVEB: "Self-Supervised Learning with Multi-View Entropy Bottleneck", Wen, Wang, Liu, Xu, arXiv 2403.19078.

Views of an image are aligned, and the entropy of their embeddings on the unit sphere is maximised (Eq. 11). Entropy has
no closed form, but its gradient needs only the score of the embeddings' density, which Stein's identity estimates from
a batch (Eqs. 13-17 and appendix A).
"""

from collections.abc import Iterable
from functools import reduce

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views, others
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather, global_mean, global_means, row_counts


def stein_score(
    z: Float[Tensor, "m d"], *, eta: float = 0.01, bandwidth: float | None = None, scope: str = "global"
) -> Float[Tensor, "m d"]:
    """Estimate of the score, the gradient of the log-density, of the global batch at each row. No gradient.

    The ridge-regression estimator of Eq. 26 with the von Mises-Fisher kernel ``exp(<z, z'> / bandwidth)`` of Eq. 18,
    computed in float64. Only its part tangent to the sphere is defined: the radial part has no effect on anything that
    is differentiated through L2 normalisation, and is left as the stable form leaves it.

    Args:
        z: Embeddings of unit norm, one row a sample; at least 2.
        eta: Ridge added to the kernel matrix, whose diagonal is ``exp(1 / bandwidth)``.
        bandwidth: Of the kernel. None takes the official rule: with all M^2 cosine distances, zeros of the diagonal
            included, in falling order, the one at position floor(M^2 / 2), but at least 0.1.
        scope: The samples that one estimate is made from: ``global``, the global batch; ``chunk:n``, each n of it in
            their order, whatever the number of ranks (``chunk:128`` is what the official run on 32 GPUs amounts to);
            or ``local``, those of each rank (docs/decisions.md, mveb-scope).

    Raises:
        ValueError: naming the argument that is out of range, or not finite, or not of unit norm.
    """
    _check_embeddings("z", z, minimum=2)
    check_number("eta", eta, low=0, open_low=True)
    if bandwidth is not None:
        check_number("bandwidth", bandwidth, low=0, open_low=True)
    return _stein_scores([z], eta, chunk_size(scope), bandwidth)[0]


def chunk_size(scope: str) -> int | None:
    """The samples of one estimate: n for ``chunk:n``, 0 for ``global``, None for ``local``."""
    if scope in ("global", "local"):
        return 0 if scope == "global" else None
    kind, _, size = scope.partition(":")
    if kind != "chunk" or not size.isdecimal() or int(size) < 2:
        raise ValueError(f"score_scope must be global, local, or chunk:n with n of at least 2, but is {scope!r}")
    return int(size)


@torch.no_grad()
@full_precision
def _stein_scores(zs: list[Tensor], eta: float, chunk: int | None, bandwidth: float | None = None) -> list[Tensor]:
    """Of several views of the same images, whose rows are exchanged together."""
    dtype = zs[0].dtype
    if chunk is None:
        return [_score(z.double(), eta, bandwidth).to(dtype) for z in zs]
    counts = row_counts(zs[0])
    if chunk and all(count % chunk == 0 for count in counts):  # no chunk lies on two ranks
        chunks = (z.double().unflatten(0, (-1, chunk)) for z in zs)
        return [_score(z, eta, bandwidth).flatten(0, 1).to(dtype) for z in chunks]
    everyone, mine = gather(torch.cat(zs, dim=1), counts) if len(zs) > 1 else gather(zs[0], counts)
    scores = []
    for z in everyone.split([z.shape[1] for z in zs], dim=1):
        first, last = (mine.start // chunk * chunk, -(-mine.stop // chunk) * chunk) if chunk else (0, len(z))
        needed = z[first:last].double()
        score = torch.cat([_score(piece, eta, bandwidth) for piece in needed.split(chunk or len(z))])
        scores.append(score[mine.start - first : mine.stop - first].to(dtype))
    return scores


def _score(z: Float64[Tensor, "... m d"], eta: float, bandwidth: float | None) -> Float64[Tensor, "... m d"]:
    """One estimate for each batch of ``m`` samples."""
    # Distances from the centred Gram matrix keep their digits when all embeddings are nearly equal; 1 - <z, z'> loses
    # them. Subtracting the mean and, row by row, a multiple of the centred embedding changes the radial part alone.
    centred = z - z.mean(-2, keepdim=True)
    squares = centred.square().sum(-1)
    distance = ((squares.unsqueeze(-2) + squares.unsqueeze(-1)) / 2 - centred @ centred.mT).clamp_min(0)
    distance.diagonal(dim1=-2, dim2=-1).zero_()
    m = z.shape[-2]
    if bandwidth is None:
        rank_from_below = min(m * m - m * m // 2 + 1, m * m)  # a last chunk may be one sample
        flat = distance.flatten(-2)
        # On a GPU kthvalue has no deterministic form; both give the same value.
        middle = flat.sort().values[..., rank_from_below - 1] if z.is_cuda else flat.kthvalue(rank_from_below).values
        scale = middle.clamp_min(0.1)[..., None, None]
    else:
        scale = distance.new_tensor(bandwidth)
    kernel = torch.exp(-distance / scale)  # exp(<z, z'> / scale) over its diagonal, and the ridge likewise
    row_sum = kernel.sum(-1, keepdim=True)
    # The second ridge, at rounding level, keeps the factorisation possible where the bandwidth is so small that eta
    # vanishes.
    ridge = eta * torch.exp(-1 / scale) + 1e-14 * m
    kernel.diagonal(dim1=-2, dim2=-1).add_(ridge.squeeze(-1) if ridge.ndim else ridge)
    # Where the samples are no numbers the result is none, instead of an error on this rank while others wait for it.
    factor, failed = torch.linalg.cholesky_ex(kernel)
    solution = torch.cholesky_solve(torch.cat([row_sum * centred, row_sum], dim=-1), factor)
    score = (solution[..., -1:] * centred - solution[..., :-1]) / scale
    return torch.where((failed == 0)[..., None, None], score, torch.nan)


def entropy_surrogate(z: Float[Tensor, "m d"], *, eta: float = 0.01, scope: str = "global") -> Float[Tensor, ""]:
    """A scalar whose gradient is that of the entropy of ``z``'s density (Eqs. 13-17); its value means nothing.

    Args:
        z: Embeddings of unit norm, one row a sample; at least 2.
        eta, scope: As in :func:`stein_score`.
    """
    _check_embeddings("z", z, minimum=2)
    check_number("eta", eta, low=0, open_low=True)
    return _entropy_surrogates([z], eta, chunk_size(scope))[0]


@full_precision
def _entropy_surrogates(zs: list[Tensor], eta: float, chunk: int | None) -> list[Tensor]:
    return global_means([-(s * z).sum(1) for s, z in zip(_stein_scores(zs, eta, chunk), zs, strict=True)])


@full_precision
def alignment(online: Float[Tensor, "m d"], target: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Mean over the global batch of the dot products of corresponding rows; gradients flow to both arguments.

    The paper's Algorithm 1 prints the mean over all pairs of rows, which would align an image with every other
    (docs/decisions.md, mveb-alignment).
    """
    check_rows("online", online)
    check_rows("target", target, like=online)
    return global_mean((online * target).sum(1))


def _check_embeddings(name: str, z: Tensor, *, minimum: int) -> None:
    check_rows(name, z, minimum=minimum)
    if (error := float((z.detach().float().norm(dim=1) - 1).abs().max())) > 1e-2:
        raise ValueError(f"{name} must have rows of unit norm, but one is off by {error:.3g}; L2-normalise them first")


class Mveb(Method):
    """MVEB's online branch and its target branch.

    Args:
        encoder: Images to features.
        hidden, dimension: Widths of the projector's hidden layers and of its output.
        entropy_weight: beta of Eq. 11.
        eta: As in :func:`stein_score`.
        score_scope: ``scope`` of :func:`stein_score`.
        momentum: Of the target's moving average at the start; a cosine raises it to 1. None shares the online weights
            with the target, and gradients then flow through both (Sec. 7.1).
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        entropy_weight: float,
        eta: float,
        score_scope: str,
        momentum: float | None,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("entropy_weight", entropy_weight, low=0)
        check_number("eta", eta, low=0, open_low=True)
        self.entropy_weight, self.eta, self.chunk = entropy_weight, eta, chunk_size(score_scope)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, hidden_bias=False)
        self.teacher = None if momentum is None else Teacher(self._online, momentum)

    @property
    def _online(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector)

    @property
    def eval_encoder(self) -> Encoder:
        return self.encoder

    def online(self, views: Views) -> list[Tensor]:
        return [l2_normalize(z) for z in self.each(self._online, [*views.global_crops, *views.local_crops])]

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return [] if self.teacher is None else [l2_normalize(z) for z in self.each(self.teacher, views.global_crops)]

    def compute_loss(self, online: list[Tensor], target: list[Tensor], numbers: Iterable[float | Tensor]) -> Loss:
        targets = target or online[: self.global_views]
        dots = []
        for crop, z in enumerate(online):
            # Of several targets the mean, not made a unit vector again, as the official code does for local crops.
            seen = [targets[view] for view in others(crop, len(targets))]
            dots.append((z * (reduce(torch.add, seen) / len(seen))).sum(1))
        aligned = torch.stack(global_means(dots)).mean()
        entropy = torch.stack(_entropy_surrogates(online, self.eta, self.chunk)).mean()
        return Loss(-aligned - self.entropy_weight * entropy, {"alignment": aligned.detach()})

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.ema_update(self._online, progress.fraction)
