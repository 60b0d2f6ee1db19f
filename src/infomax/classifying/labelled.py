"""Chooses the labelled images for a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.splits import Source, listed
from infomax.data.streams import Stream


@dataclass(frozen=True)
class Labelled:
    """A frozen dataclass that holds images with one class each; each class has an image."""

    images: Images
    labels: Int[np.ndarray, " n"]
    """Index into ``classes`` for each image."""
    classes: tuple[str, ...]
    split: str
    """Name of the split that they are; empty if the data has none."""

    @property
    def counts(self) -> list[int]:
        """The number of images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).tolist()

    def of_rows(self, rows: Int[np.ndarray, " m"]) -> "Labelled":
        """Returns some of the images, with the classes that they have."""
        if len(rows) == len(self.labels):
            return self
        images = select_images(self.images, rows, self.labels, list(self.classes))
        return _with_used_classes(images, self.labels[rows], self.classes, self.split)


def images_to_fit(source: Source) -> Labelled:
    """Returns the images that a classifier is fitted on: those to train on.

    Raises:
        ValueError: with the reason, if they have not one class each, or all have the same.
    """
    labelled = _labelled(source, source.train, source.train_split)
    if len(labelled.classes) < 2:
        classes = listed(labelled.classes)
        raise ValueError(f"--data {source.name} has one class only, {classes}; a classifier takes two or more")
    return labelled


def images_to_test(source: Source) -> Labelled:
    """Returns the images that a classifier is tested on: those of the test split, or else all of them.

    Raises:
        ValueError: with the reason, if they have not one class each.
    """
    if source.test is not None and source.test.labels is not None:
        return _labelled(source, source.test, source.test_split)
    return _labelled(source, source.train, source.train_split)


def _labelled(source: Source, images: Images | Stream, split: str) -> Labelled:
    reason = source.no_labels_reason
    if isinstance(images, Stream):
        reason = "it is a stream, whose images are not kept in place"
    elif not reason and images.labels is None:
        reason = "its images come without labels"
    elif not reason and images.labels is not None and images.labels.ndim > 1:
        reason = "an image shows several classes, and one for each is wanted"
    if reason or isinstance(images, Stream) or images.labels is None:
        raise ValueError(f"--data {source.name} has no labels for a classifier: {reason}")
    return _with_used_classes(images, images.labels, images.classes, split)


def _with_used_classes(images: Images, labels: Int[np.ndarray, " n"], classes: Sequence[str], split: str) -> Labelled:
    used, numbers = np.unique(labels, return_inverse=True)
    return Labelled(images, numbers, tuple(classes[i] for i in used), split)
