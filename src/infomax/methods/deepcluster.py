"""DeepCluster-v2: "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", Caron, Misra, Mairal,
Goyal, Bojanowski, Joulin, arXiv 2006.09882, appendix; after "Deep Clustering for Unsupervised Learning of Visual
Features", Caron, Bojanowski, Joulin, Douze, arXiv 1807.05520.

Before each epoch, k-means groups the embeddings that all images had when they were last seen. During the epoch, all
views of an image are to be classified into its cluster, by the centroids themselves.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from infomax.functional import check_precision, check_rows, full_precision
from infomax.methods.base import Embed, Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.nn.kmeans import kmeans
from infomax.nn.memory import Clusters, ImageMemory
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather, global_sum, rank, world_size


def spherical_kmeans(
    embeddings: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"], *, iterations: int = 10
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " n"]]:
    """Groups embeddings by spherical k-means: centroids are directions, and the nearest has the largest dot product.

    In each iteration each embedding is assigned to the centroid with the largest dot product, the first one of equals;
    each centroid becomes the mean of its embeddings, and stays if it has none; then all are divided by their norms.

    Args:
        embeddings: Embeddings of this rank's images, [n, D]; they are not normalised here.
        centroids: The centroids to start from, [K, D], the same on all ranks. They are held constant.
        iterations: The number of iterations.

    Returns:
        The centroids, [K, D], and the cluster of each of this rank's images by a last assignment, int64 [n].

    Raises:
        ValueError: If a matrix is not finite, their widths differ, or ``iterations`` is below 0.

    Example:
        >>> import torch
        >>> from infomax.methods.deepcluster import spherical_kmeans
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
        >>> centroids, assignment = spherical_kmeans(embeddings, embeddings[1:], iterations=1)
        >>> centroids  # the first one is the direction of the mean of the first two embeddings
        tensor([[ 0.9487,  0.3162],
                [ 0.0000, -1.0000]])
        >>> assignment
        tensor([0, 0, 1])
    """
    check_rows("embeddings", embeddings)
    check_rows("centroids", centroids)
    if embeddings.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"centroids must have the width of embeddings, {embeddings.shape[1]}, but have {centroids.shape[1]}"
        )
    check_precision("centroids", centroids, embeddings)
    check_count("iterations", iterations, low=0)
    return kmeans(embeddings.detach(), centroids.detach(), iterations, spherical=True)


def cluster_loss(
    scores: Sequence[Float[Tensor, "b k"]], assignment: Int[Tensor, " b"], *, temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Computes the mean cross-entropy of classifying each crop into the cluster of its image, in nats.

    ``-log softmax(scores / t)[assignment]``, averaged over all crops of the global batch's images that have a cluster.

    Args:
        scores: Dot products of the embeddings of each crop with the centroids, one tensor [B, K] a crop. Gradients flow
            to them.
        assignment: The cluster of each image, int64 [B]; that of an image without a cluster is negative, as -100.
        temperature: The temperature t, above 0.

    Returns:
        The loss, a scalar; 0 if no image has a cluster.

    Raises:
        ValueError: If there are no scores, a matrix is not finite or of another shape than the first, ``assignment``
            does not hold a whole number below K for each image, or ``temperature`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.deepcluster import cluster_loss
        >>> scores = torch.tensor([[0.2, 0.0], [0.2, 0.0], [0.2, 0.0]])
        >>> round(cluster_loss([scores], torch.tensor([0, 1, -100])).item(), 4)  # 1 more than log(1 + exp(-2))
        1.1269
    """
    if isinstance(scores, Tensor) or not scores:
        raise ValueError("scores must be a list of matrices, one a crop")
    check_number("temperature", temperature, low=0, open_low=True)
    for crop, matrix in enumerate(scores):
        check_rows(f"scores[{crop}]", matrix, like=scores[0])
    check_assignment(assignment, *scores[0].shape)
    return classification_loss(scores, assignment, temperature)


def check_assignment(assignment: Tensor, images: int, clusters: int) -> None:
    """Checks that an assignment holds a cluster for each image; a negative number says that there is none.

    Args:
        assignment: The value to check.
        images: The number of images.
        clusters: The number of clusters.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(assignment, Tensor) or assignment.dtype != torch.int64 or [*assignment.shape] != [images]:
        actual = f"{assignment.dtype} {list(assignment.shape)}" if isinstance(assignment, Tensor) else type(assignment)
        raise ValueError(f"assignment must be int64 [{images}], one number an image, but is {actual}")
    if (largest := int(assignment.max())) >= clusters:
        raise ValueError(f"assignment must be below the number of clusters, {clusters}, but has {largest}")


@full_precision
def classification_loss(scores: Sequence[Tensor], assignment: Tensor, temperature: float) -> Tensor:
    """Computes :func:`cluster_loss` without its checks."""
    has_cluster = assignment >= 0
    cluster = assignment.clamp_min(0).unsqueeze(1)
    losses = []
    for matrix in scores:
        logits = matrix / temperature
        losses.append(logits.logsumexp(1) - logits.gather(1, cluster).squeeze(1))
    total = torch.where(has_cluster, torch.stack(losses).mean(0), 0).sum()
    total, count = global_sum(torch.stack([total, has_cluster.sum().to(total.dtype)])).unbind()
    return total / count.detach().clamp_min(1)


class DeepCluster(Method):
    """A method that trains DeepCluster-v2's encoder and projector, by clusters of all images that change each epoch.

    Each head is a clustering of its own. Its centroids are the prototypes, which no gradient trains.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        heads: The number of clusterings.
        prototypes: The number of clusters of each, K; at most the number of training images.
        temperature: The temperature of the loss; see :func:`cluster_loss`.
        iterations: The number of iterations of k-means; see :func:`spherical_kmeans`.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    remembers_images = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        heads: int,
        prototypes: int,
        temperature: float,
        iterations: int,
    ):
        super().__init__()
        counts = {"hidden": hidden, "dimension": dimension, "heads": heads, "prototypes": prototypes}
        for name, count in counts.items():
            check_count(name, count, low=1)
        check_count("iterations", iterations, low=0)
        check_number("temperature", temperature, low=0, open_low=True)
        self.dimension, self.heads, self.prototypes = dimension, heads, prototypes
        self.temperature, self.iterations = temperature, iterations
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=True)
        self._make_memory(0)

    def _make_memory(self, images: int) -> None:
        banks = min(self.heads, self.global_crop_count)
        self.memory = ImageMemory(banks, images, self.dimension)
        clusterings = [Clusters(self.prototypes, images, self.dimension) for _ in range(self.heads)]
        self.clusterings: Any = nn.ModuleList(clusterings)

    def prepare(self, images: int) -> None:
        if self.prototypes > images:
            raise ValueError(
                f"method.prototypes must be at most the number of images, {images}, but is {self.prototypes}"
            )
        self._make_memory(images)

    @full_precision
    def _scores(self, embeddings: Tensor, head: int) -> Tensor:
        return embeddings @ self.clusterings[head].centroids.T

    def cluster_logits(self, features: Tensor) -> Tensor:
        return self._scores(l2_normalize(self.projector(features)), 0)

    def _embed(self, views: list[Tensor]) -> list[Tensor]:
        return self.forward_each(lambda images: l2_normalize(self.project(images)), views)

    def before_epoch(self, progress: Progress, embed: Embed) -> None:
        """Fills the memory before the first epoch, and groups its rows anew before each one."""
        if not bool(self.memory.visited.any()):
            banks = len(self.memory.rows)
            for positions, embeddings in embed(lambda views: self._embed(views.global_crops)[:banks]):
                self.memory.store(positions, embeddings)
        visited = self.memory.visited.nonzero().flatten()
        mine = visited.tensor_split(world_size())[rank()]
        for head, clusters in enumerate(self.clusterings):
            rows = self.memory.rows[head % len(self.memory.rows)]
            random = np.random.default_rng([self.seed, progress.epoch, head])
            start = random.choice(len(visited), self.prototypes, replace=len(visited) < self.prototypes)
            start = rows[visited[torch.from_numpy(start).to(visited.device)]]
            centroids, assignment = kmeans(rows[mine], start, self.iterations, spherical=True)
            clusters.replace(centroids, visited, gather(assignment)[0])

    def online(self, views: Views) -> list[Tensor]:
        return self._embed(views.crops)

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        """Returns the clusters of the images, [B, heads], and their positions, [B]."""
        positions = views.positions
        assert positions is not None
        return [torch.stack([x.assignment[positions] for x in self.clusterings], 1), positions]

    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        return [(self._scores(z, 0) / self.temperature).softmax(1) for z in online]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        losses = []
        for head, assignment in enumerate(target[0].unbind(1)):
            losses.append(classification_loss([self._scores(z, head) for z in online], assignment, self.temperature))
        return Loss(torch.stack(losses).mean(), {})

    def remember(self, online: list[Tensor], target: list[Tensor]) -> None:
        self.memory.store_batch(target[1], online[: len(self.memory.rows)])
