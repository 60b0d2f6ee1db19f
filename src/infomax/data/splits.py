"""A data set's splits: which images an encoder is pretrained on, and which labelled ones it is evaluated on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from infomax.data.images import Images, select_images
from infomax.data.streams import Stream


@dataclass(frozen=True)
class Source:
    """A frozen dataclass that holds the splits of the data set that ``--data`` names."""

    name: str
    """The data set as ``--data`` names it."""
    train: Images | Stream
    """Images to train on, with labels if there are any."""
    test: Images | None = None
    """Images to test on, if the data set keeps them apart."""
    val: Images | None = None
    """Images to choose settings by, if the data set keeps them apart."""
    unlabelled: Images | None = None
    """Images to pretrain on instead of ``train``, if the data set has them: STL-10's 100,000."""
    folders: tuple[Path, ...] = ()
    """Folders all of whose images belong to the data set, so that nothing else may be written there."""

    @property
    def pretraining(self) -> Images | Stream:
        """Returns the images that an encoder is pretrained on."""
        return self.train if self.unlabelled is None else self.unlabelled


def preview_images(source: Source) -> Images:
    """Returns images to pretrain on that can be opened by their index: all of them, or the first ones of a stream."""
    images = source.pretraining
    return images if isinstance(images, Images) else images.preview


@dataclass(frozen=True)
class LabelledImages:
    """A frozen dataclass that holds some images of a data set, by their indices, and their labels."""

    images: Images
    """The data set."""
    index: Int[np.ndarray, " n"]
    """Indices of the images in the data set, in rising order, each once."""
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n classes"]
    """Labels of these images, as in :class:`~infomax.data.images.Images`."""

    @property
    def selected_images(self) -> Images:
        """Returns a data set of these images alone."""
        if len(self.index) == len(self.images):  # all of them, for the indices rise
            return self.images
        return select_images(self.images, self.index, self.images.labels, self.images.classes)

    def subsample(self, max_count: int) -> "LabelledImages":
        """Returns ``max_count`` of the images at equal distances, or all if there are no more."""
        if len(self.index) <= max_count:
            return self
        rows = np.linspace(0, len(self.index) - 1, max_count).astype(int)
        return LabelledImages(self.images, self.index[rows], self.labels[rows])


def labelled_splits(source: Source) -> tuple[LabelledImages, LabelledImages] | None:
    """Returns the labelled images to train a classifier on, and those to test it on.

    If the data set has no labelled test split, every fifth training image of each class is for testing.

    Returns:
        The two splits; None if the images come from a stream, have no label or several, or no class has five images.
    """
    train, test = source.train, source.test
    if isinstance(train, Stream) or train.labels is None or train.labels.ndim > 1:
        return None
    if test is not None and test.labels is not None:
        return (
            LabelledImages(train, np.arange(len(train)), train.labels),
            LabelledImages(test, np.arange(len(test)), test.labels),
        )
    is_test = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        is_test[np.flatnonzero(train.labels == label)[4::5]] = True
    if not is_test.any():
        return None
    to_train, to_test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return (
        LabelledImages(train, to_train, train.labels[to_train]),
        LabelledImages(train, to_test, train.labels[to_test]),
    )
