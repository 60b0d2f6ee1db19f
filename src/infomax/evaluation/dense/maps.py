"""The feature maps that are compared: that of an encoder, those of its baselines, and the raw pixels."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.splits import LabelledImages
from infomax.evaluation.dense.masks import DenseSource
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import Representation, baselines, represent
from infomax.features.extraction import cache_sized_chunks
from infomax.models.encoders import Encoder
from infomax.models.feature_maps import feature_map
from infomax.runtime.devices import float64_device, place_network, to_network

PIXEL_GRID = 4
"""Rows and columns of pixels, at most, that stand for a cell in the raw pixels."""


@dataclass(frozen=True)
class DenseRepresentation:
    """A frozen dataclass that holds a way from images to feature maps."""

    name: str
    encoder: str
    """Hash of the encoder's architecture and weights; empty for raw pixels."""
    identity: str
    """Hash of all that its maps follow from."""
    preprocessing: Preprocessing
    """How an image becomes the input, a square of ``size`` pixels."""
    cells: tuple[int, int]
    """Rows and columns of the map."""
    make_maps: Callable[[], Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b d rows columns"]]]
    """Returns the function from images on the CPU to maps where they are classified; that takes time for an untrained
    encoder."""


def dense_representations(
    encoder: str | PathLike[str], source: DenseSource, size: int | None, evaluation: EvaluationOptions
) -> Iterator[DenseRepresentation]:
    """Yields the encoder and its baselines as ways to feature maps.

    Args:
        encoder: Name of the encoder.
        source: The images, by which BatchNorm of the untrained encoder is set.
        size: Side of the images in pixels; None for that of the encoder's preprocessing.
        evaluation: Device, and whether there are baselines.

    Raises:
        ValueError: if the encoder gives no feature map for such images.
    """
    trained = represent(encoder, evaluation)
    network = trained.network
    assert network is not None
    side = size or network.preprocessing.size
    preprocessing = replace(network.preprocessing, resize=side, size=side)
    _, cells = feature_map(network.eval(), side, title=trained.name)
    images, _ = source.to_train
    everything = LabelledImages(images, np.arange(len(images)), np.zeros(len(images), int))
    others = [] if evaluation.no_baselines else baselines(encoder, trained, everything, evaluation)
    for representation in (trained, *others):
        words = f"{representation.identity} {preprocessing} {cells}"
        yield DenseRepresentation(
            name=representation.name,
            encoder=representation.identity,
            identity=hashlib.sha256(words.encode()).hexdigest()[:16],
            preprocessing=preprocessing,
            cells=cells,
            make_maps=_maker(representation, preprocessing, cells, evaluation.network_device),
        )


def _maker(
    representation: Representation, preprocessing: Preprocessing, cells: tuple[int, int], device: torch.device
) -> Callable[[], Callable[[Tensor], Tensor]]:
    def make() -> Callable[[Tensor], Tensor]:
        network = representation.network
        if network is None:
            return lambda images: _pixel_maps(images.to(float64_device(device)), cells)
        place_network(network.eval(), device)
        return _network_maps(network, preprocessing.size, representation.name, device)

    return make


def _network_maps(network: Encoder, size: int, title: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    to_map, _ = feature_map(network, size, title=title)
    dtype = next(network.parameters()).dtype

    @torch.no_grad()
    def maps(images: Tensor) -> Tensor:
        chunks = cache_sized_chunks(to_network(images, device, dtype), network)
        return torch.cat([to_map(chunk) for chunk in chunks]).float().to(float64_device(device))

    return maps


def _pixel_maps(images: Float[Tensor, "b c size size"], cells: tuple[int, int]) -> Float[Tensor, "b d rows columns"]:
    """Returns the pixels of each cell, averaged to at most :data:`PIXEL_GRID` rows and columns."""
    grid = max(1, min(PIXEL_GRID, images.shape[-1] // max(cells)))
    averaged = F.adaptive_avg_pool2d(images, (cells[0] * grid, cells[1] * grid))
    return F.pixel_unshuffle(averaged, grid)
