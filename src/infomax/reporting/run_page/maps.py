"""Section with a map of the images: similar ones stand near each other, coloured by class, cluster or prototype."""

import numpy as np

from infomax.features.map_layout import map_layout
from infomax.reporting.pages.atlas import Atlas, pack_atlas, spread_order
from infomax.reporting.pages.embedding_map import EmbeddingMap, MapLayer, MapPoints
from infomax.reporting.pages.page import Section
from infomax.reporting.run_page.content import Content, ShownEncoder, headed
from infomax.reporting.run_page.grouping import Groups

ATLAS_BUDGET = 4_000_000
"""Bytes of all small pictures of a page, in base64."""
MOST_PICTURES = 4_000
"""Small pictures of a page."""
POINTS_OF_SEVERAL = 20_000
"""Images of each map, if there are several."""
TILE = 32
"""Side of a small picture, in pixels."""


def section(content: Content) -> Section | None:
    """Returns the section; None if there are no images."""
    if not content.encoders:
        return None
    maps = tuple(_map(encoder, content, len(content.encoders)) for encoder in content.encoders)
    text = (
        "Each point is an image; near points have similar features, far ones need not differ more than others. Whether "
        "classes stand apart says more than the shape of the map."
    )
    return Section("Map of the images", text, maps)


def _map(encoder: ShownEncoder, content: Content, maps: int) -> EmbeddingMap:
    """Returns the map of one run."""
    images, seed, caption = encoder.images, content.options.seed, f"{encoder.images.words}. "
    rows = np.arange(len(images))
    if maps > 1 and len(rows) > POINTS_OF_SEVERAL:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), POINTS_OF_SEVERAL, replace=False))
        caption += f"{len(rows):,} of them are on the map, drawn with seed {seed}, as the page has {maps} maps. "
    layout = map_layout(encoder.features[rows], seed=seed)
    order = spread_order(layout.points, MOST_PICTURES // maps, seed=seed)
    atlas = pack_atlas((images.open(int(rows[i])) for i in order), TILE, budget=ATLAS_BUDGET // maps)
    return EmbeddingMap(
        headed(content.prefix(encoder.shown), "features of the images"),
        MapPoints(layout.points, _tiles(order, atlas, len(rows))),
        layers_of(encoder, rows),
        atlas,
        [images.names[i] for i in rows.tolist()],
        headed("", f"{caption}{layout.method}"),
    )


def _tiles(order: np.ndarray, atlas: Atlas, count: int) -> np.ndarray:
    """Returns the number of each image's tile, -1 if it has none."""
    tiles = np.full(count, -1)
    tiles[order[: atlas.count]] = np.arange(atlas.count)
    return tiles


def layers_of(encoder: ShownEncoder, rows: np.ndarray) -> tuple[MapLayer, ...]:
    """Returns what can colour the map: classes if there are labels, prototypes if there are any, and clusters."""
    images, layers = encoder.images, []
    if images.labels is not None:
        layers.append(MapLayer("class", images.labels[rows].astype(np.int64), images.class_names))
    if encoder.prototypes is not None:
        layers.append(_layer(encoder.prototypes, rows))
    if len(images) > 1:
        layers.append(_layer(encoder.clusters, rows))
    return tuple(layers)


def _layer(groups: Groups, rows: np.ndarray) -> MapLayer:
    names = tuple(f"{groups.kind} {number}" for number in range(1, groups.count + 1))
    return MapLayer(groups.kind, groups.assigned[rows].astype(np.int64), names)
