"""MVEB: "Self-Supervised Learning with Multi-View Entropy Bottleneck", Wen, Wang, Liu, Xu, arXiv 2403.19078.

Views of an image are aligned, and the entropy of their embeddings on the unit sphere is maximised (Eq. 11). Entropy has
no closed form, but its gradient needs only the score of the embeddings' density, which Stein's identity estimates from
a batch (Eqs. 13-17 and appendix A).
"""

from collections.abc import Iterable
from functools import cache, reduce
from math import lgamma, log, pi

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views, other_global_crops
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather, global_mean, global_means, row_counts

CONCENTRATIONS = tuple(4.0**power for power in range(8))
"""The concentrations of the kernels that :func:`estimate_entropy` chooses from, besides 0; 1 / bandwidth each."""


def stein_score(
    z: Float[Tensor, "m d"], *, eta: float = 0.01, bandwidth: float | None = None, scope: str = "global"
) -> Float[Tensor, "m d"]:
    """Estimates the score, the gradient of the log-density, of the global batch at each of its rows (Eq. 26).

    This is the ridge-regression estimator of Eq. 26 with the von Mises-Fisher kernel ``exp(<z, z'> / bandwidth)`` of
    Eq. 18, computed in float64. Its radial part has no effect on anything that is differentiated through L2
    normalisation; training leaves it out (docs/decisions.md, mveb-tangent). No gradient flows through the result.

    Args:
        z: Embeddings of unit norm, [M, D] with M >= 2 over all ranks, one row a sample.
        eta: The ridge above 0 that is added to the kernel matrix, whose diagonal is ``exp(1 / bandwidth)``.
        bandwidth: The bandwidth of the kernel, above 0. None takes the official rule: of all M^2 cosine distances in
            falling order, zeros of the diagonal included, the one at position floor(M^2 / 2), but at least 0.1.
        scope: The samples that one estimate is made from. ``global`` takes the global batch. ``chunk:n`` takes each n
            samples of it in their order, whatever the number of ranks; ``chunk:128`` is what the official run on 32
            GPUs amounts to. ``local`` takes the samples of each rank (docs/decisions.md, mveb-scope).

    Returns:
        The scores at this rank's rows, [M, D].

    Raises:
        ValueError: If ``z`` is not a finite matrix with rows of unit norm, or another argument is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.mveb import stein_score
        >>> z = torch.tensor([[0.8, -0.6], [1.0, 0.0], [0.8, 0.6]])  # three points on the unit circle
        >>> along_the_circle = torch.stack([-z[:, 1], z[:, 0]], dim=1)
        >>> scores = (stein_score(z) * along_the_circle).sum(1)
        >>> round(scores[0].item(), 3), round(scores[2].item(), 3)  # density rises from both ends to the middle
        (1.549, -1.549)
    """
    _check_embeddings("z", z, min_rows=2)
    check_number("eta", eta, low=0, open_low=True)
    if bandwidth is not None:
        check_number("bandwidth", bandwidth, low=0, open_low=True)
    return _stein_scores([z], eta, chunk_size(scope), bandwidth, radial=True)[0]


def chunk_size(scope: str) -> int | None:
    """Returns the number of samples of one estimate.

    Args:
        scope: As in :func:`stein_score`.

    Returns:
        n for ``chunk:n``, 0 for ``global``, None for ``local``.

    Raises:
        ValueError: If ``scope`` is something else.
    """
    if scope in ("global", "local"):
        return 0 if scope == "global" else None
    kind, _, size = scope.partition(":")
    if kind != "chunk" or not size.isdecimal() or int(size) < 2:
        raise ValueError(f"score_scope must be global, local, or chunk:n with n of at least 2, but is {scope[:60]!r}")
    return int(size)


@torch.no_grad()
@full_precision
def _stein_scores(
    zs: list[Tensor], eta: float, chunk: int | None, bandwidth: float | None = None, *, radial: bool = False
) -> list[Tensor]:
    """Estimates the scores of several views of the same images, whose rows the ranks exchange together.

    Args:
        zs: The embeddings of each view, [M, D].
        eta: The ridge.
        chunk: The number of samples of one estimate; see :func:`chunk_size`.
        bandwidth: The bandwidth of the kernel; None takes the official rule.
        radial: Whether the radial part is that of Eq. 26.

    Returns:
        The scores of each view, [M, D].
    """
    dtype = zs[0].dtype
    if chunk is None:
        return [_score(z.double(), eta, bandwidth, radial=radial).to(dtype) for z in zs]
    counts = row_counts(zs[0])
    if chunk and all(count % chunk == 0 for count in counts):  # no chunk lies on two ranks
        chunks = (z.double().unflatten(0, (-1, chunk)) for z in zs)
        return [_score(z, eta, bandwidth, radial=radial).flatten(0, 1).to(dtype) for z in chunks]
    all_rows, mine = gather(torch.cat(zs, dim=1), counts) if len(zs) > 1 else gather(zs[0], counts)
    scores = []
    for z in all_rows.split([z.shape[1] for z in zs], dim=1):
        # The chunks that this rank's rows are in.
        first, last = (mine.start // chunk * chunk, -(-mine.stop // chunk) * chunk) if chunk else (0, len(z))
        needed = z[first:last].double()
        samples = needed.split(chunk or len(z))
        score = torch.cat([_score(rows, eta, bandwidth, radial=radial) for rows in samples])
        scores.append(score[mine.start - first : mine.stop - first].to(dtype))
    return scores


def _score(
    z: Float64[Tensor, "... m d"], eta: float, bandwidth: float | None, *, radial: bool
) -> Float64[Tensor, "... m d"]:
    """Computes one estimate for each batch of ``m`` samples.

    Args:
        z: The samples.
        eta: The ridge.
        bandwidth: The bandwidth of the kernel; None takes the official rule.
        radial: Whether the radial part is that of Eq. 26; if not, it is whatever costs the fewest digits.
    """
    # Distances from the centred Gram matrix keep their digits when all embeddings are nearly equal; 1 - <z, z'> loses
    # them. Subtracting the mean and, row by row, a multiple of the centred embedding changes the radial part alone.
    mean = z.mean(-2, keepdim=True)
    centred = z - mean
    squares = centred.square().sum(-1)
    distance = ((squares.unsqueeze(-2) + squares.unsqueeze(-1)) / 2 - centred @ centred.mT).clamp_min(0)
    distance.diagonal(dim1=-2, dim2=-1).zero_()
    m = z.shape[-2]
    if bandwidth is None:
        rank_from_below = min(m * m - m * m // 2 + 1, m * m)  # a last chunk may be one sample
        flat = distance.flatten(-2)
        # On a GPU kthvalue has no deterministic form; both give the same value.
        middle = flat.sort().values[..., rank_from_below - 1] if z.is_cuda else flat.kthvalue(rank_from_below).values
        width = middle.clamp_min(0.1)[..., None, None]
    else:
        width = distance.new_tensor(bandwidth)
    kernel = torch.exp(-distance / width)  # exp(<z, z'> / width) over its diagonal, and the ridge likewise
    row_sum = kernel.sum(-1, keepdim=True)
    # The second ridge, at rounding level, keeps the factorisation possible if the bandwidth is so small that eta
    # vanishes.
    ridge = eta * torch.exp(-1 / width) + 1e-14 * m
    kernel.diagonal(dim1=-2, dim2=-1).add_(ridge.squeeze(-1) if ridge.ndim else ridge)
    # If the samples contain NaN the result is NaN; an error would stop this rank while the others wait for it.
    factor, failed = torch.linalg.cholesky_ex(kernel)
    solution = torch.cholesky_solve(torch.cat([row_sum * centred, row_sum], dim=-1), factor)
    of_sums = solution[..., -1:]
    score = (of_sums * (-mean if radial else centred) - solution[..., :-1]) / width
    return torch.where((failed == 0)[..., None, None], score, torch.nan)


def entropy_surrogate(z: Float[Tensor, "m d"], *, eta: float = 0.01, scope: str = "global") -> Float[Tensor, ""]:
    """Computes a scalar whose gradient is that of the entropy of ``z``'s density (Eqs. 13-17); its value means nothing.

    Args:
        z: Embeddings of unit norm, [M, D] with M >= 2 over all ranks, one row a sample; gradients flow to them.
        eta: The ridge above 0 of the estimate; see :func:`stein_score`.
        scope: The samples that one estimate is made from: ``global``, ``chunk:n`` or ``local``; see there.

    Returns:
        The surrogate, a scalar.

    Raises:
        ValueError: If ``z`` is not a finite matrix with rows of unit norm, or another argument is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.mveb import entropy_surrogate, stein_score
        >>> z = torch.tensor([[0.8, -0.6], [1.0, 0.0], [0.8, 0.6]], requires_grad=True)
        >>> entropy_surrogate(z).backward()
        >>> torch.allclose(z.grad, -stein_score(z) / len(z))
        True
        >>> moved = z.detach() + 0.1 * z.grad  # a step up the entropy takes the outer points further apart
        >>> moved = moved / moved.norm(dim=1, keepdim=True)
        >>> round((z[0] @ z[2]).item(), 3), round((moved[0] @ moved[2]).item(), 3)  # their cosine
        (0.28, 0.194)
    """
    _check_embeddings("z", z, min_rows=2)
    check_number("eta", eta, low=0, open_low=True)
    return _entropy_surrogates([z], eta, chunk_size(scope), radial=True)[0]


@full_precision
def _entropy_surrogates(zs: list[Tensor], eta: float, chunk: int | None, *, radial: bool = False) -> list[Tensor]:
    """Computes the surrogates of several views; ``radial`` as in :func:`_stein_scores`."""
    scores = _stein_scores(zs, eta, chunk, radial=radial)
    return global_means([-(s * z).sum(1) for s, z in zip(scores, zs, strict=True)])


@torch.no_grad()
def estimate_entropy(z: Float[Tensor, "m d"]) -> float:
    """Estimates the entropy of embeddings on the unit sphere, in nats below that of the uniform density.

    ``-mean_i log p_i``, where p_i is the density at row i that a kernel estimate makes of all other rows, relative to
    the uniform density. Its kernel is that of Eq. 18, a von Mises-Fisher density, with the concentration among those of
    ``CONCENTRATIONS`` that gives the largest likelihood (docs/decisions.md, mveb-entropy). It is 0 for embeddings
    spread as evenly as a uniform density spreads them, and falls as they come together, down to what the largest
    concentration gives to one point. On average over samples it is above the true entropy rather than below it. The
    surrogate of :func:`entropy_surrogate` has the gradient of an entropy, but no value. The entropy relative to the
    sphere's area is this plus the area's logarithm.

    Args:
        z: Embeddings, [M, D] with M >= 2, one row a sample; they are L2-normalised here. They are those of one rank.

    Returns:
        The estimate, 0 or less.

    Raises:
        ValueError: If ``z`` is not a finite matrix with 2 rows or more.

    Example:
        >>> import torch
        >>> from infomax.methods.mveb import estimate_entropy
        >>> angles = torch.linspace(0, 2 * torch.pi, 101)[:-1]
        >>> around = torch.stack([angles.cos(), angles.sin()], dim=1)
        >>> an_eighth = torch.stack([(angles / 8).cos(), (angles / 8).sin()], dim=1)
        >>> abs(round(estimate_entropy(around), 2)), round(estimate_entropy(an_eighth), 2)  # log 8 is 2.08
        (0.0, -1.96)
    """
    if z.ndim != 2 or len(z) < 2 or not z.isfinite().all():
        raise ValueError(
            f"z must be a finite matrix with 2 rows or more, but has shape {list(z.shape)} or contains NaN"
        )
    z = l2_normalize(z.double())
    centred = z - z.mean(0)  # see _score
    squares = centred.square().sum(1)
    distance = ((squares.unsqueeze(1) + squares) / 2 - centred @ centred.T).clamp_min_(0)
    distance.fill_diagonal_(torch.inf)
    largest = 0.0  # the likelihood of the uniform density, which is the kernel of concentration 0
    for concentration in CONCENTRATIONS:
        log_density = (distance * -concentration).logsumexp(1) - log(len(z) - 1)
        likelihood = float(log_density.mean()) + concentration - _log_normaliser(concentration, z.shape[1])
        largest = max(largest, likelihood)
    return -largest


@cache
def _log_normaliser(concentration: float, dimension: int) -> float:
    """Computes the logarithm of the mean of ``exp(concentration <z, m>)`` over the unit sphere.

    This is ``0F1(D/2; concentration^2 / 4)``, whose terms are summed in the log domain.
    """
    count = int(concentration) + 50  # terms; the largest one is below concentration / 2
    n, half = torch.arange(count, dtype=torch.float64), torch.tensor(dimension / 2, dtype=torch.float64)
    log_terms = 2 * n * log(concentration / 2) - torch.lgamma(n + 1) - torch.lgamma(half + n) + torch.lgamma(half)
    return float(log_terms.logsumexp(0))


@full_precision
def alignment(online: Float[Tensor, "m d"], target: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Computes the mean dot product of corresponding rows over the global batch (the first term of Eq. 11).

    The paper's Algorithm 1 prints the mean over all pairs of rows, which would align an image with every other
    (docs/decisions.md, mveb-alignment).

    Args:
        online: The embeddings of one view, [M, D], one row an image; gradients flow to them.
        target: The embeddings of the other view of the same images, [M, D]; gradients flow to them too.

    Returns:
        The alignment, a scalar: the mean cosine if all rows have unit norm.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, or their shapes differ.

    Example:
        >>> import torch
        >>> from infomax.methods.mveb import alignment
        >>> online, target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
        >>> round(alignment(online, target).item(), 4)  # the mean of 0.6 and 1
        0.8
    """
    check_rows("online", online)
    check_rows("target", target, like=online)
    return global_mean((online * target).sum(1))


@full_precision
def conditional_entropy_bound(
    online: Float[Tensor, "m d"], target: Float[Tensor, "m d"], *, concentration: float
) -> Float[Tensor, ""]:
    """Computes the upper bound of H(z1 | v2), the entropy of a view's embedding given the other view, in nats (Eq. 9).

    ``-log C_D(kappa) - kappa mean <z1, z2>``, where C_D is the normalisation of the von Mises-Fisher density with the
    concentration kappa (Eq. 8). It is an entropy with respect to the sphere's area, which may be negative, and the
    entropy itself if z1 given v2 has such a density around z2.

    Args:
        online: The embeddings of one view, [M, D] of unit norm with D >= 2, one row an image; gradients flow to them.
        target: The embeddings of the other view of the same images, [M, D]; gradients flow to them too.
        concentration: kappa, above 0.

    Returns:
        The bound, a scalar.

    Raises:
        ValueError: If an argument is not a finite matrix with rows of unit norm, their shapes differ, D is 1, or
            ``concentration`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.mveb import conditional_entropy_bound
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(conditional_entropy_bound(z, z, concentration=2.0).item(), 4)  # log(2 pi I0(2)) - 2
        0.6619
    """
    _check_embeddings("online", online, min_rows=1)
    _check_embeddings("target", target, min_rows=1)
    check_number("concentration", concentration, low=0, open_low=True)
    check_count("the number of columns of online", online.shape[1], low=2)
    half = online.shape[1] / 2
    log_area = log(2) + half * log(pi) - lgamma(half)
    return log_area + _log_normaliser(float(concentration), online.shape[1]) - concentration * alignment(online, target)


def balance_factor(trade_off: float, concentration: float) -> float:
    """Returns beta, the weight of the entropy in Eqs. 10 and 11: ``1 / ((lambda + 1) kappa)``.

    Args:
        trade_off: lambda of Eq. 1, the weight of the superfluous information, not negative.
        concentration: kappa of Eq. 8, above 0.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from infomax.methods.mveb import balance_factor
        >>> balance_factor(4.0, 20.0)  # the paper's beta, which fixes neither
        0.01
    """
    check_number("trade_off", trade_off, low=0)
    check_number("concentration", concentration, low=0, open_low=True)
    return 1 / ((trade_off + 1) * concentration)


def _check_embeddings(name: str, z: Tensor, *, min_rows: int) -> None:
    check_rows(name, z, min_rows=min_rows)
    if (deviation := float((z.detach().float().norm(dim=1) - 1).abs().max())) > 1e-2:
        raise ValueError(
            f"{name} must have rows of unit norm, but one is off by {deviation:.3g}; L2-normalise them first"
        )


class Mveb(Method):
    """A method that trains MVEB's online branch; its target branch is an EMA teacher, or shares the online weights.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        entropy_weight: The weight of the entropy, beta of Eq. 11, not negative.
        eta: The ridge of the score estimate, above 0; see :func:`stein_score`.
        score_scope: The samples that one estimate is made from; see ``scope`` there.
        momentum: The EMA momentum of the target branch at the start; a cosine raises it to 1. None shares the online
            weights with the target branch, and gradients then flow through both (Sec. 7.1).

    Raises:
        ValueError: If a width or a number is out of range.
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

    def online(self, views: Views) -> list[Tensor]:
        embeddings = self.forward_each(self._online, views.crops)
        return [l2_normalize(z) for z in embeddings]

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        if self.teacher is None:
            return []
        return [l2_normalize(z) for z in self.forward_each(self.teacher, views.global_crops)]

    def own_measures(self, embeddings: Tensor) -> dict[str, float]:
        return {"entropy": estimate_entropy(embeddings)}

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        targets = target or online[: self.global_crop_count]
        dots = []
        for view, z in enumerate(online):
            # The mean of several targets is not normalised again (docs/decisions.md, mveb-local-target).
            others = [targets[crop] for crop in other_global_crops(view, len(targets))]
            dots.append((z * (reduce(torch.add, others) / len(others))).sum(1))
        aligned = torch.stack(global_means(dots)).mean()
        entropy = torch.stack(_entropy_surrogates(online, self.eta, self.chunk)).mean()
        return Loss(-aligned - self.entropy_weight * entropy, {"alignment": aligned.detach()})

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.ema_update(self._online, progress.fraction)
