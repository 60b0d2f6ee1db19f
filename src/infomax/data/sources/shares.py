"""Keeps shares of the labelled training images: ``--subset 1percent`` and ``10percent``, as in published tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.splits import Source, labelled_splits, why_not_labelled

SHARES = {"1percent": 100, "10percent": 10}
"""One of how many labelled images each share keeps, by the word for it."""
LISTS = "imagenet_subsets"
"""Folder in --data-dir that holds SimCLR's lists of ImageNet's images."""


def published_list(data: str, data_dir: Path, share: str) -> str | None:
    """Returns the file that lists the images of a share; None if none was published for the data set.

    The papers take 1 % and 10 % of ImageNet's labels from SimCLR's lists, ``1percent.txt`` and ``10percent.txt``.

    Args:
        data: Name of the data set.
        data_dir: Folder that holds the data sets that have a name.
        share: A key of :data:`SHARES`.

    Raises:
        ValueError: if there is such a list, but not in ``data_dir``.
    """
    if data != "imagenet":
        return None
    file = data_dir / LISTS / f"{share}.txt"
    if not file.is_file():
        raise ValueError(
            f"--subset {share} of imagenet is SimCLR's list of images, which is wanted as {file}; it lies in "
            f"{LISTS} of https://github.com/google-research/simclr"
        )
    return str(file)


def draw_share(source: Source, share: str) -> Source:
    """Returns the source with a share of the labelled images of each class, drawn at random, the same each time.

    The number is rounded up in each class, which so keeps one image at least. If the source has no labelled test split,
    the images that are tested on are taken before the draw: they are those of the whole data set.

    Args:
        source: The images.
        share: A key of :data:`SHARES`.

    Raises:
        ValueError: if the images do not have one label each.
    """
    splits = labelled_splits(source)
    if splits is None:
        raise ValueError(f"--subset {share}: --data {source.name} cannot be drawn from: {why_not_labelled(source)}")
    train, test = splits
    generator, kept = np.random.default_rng(0), []
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label)
        kept.append(generator.permutation(rows)[: -(-len(rows) // SHARES[share])])
    index = train.index[np.sort(np.concatenate(kept))]
    images = source.train
    assert isinstance(images, Images)
    note = (
        f"--subset {share} keeps {len(index)} of {len(train.index)} labelled images, a share of each class drawn with "
        "seed 0; no list of them was published"
    )
    test_split = source.test_split
    if test.images is images:
        test_split = f"every fifth image of each class of {source.train_split or 'all'}"
    return replace(
        source,
        train=select_images(images, index, images.labels, images.classes),
        test=test.selected_images,
        test_split=test_split,
        unlabelled=None,
        notes=(*source.notes, note),
    )
