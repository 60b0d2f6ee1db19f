"""Section with the nearest neighbours of some images, by an encoder and by what it is compared with."""

import numpy as np
import torch

from infomax.evaluation.intervals import compare_shares
from infomax.features.nearest_neighbours import nearest
from infomax.reporting.pages.blocks import Kind, Notice, Paragraph
from infomax.reporting.pages.gallery import RankedRows, Thumbnail
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, ShownEncoder, headed, public

QUERIES, NEIGHBOURS = 12, 6
"""Images whose neighbours are shown, and neighbours of each by each encoder."""
MOST_COUNTED = 2_000
"""Images of which it is counted whether their nearest neighbour has their class."""
OTHER_CLASS = "other class"


def section(content: Content) -> Section | None:
    """Returns the section; None if there are no images."""
    blocks = [block for encoder in content.encoders for block in _blocks_of(encoder, content)]
    blocks += [
        Notice("info", f"{name} has no neighbours to show", public(reason))
        for name, reason in content.missing.items()
        if name in content.sources
    ]
    if not blocks:
        return None
    text = (
        f"{QUERIES} images drawn from all that are shown, each with the {NEIGHBOURS} nearest others by the cosine of "
        "their features: in the first row by the encoder, in the second by what it is compared with."
    )
    if any(encoder.images.labels is not None for encoder in content.encoders):
        text += " Images of another class are marked."
    return Section("Which images does it find alike?", text, tuple(blocks))


def draw_queries(count: int, seed: int) -> list[int]:
    """Returns the numbers of the images whose neighbours are shown: one drawn from each of twelve equal parts."""
    rng = np.random.default_rng(seed)
    parts = np.array_split(np.arange(count), min(QUERIES, count))
    return [int(rng.choice(part)) for part in parts]


def _blocks_of(encoder: ShownEncoder, content: Content) -> list[Block]:
    """Returns the neighbours of one run, and how often the nearest one has the same class."""
    images, prefix = encoder.images, content.prefix(encoder.shown)
    if len(images) < 2:
        return [Paragraph(headed(prefix, "a single image has no neighbours."))]
    blocks: list[Block] = [Paragraph(headed(prefix, f"{images.words}."))]
    if agreement := describe_agreement(encoder, prefix, content.options.seed):
        blocks.append(agreement)
    queries = draw_queries(len(images), content.options.seed)
    by_encoder = find_neighbours(encoder.features, queries)
    before = find_neighbours(encoder.reference_features, queries)
    rows = []
    for query, own, others in zip(queries, by_encoder, before, strict=True):
        for name, pairs in (("encoder", own), (encoder.reference, others)):
            first = images.thumbnail(query, f"by the {name}", side=encoder.side)
            rows.append((first, tuple(_neighbour(encoder, query, *pair) for pair in pairs)))
    return [*blocks, RankedRows(tuple(rows))]


def find_neighbours(features: torch.Tensor, queries: list[int]) -> list[list[tuple[int, float]]]:
    """Returns the nearest other images of each query, with their cosines, from the highest to the lowest."""
    cosines, rows = nearest(features, features[queries], NEIGHBOURS + 1)
    neighbours = []
    for query, values, numbers in zip(queries, cosines.tolist(), rows.tolist(), strict=True):
        pairs = [(row, cosine) for row, cosine in zip(numbers, values, strict=True) if row != query]
        neighbours.append(pairs[:NEIGHBOURS])
    return neighbours


def _neighbour(encoder: ShownEncoder, query: int, row: int, cosine: float) -> Thumbnail:
    """Returns the thumbnail of a neighbour, which is marked if it has another class than the image."""
    labels = encoder.images.labels
    mistake = OTHER_CLASS if labels is not None and labels[row] != labels[query] else ""
    return encoder.images.thumbnail(row, f"cosine {cosine:.2f}", side=encoder.side, mistake=mistake)


def describe_agreement(encoder: ShownEncoder, prefix: str, seed: int) -> Notice | None:
    """Returns how often the nearest other image has the same class; None without labels.

    Args:
        encoder: The run.
        prefix: Words before the heading.
        seed: Draws the images that are counted.
    """
    labels = encoder.images.labels
    if labels is None:
        return None
    index = np.sort(np.random.default_rng(seed).permutation(len(labels))[:MOST_COUNTED])
    right, before = (_agrees(x, labels, index) for x in (encoder.features, encoder.reference_features))
    difference = compare_shares(right, before)
    share = f"{100 * right.mean():.1f} % of {len(index):,} images"
    heading = headed(prefix, f"the nearest other image has the same class for {share}")
    evidence = (
        f"By the {encoder.reference} for {100 * before.mean():.1f} %: a difference of {difference.numbers} points, "
        f"{difference.verdict}."
    )
    kinds: dict[str, Kind] = {"clearly better": "good", "clearly worse": "failed"}
    return Notice(kinds.get(difference.verdict, "warning"), heading, evidence)


def _agrees(features: torch.Tensor, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns whether the nearest other image has the class of each image at an index."""
    _, rows = nearest(features, features[index], 2)
    numbers = rows.numpy()
    other = np.where(numbers[:, 0] == index, numbers[:, -1], numbers[:, 0])
    return labels[other] == labels[index]
