"""DenseCL: "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", Wang, Zhang, Shen, Kong, Li,
arXiv 2011.09157.

MoCo v2 compares images by what the encoder pools. DenseCL compares the cells of its feature map too: a cell of one view
queries the cell of the other view whose features are the most like its own, beside a queue of whole images.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.functional import check_precision, check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.methods.moco import QueryPairs, queue_cross_entropy
from infomax.models.encoders import Encoder
from infomax.models.pooled_map import PooledMap, keep_pooled_map
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.nn.queue import Queue, check_queue
from infomax.runtime.checks import check_count, check_number


def dense_loss(
    query: Float[Tensor, "b d s"],
    key: Float[Tensor, "b d s"],
    query_features: Float[Tensor, "b c s"],
    key_features: Float[Tensor, "b c s"],
    queue: Float[Tensor, "k d"],
    *,
    temperature: float = 0.2,
) -> Float[Tensor, ""]:
    """Computes DenseCL's loss: the mean cross-entropy of finding each cell's key among it and a queue, in nats.

    Cell s of a query has the key of the cell s' of the other view whose backbone features have the largest cosine to
    its own (Eq. 4); of equal ones, the first. The loss is that of :func:`infomax.methods.moco.queue_loss` for these
    pairs, averaged over the cells of all images of the global batch (Eq. 2).

    Args:
        query: Dense projections of one view, [B, D, S] with S cells; each cell is L2-normalised here. Gradients flow to
            them.
        key: The teacher's dense projections of the other view of the same images, [B, D, S]; each cell is
            L2-normalised here, and held constant.
        query_features: The feature map that ``query`` was projected from, [B, C, S]; held constant.
        key_features: The feature map that ``key`` was projected from, [B, C, S]; held constant.
        queue: Keys of earlier images, [K, D], of unit norm and the same on every rank; they are held constant.
        temperature: The temperature t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not finite or of another shape, or ``temperature`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.densecl import dense_loss
        >>> z = torch.eye(4)[:, :2].unsqueeze(0)  # one image with 2 cells of 4 numbers
        >>> swapped, queue = z.flip(2), torch.eye(4)[2:]
        >>> round(dense_loss(z, swapped, z, swapped, queue, temperature=1.0).item(), 4)  # log(e + 2) - 1
        0.5514
    """
    _check_cells("query", query)
    _check_cells("key", key, like=query)
    _check_cells("query_features", query_features)
    _check_cells("key_features", key_features, like=query_features)
    if query_features.shape[::2] != query.shape[::2]:
        raise ValueError(
            f"query_features must have the images and cells of query, {list(query.shape[::2])}, but have "
            f"{list(query_features.shape[::2])}"
        )
    check_queue(queue, query[:, :, 0])
    check_number("temperature", temperature, low=0, open_low=True)
    q, k, features, others = (x.transpose(1, 2) for x in (query, key, query_features, key_features))
    return _dense_loss(q, k, features, others, queue, temperature)


def _check_cells(name: str, x: Tensor, *, like: Tensor | None = None) -> None:
    """Checks that ``x`` is a finite floating-point tensor of images, channels and cells, of the shape of another."""
    if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
        actual = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a floating-point tensor [images, channels, cells], but is {actual}")
    if like is not None and x.shape != like.shape:
        raise ValueError(f"{name} must have the shape {list(like.shape)} of its counterpart, but has {list(x.shape)}")
    if like is not None:
        check_precision(name, x, like)
    check_rows(name, x.flatten(1))


@full_precision
def _dense_loss(
    query: Float[Tensor, "b s d"],
    key: Float[Tensor, "b t d"],
    query_features: Float[Tensor, "b s c"],
    key_features: Float[Tensor, "b t c"],
    queue: Float[Tensor, "k d"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Computes :func:`dense_loss` without its checks; the two views may have different numbers of cells."""
    nearest = _nearest_cells(query_features.detach(), key_features.detach())
    matched = key.detach().gather(1, nearest.unsqueeze(2).expand(-1, -1, key.shape[2]))
    return queue_cross_entropy(query.flatten(0, 1), matched.flatten(0, 1), queue, temperature)


@torch.no_grad()
@full_precision
def _nearest_cells(features: Float[Tensor, "b s c"], others: Float[Tensor, "b t c"]) -> Int[Tensor, "b s"]:
    """Returns for each cell the cell of the other map with the largest cosine; of equal ones, the first."""
    return (F.normalize(features, dim=2) @ F.normalize(others, dim=2).transpose(1, 2)).argmax(2)


@torch.no_grad()
@full_precision
def _image_keys(key: Float[Tensor, "b s d"]) -> Float[Tensor, "b d"]:
    """Computes what joins the queue of the cells: the average of each image's cells, of unit norm."""
    return l2_normalize(key.mean(1))


class _Branch(nn.Module):
    """A module that maps images to projections [B, D], dense projections [B, S, D] and cells of the map [B, S, C]."""

    def __init__(self, encoder: Encoder, pooled: PooledMap, projector: nn.Module, dense_projector: nn.Module):
        super().__init__()
        self.encoder, self.pooled = encoder, pooled
        self.projector, self.dense_projector = projector, dense_projector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.pooled.start()
        features = self.encoder(images)
        cells = self.pooled.take().flatten(2).transpose(1, 2)
        dense = self.dense_projector(cells.flatten(0, 1)).unflatten(0, cells.shape[:2])
        return self.projector(features), dense, cells.detach()


class DenseCl(Method):
    """A method that trains an encoder, a projector of images and one of cells, with keys of an EMA teacher.

    Views meet as in MoCo v2: see :class:`infomax.methods.moco.QueryPairs`. The loss is the weighted sum of MoCo's
    :func:`infomax.methods.moco.queue_loss` and of :func:`dense_loss`, each with a queue of its own, which holds the
    keys of whole images: in that of the cells, the average of an image's dense projections (docs/decisions.md,
    densecl-queue).

    Args:
        encoder: The encoder to train; its features are pooled from a map, as those of a ResNet.
        hidden: The width of the hidden layer of both projectors.
        dimension: The width of their outputs.
        projector_norm: Whether their hidden layers have BatchNorm, which the paper's have not.
        temperature: The temperature of both losses.
        queue_size: The number of keys in each queue.
        momentum: The EMA momentum of the teacher at the start of the run.
        momentum_end: Its EMA momentum at the end, to which a cosine leads.
        symmetric: Whether each of two views is query and key.
        dense_weight: The weight of the loss of cells, from 0 to 1; MoCo's has the rest.

    Raises:
        ValueError: If a width or a number is out of range, or the encoder pools no map.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        projector_norm: bool,
        temperature: float,
        queue_size: int,
        momentum: float,
        momentum_end: float,
        symmetric: bool,
        dense_weight: float,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("queue_size", queue_size)):
            check_count(name, width, low=1)
        check_number("temperature", temperature, low=0, open_low=True)
        check_number("dense_weight", dense_weight, low=0, high=1, open_high=False)
        self.temperature, self.dense_weight = temperature, dense_weight
        self.query_pairs = QueryPairs(symmetric)
        try:
            self.encoder, self.pooled = encoder, keep_pooled_map(encoder)
        except ValueError as error:
            raise ValueError(f"densecl compares the cells of feature maps, but {error}") from error
        self.projector = mlp(encoder.width, hidden, dimension, norm=projector_norm)
        # On rows of cells, linear layers are the paper's convolutions of 1x1.
        self.dense_projector = mlp(encoder.width, hidden, dimension, norm=projector_norm)
        self.teacher = Teacher(self._student, momentum, momentum_end)
        self.queue, self.dense_queue = Queue(queue_size, dimension), Queue(queue_size, dimension)

    @property
    def _student(self) -> _Branch:
        return _Branch(self.encoder, self.pooled, self.projector, self.dense_projector)

    @torch.no_grad()
    def check_view(self, images: Tensor) -> None:
        _, _, cells = self._student(images)
        if cells.shape[1] < 2:
            raise ValueError(
                f"densecl compares the cells of a feature map, of which views of {images.shape[2]} pixels give one "
                "alone; --image-size changes the size of the global crops, --views that of the others, and --set "
                "encoder.stem=cifar gives larger maps"
            )

    def _forward(self, network: nn.Module, views: list[Tensor]) -> list[Tensor]:
        """Returns the projections of all views, then their dense projections, then the cells of their maps."""
        outputs = self.forward_each_to_many(network, views)
        return [output for kind in zip(*outputs, strict=True) for output in kind]

    def online(self, views: Views) -> list[Tensor]:
        return self._forward(self._student, self.query_pairs.queries(views))

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return self._forward(self.teacher, self.query_pairs.keys(views))

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        queries, keys = _by_view(online), _by_view(target)
        queue, dense_queue = self.queue.before_step(), self.dense_queue.before_step()
        contrast, dense = [], []
        pairs = self.query_pairs.pairs(len(queries), len(keys))
        for query, key in pairs:
            (q, dense_q, features), (k, dense_k, key_features) = queries[query], keys[key]
            contrast.append(queue_cross_entropy(q, k, queue, self.temperature))
            dense.append(_dense_loss(dense_q, dense_k, features, key_features, dense_queue, self.temperature))
        if self.training and torch.is_grad_enabled():
            for number in sorted({key for _, key in pairs}):
                self.queue.enqueue(l2_normalize(keys[number][0]))
                self.dense_queue.enqueue(_image_keys(keys[number][1]))
        of_images, of_cells = torch.stack(contrast).mean(), torch.stack(dense).mean()
        total = (1 - self.dense_weight) * of_images + self.dense_weight * of_cells
        return Loss(total, {"contrast": of_images.detach(), "dense": of_cells.detach()})

    def after_step(self, progress: Progress) -> None:
        self.teacher.ema_update(self._student, progress.fraction)


def _by_view(outputs: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Returns the projections, dense projections and cells of each view, of which a list has one kind after another."""
    count = len(outputs) // 3
    return [tuple(outputs[view::count]) for view in range(count)]
