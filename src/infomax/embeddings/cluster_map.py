"""Makes the map of a page of clusters: each image a point, near those with similar features."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image

from infomax.embeddings.clusters import Cluster
from infomax.embeddings.feature_file import FeatureTable
from infomax.embeddings.shown_images import ShownImages
from infomax.features.map_layout import map_layout
from infomax.reporting.pages.atlas import GROUND, MAX_IMAGES, Atlas, pack_atlas, spread_order
from infomax.reporting.pages.embedding_map import MAX_POINTS, NAME_BUDGET, EmbeddingMap, MapLayer, MapPoints
from infomax.reporting.pages.page import Section
from infomax.runtime.stages import Stage

SIDE = 32
"""Pixels of the side of a picture on the map."""
PAGE_BYTES = 8_600_000
"""Bytes of a page's map, thumbnails and what is around them, with which it stays below 10 MB."""
POINT_BYTES = 14
"""Bytes that a point takes in the page."""
ATLAS_SHARE = 0.6
"""Share of the bytes for pictures that those of the map take; the rest is for thumbnails."""


def picture_bytes(count: int) -> tuple[int, int]:
    """Returns the bytes of a page that pictures on the map and thumbnails may take, for a number of images."""
    free = PAGE_BYTES - POINT_BYTES * min(count, MAX_POINTS) - min(NAME_BUDGET, 40 * count)
    return int(ATLAS_SHARE * free), int((1 - ATLAS_SHARE) * free)


def cluster_map_section(table: FeatureTable, clusters: Sequence[Cluster], images: ShownImages, *, seed: int) -> Section:
    """Returns the section with the map of all images, coloured by cluster, and by class if there are labels.

    Args:
        table: The features.
        clusters: The clusters, which hold all images.
        images: The images, of which as many are shown as there is room for.
        seed: Seed of the layout.
    """
    layout = map_layout(torch.from_numpy(np.array(table.features)), seed=seed)
    atlas, atlas_index = _pack(images, layout.points, seed)
    cluster_of = np.empty(len(table.names), np.int64)
    for number, cluster in enumerate(clusters):
        cluster_of[[member.row for member in cluster.members]] = number
    names = tuple(f"cluster {number}" for number in range(1, len(clusters) + 1))
    layers = [MapLayer("cluster", cluster_of, names)]
    if table.labels is not None:
        layers.append(_label_layer(table.labels))
    points = MapPoints(layout.points, atlas_index)
    block = EmbeddingMap("All images", points, tuple(layers), atlas, table.names, layout.method)
    return Section("Map", "Images with similar features stand near each other.", (block,))


def _label_layer(labels: Sequence[str]) -> MapLayer:
    """Returns the layer of the images' classes; an image without one has an empty label."""
    names, values = np.unique(np.array(labels, object).astype(str), return_inverse=True)
    if len(names) and names[0] == "":
        return MapLayer("label", values - 1, tuple(names[1:].tolist()), missing="no label")
    return MapLayer("label", values, tuple(names.tolist()))


def _pack(images: ShownImages, points: np.ndarray, seed: int) -> tuple[Atlas, Int[np.ndarray, " n"]]:
    """Returns pictures of images that are spread over the map, and for each image the number of its picture, or -1."""
    budget, _ = picture_bytes(len(points))
    rows = spread_order(points, MAX_IMAGES, seed=seed)
    with Stage(f"drawing {len(rows):,} images for the map"):
        atlas = pack_atlas((_picture(images, int(row)) for row in rows), SIDE, budget=budget)
    index = np.full(len(points), -1, np.int64)
    index[rows[: atlas.count]] = np.arange(atlas.count)
    return atlas, index


def _picture(images: ShownImages, row: int) -> Image.Image:
    image = images.open(row)
    return Image.new("RGB", (SIDE, SIDE), GROUND) if image is None else image
