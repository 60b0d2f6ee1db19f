"""The splits of a data set, and which of them an encoder is trained on and judged by."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from infomax.data.images import Images, take
from infomax.data.streams import Stream


@dataclass(frozen=True)
class Source:
    """What ``--data`` named: the splits of a data set."""

    name: str
    train: Images | Stream
    """To train on, with labels if there are any."""
    test: Images | None = None
    """To judge by, where the data set has it apart."""
    val: Images | None = None
    """To choose settings by, where the data set has it apart."""
    unlabelled: Images | None = None
    """To pretrain on instead of ``train``, as STL-10's 100,000."""
    folders: tuple[Path, ...] = ()
    """All of whose images are the source's, so that nothing else may be written there."""

    @property
    def pretraining(self) -> Images | Stream:
        """The images that an encoder is trained on."""
        return self.train if self.unlabelled is None else self.unlabelled


def preview_images(source: Source) -> Images:
    """Images to pretrain on that can be opened by their index; of a stream, its first ones."""
    images = source.pretraining
    return images if isinstance(images, Images) else images.preview


@dataclass(frozen=True)
class LabelledImages:
    """Some of the images of a data set, and their labels."""

    images: Images
    index: Int[np.ndarray, " n"]
    """Rising."""
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n classes"]

    @property
    def chosen(self) -> Images:
        """These images alone."""
        if len(self.index) == len(self.images):  # the index rises
            return self.images
        return take(self.images, self.index, self.images.labels, self.images.classes)

    def subsample(self, most: int) -> "LabelledImages":
        """All of them, or ``most`` at equal distances."""
        if len(self.index) <= most:
            return self
        chosen = np.linspace(0, len(self.index) - 1, most).astype(int)
        return LabelledImages(self.images, self.index[chosen], self.labels[chosen])


def labelled_splits(source: Source) -> tuple[LabelledImages, LabelledImages] | None:
    """What to classify by, and what to classify; None where images come in a stream, have no label or several, or are
    too few.

    Without a labelled test split of its own, every fifth image of each class is for testing.
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
    first, second = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return LabelledImages(train, first, train.labels[first]), LabelledImages(train, second, train.labels[second])
