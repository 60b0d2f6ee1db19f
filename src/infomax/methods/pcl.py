"""PCL: "Prototypical Contrastive Learning of Unsupervised Representations", Li, Zhou, Xiong, Hoi, arXiv 2005.04966.

Before each epoch k-means groups the teacher's embeddings of all images, several times with different numbers of
clusters. A query of MoCo v2 is to be near the centroid of its image too, the nearer the denser that cluster is.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from infomax.functional import check_precision, check_rows, full_precision
from infomax.methods.base import Embed, Loss, Method, Progress, Views
from infomax.methods.deepcluster import check_assignment, classification_loss
from infomax.methods.moco import Moco
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize
from infomax.nn.kmeans import kmeans
from infomax.nn.memory import Clusters
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather, global_sum, rank, world_size

LOW, HIGH = 0.1, 0.9
"""The quantiles that the concentrations of all clusters are clipped to."""


def concentration(
    embeddings: Float[Tensor, "n d"],
    centroids: Float[Tensor, "k d"],
    assignment: Int[Tensor, " n"],
    *,
    temperature: float = 0.2,
    smoothing: float = 10.0,
) -> Float[Tensor, " k"]:
    """Computes the concentration of each cluster, which is the temperature of its logit: Eq. 12 and what follows it.

    ``phi_k`` is the mean distance of the cluster's embeddings to its centroid over ``log(n_k + a)``. A cluster of one
    embedding or none gets the largest of all. They are clipped to the quantiles .1 and .9, with linear interpolation,
    of which one that is still 0, as of equal embeddings, becomes the largest, and scaled to a mean of the temperature;
    all get the temperature if no cluster has any extent. No gradient flows.

    Args:
        embeddings: Embeddings of this rank's images, [n, D].
        centroids: The centroids, [K, D], as k-means gives them: means of embeddings. They are the same on all ranks.
        assignment: The cluster of each of this rank's images, int64 [n]; it is negative if there is none.
        temperature: The mean of the result, above 0.
        smoothing: The constant a, at least 1.

    Returns:
        The concentrations, [K], the same on all ranks.

    Raises:
        ValueError: If a matrix is not finite, their widths differ, ``assignment`` does not hold a whole number below K
            for each image, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.pcl import concentration
        >>> embeddings = torch.tensor([[0.0], [2.0], [5.0], [5.2]])
        >>> centroids, assignment = torch.tensor([[1.0], [5.1]]), torch.tensor([0, 0, 1, 1])
        >>> concentration(embeddings, centroids, assignment)  # the second cluster is the denser one
        tensor([0.3309, 0.0691])
    """
    check_rows("embeddings", embeddings)
    check_rows("centroids", centroids)
    if embeddings.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"centroids must have the width of embeddings, {embeddings.shape[1]}, but have {centroids.shape[1]}"
        )
    check_assignment(assignment, len(embeddings), len(centroids))
    check_number("temperature", temperature, low=0, open_low=True)
    check_number("smoothing", smoothing, low=1)
    return _concentration(embeddings, centroids, assignment, temperature, smoothing)


@torch.no_grad()
@full_precision
def _concentration(
    embeddings: Tensor, centroids: Tensor, assignment: Tensor, temperature: float, smoothing: float
) -> Tensor:
    has_cluster, cluster = assignment >= 0, assignment.clamp_min(0)
    distances = torch.cat(
        [(x - centroids[k]).norm(dim=1) for x, k in zip(embeddings.split(2**16), cluster.split(2**16), strict=True)]
    )
    # On a GPU bincount adds in an order of its own, and a product with a matrix of zeros and ones would be large.
    order = torch.argsort(cluster.masked_fill(~has_cluster, len(centroids)), stable=True)
    lengths = torch.bincount(cluster[has_cluster], minlength=len(centroids))
    sums = torch.segment_reduce(distances[order][: int(lengths.sum())], "sum", lengths=lengths, initial=0)
    sums, counts = global_sum(torch.stack([sums, lengths.to(sums.dtype)])).unbind()
    density = torch.where(counts > 1, sums / counts.clamp_min(1) / (counts + smoothing).log(), 0)
    density = torch.where(counts > 1, density, density.max())
    density = density.clamp(density.quantile(LOW), density.quantile(HIGH))
    density = torch.where(density > 0, density, density.max())  # clusters of equal embeddings: logits are divided by it
    mean = density.mean()
    return torch.where(mean > 0, temperature * density / mean, temperature)


def prototype_loss(
    z: Float[Tensor, "b d"],
    centroids: Float[Tensor, "k d"],
    assignment: Int[Tensor, " b"],
    concentration: Float[Tensor, " k"],
) -> Float[Tensor, ""]:
    """Computes the mean cross-entropy of finding the centroid of each image among all centroids, in nats.

    ``-log softmax_k(z c_k / phi_k)[assignment]`` with cosines, averaged over the global batch: the second term of
    Eq. 11 for one clustering. The official code draws 16384 other centroids at random (docs/decisions.md,
    pcl-negatives).

    Args:
        z: Embeddings, [B, D]; they are L2-normalised here. Gradients flow to them.
        centroids: The centroids, [K, D], the same on all ranks; they are L2-normalised here, and held constant.
        assignment: The cluster of each image, int64 [B]; an image whose number is negative does not count.
        concentration: The temperature phi of each cluster, [K], above 0; see :func:`concentration`. It is held
            constant.

    Returns:
        The loss, a scalar; 0 if no image has a cluster.

    Raises:
        ValueError: If an argument is not finite or of another shape, ``assignment`` does not hold a whole number below
            K for each image, or a concentration is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.pcl import prototype_loss
        >>> z = torch.eye(3)
        >>> round(prototype_loss(z, z, torch.tensor([0, 1, 2]), torch.ones(3)).item(), 4)  # log(e + 2) - 1
        0.5514
    """
    check_rows("z", z)
    check_rows("centroids", centroids)
    if z.shape[1] != centroids.shape[1]:
        raise ValueError(f"centroids must have the width of z, {z.shape[1]}, but have {centroids.shape[1]}")
    check_precision("centroids", centroids, z)
    check_assignment(assignment, len(z), len(centroids))
    if not isinstance(concentration, Tensor) or concentration.shape != centroids.shape[:1]:
        actual = [*concentration.shape] if isinstance(concentration, Tensor) else type(concentration).__name__
        raise ValueError(f"concentration must have a number for each of {len(centroids)} centroids, but is {actual}")
    if not bool((concentration.isfinite() & (concentration > 0)).all()):
        raise ValueError("concentration must be finite and above 0")
    check_precision("concentration", concentration, z)
    return _prototype_loss([z], _scaled(centroids.detach(), concentration.detach()), assignment)


@full_precision
def _scaled(centroids: Tensor, concentration: Tensor) -> Tensor:
    return l2_normalize(centroids) / concentration.unsqueeze(1)


@full_precision
def _prototype_loss(embeddings: Sequence[Tensor], scaled: Tensor, assignment: Tensor) -> Tensor:
    return classification_loss([l2_normalize(z) @ scaled.T for z in embeddings], assignment, 1.0)


class Pcl(Method):
    """A method that trains MoCo v2's encoder and projector, with prototypes of several clusterings beside its queue.

    The loss is MoCo's and, after some epochs, the mean over clusterings of :func:`prototype_loss` of the queries.

    Args:
        moco: MoCo, whose networks, teacher and queue these are; it is not trained on its own.
        clusters: The numbers of clusters of each clustering; at most the number of training images.
        warmup_epochs: The number of epochs at the start without prototypes.
        iterations: The number of iterations of k-means.
        smoothing: The constant in :func:`concentration`; its temperature is MoCo's.

    Raises:
        ValueError: If a number is out of range.
    """

    remembers_images = True

    def __init__(self, moco: Moco, *, clusters: Sequence[int], warmup_epochs: int, iterations: int, smoothing: float):
        super().__init__()
        for count in clusters:
            check_count("clusters", count, low=1)
        check_count("clusters", len(clusters), low=1)
        check_count("warmup_epochs", warmup_epochs, low=0)
        check_count("iterations", iterations, low=0)
        check_number("smoothing", smoothing, low=1)
        self.clusters, self.warmup_epochs = tuple(clusters), warmup_epochs
        self.iterations, self.smoothing = iterations, smoothing
        self.moco = moco
        self._make_memory(0)

    def _make_memory(self, images: int) -> None:
        dimension = self.moco.queue.rows.shape[1]
        self.clusterings: Any = nn.ModuleList([Clusters(count, images, dimension) for count in self.clusters])

    def prepare(self, images: int) -> None:
        if max(self.clusters) > images:
            raise ValueError(
                f"method.clusters must be at most the number of images, {images}, but has {max(self.clusters)}"
            )
        self._make_memory(images)

    @property
    def encoder(self) -> Encoder:  # pyrefly: ignore[bad-override]
        return self.moco.encoder

    @property
    def projector(self) -> nn.Module:  # pyrefly: ignore[bad-override]
        return self.moco.projector

    @property
    def eval_encoder(self) -> Encoder:
        return self.moco.eval_encoder

    def before_epoch(self, progress: Progress, embed: Embed) -> None:
        """Groups the teacher's embeddings of the last global crop of each image, if the warm-up is over."""
        if progress.epoch < self.warmup_epochs:
            for clusters in self.clusterings:
                clusters.clear()
            return
        self.moco.joint_forward = self.joint_forward
        passed = list(embed(lambda views: [l2_normalize(self.moco.teacher(views.global_crops[-1]))]))
        positions, rows = torch.cat([x for x, _ in passed]), torch.cat([x[0] for _, x in passed])
        mine = torch.arange(len(rows), device=rows.device).tensor_split(world_size())[rank()]
        for number, clusters in enumerate(self.clusterings):
            count = len(clusters.centroids)
            random = np.random.default_rng([self.seed, progress.epoch, number])
            start = random.choice(len(rows), count, replace=len(rows) < count)
            start = rows[torch.from_numpy(start).to(rows.device)]
            centroids, assignment = kmeans(rows[mine], start, self.iterations, spherical=False)
            phi = _concentration(rows[mine], centroids, assignment, self.moco.temperature, self.smoothing)
            clusters.replace(_scaled(centroids, phi), positions, gather(assignment)[0])

    def online(self, views: Views) -> list[Tensor]:
        self.moco.joint_forward = self.joint_forward
        return self.moco.online(views)

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        """Returns the keys of MoCo, and at last the clusters of the images, [B, clusterings]."""
        assert views.positions is not None
        clusters = [x.assignment[views.positions] for x in self.clusterings]
        return [*self.moco.target(views), torch.stack(clusters, 1)]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        *keys, assignments = target
        contrast = self.moco.compute_loss(online, keys, schedule_values).total
        losses = [
            _prototype_loss(online, clusters.centroids, assignment)
            for clusters, assignment in zip(self.clusterings, assignments.unbind(1), strict=True)
        ]
        prototypes = torch.stack(losses).mean()
        return Loss(contrast + prototypes, {"contrast": contrast.detach(), "prototypes": prototypes.detach()})

    def after_step(self, progress: Progress) -> None:
        self.moco.after_step(progress)
