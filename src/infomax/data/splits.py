"""A data set's splits: which images an encoder is pretrained on, and which labelled ones it is evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from infomax.data.decoding.options import Decoding
from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.pixel_format import MeasuredPixels
from infomax.data.streams import Stream
from infomax.runtime.text import escape

EVERY_FIFTH = "every fifth image of each class"
"""Words for the test images of a data set without a test split: they are images to train on."""


@dataclass(frozen=True)
class Source:
    """A frozen dataclass that holds the splits of the data set that ``--data`` names."""

    name: str
    """The data set as ``--data`` names it."""
    train: Images | Stream
    """Images to train on, with labels if there are any."""
    test: Images | None = None
    """Images to test on, if the data set keeps them apart; they are embedded even if they have no labels."""
    val: Images | None = None
    """Images to choose settings by, if the data set keeps them apart."""
    unlabelled: Images | None = None
    """Images to pretrain on instead of ``train``, if the data set has them: STL-10's 100,000."""
    folders: tuple[Path, ...] = ()
    """Folders all of whose images belong to the data set, so that nothing else may be written there."""
    train_split: str = ""
    """Name of the training split in the data, as ``Training``; empty if the data does not name its splits."""
    test_split: str = ""
    """Name of the split that ``test`` comes from, which may be a validation split."""
    val_split: str = ""
    """Name of the split that ``val`` comes from."""
    unlabelled_split: str = ""
    """Name of the split that ``unlabelled`` comes from."""
    notes: tuple[str, ...] = ()
    """A line for each decision about the user's data: what was left out, which folder or column was taken."""
    no_labels_reason: str = ""
    """Why the images cannot be evaluated on, as a sentence without its full stop: ``train has one class only, cat``.
    Empty if they can."""
    measured: MeasuredPixels | None = None
    """The pixel format and the normalisation of images that are not 8-bit RGB, if they have been measured."""

    @property
    def pretraining(self) -> Images | Stream:
        """Returns the images that an encoder is pretrained on."""
        return self.train if self.unlabelled is None else self.unlabelled

    def decoded_by(self, decoding: Decoding) -> "Source":
        """Returns the same images, whose files are decoded as the user decided."""
        splits = {name: getattr(self, name) for name in ("train", "test", "val", "unlabelled")}
        return replace(
            self, **{name: images.decoded_by(decoding) for name, images in splits.items() if images is not None}
        )


def preview_images(source: Source) -> Images:
    """Returns images to pretrain on that can be opened by their index: all of them, or the first ones of a stream."""
    images = source.pretraining
    return images if isinstance(images, Images) else images.preview


def all_images(source: Source) -> tuple[dict[str, Images], list[str]]:
    """Returns the images of a data set, those to train on first and then those to test on, and a name for each.

    Args:
        source: The data set.

    Returns:
        The images of each split, by the split's name; and the names of all images in the same order.

    Raises:
        ValueError: if it is a stream.
    """
    if isinstance(source.train, Stream):
        raise ValueError(f"--data {source.name} is a stream, for training; its images cannot be counted off")
    splits = {source.train_split or "train": source.train}
    if source.test is not None:
        splits[source.test_split or "test"] = source.test
    numbered = len(splits) > 1 and source.train.name(0).isdecimal()  # both count from 0: names need the split
    names = [
        f"{split}/{images.name(i)}" if numbered else images.name(i)
        for split, images in splits.items()
        for i in range(len(images))
    ]
    return splits, names


@dataclass(frozen=True)
class LabelledImages:
    """A frozen dataclass that holds some images of a data set, by their indices, and their labels."""

    images: Images
    """The data set."""
    index: Int[np.ndarray, " n"]
    """Indices of the images in the data set, in rising order, each once."""
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n classes"]
    """Labels of these images, as in :class:`~infomax.data.images.contract.Images`."""

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


def labelled_splits(source: Source, *, hold_out: bool = True) -> tuple[LabelledImages, LabelledImages] | None:
    """Returns the labelled images to train a classifier on, and those to test it on.

    If the data set has no labelled test split, every fifth training image of each class is for testing.

    Args:
        source: The data set.
        hold_out: Whether images are held out to test on; if not, all training images are in the first split, and none
            is in the second.

    Returns:
        The two splits; None if there is a reason against it, which :func:`why_not_labelled` returns.
    """
    if why_not_labelled(source, hold_out=hold_out):
        return None
    train, test = source.train, source.test
    assert isinstance(train, Images)
    assert train.labels is not None
    all_of_train = LabelledImages(train, np.arange(len(train)), train.labels)
    if not hold_out:
        return all_of_train, LabelledImages(train, np.arange(0), train.labels[:0])
    if test is not None and test.labels is not None:
        return all_of_train, LabelledImages(test, np.arange(len(test)), test.labels)
    is_test = _every_fifth(train.labels)
    to_train, to_test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return (
        LabelledImages(train, to_train, train.labels[to_train]),
        LabelledImages(train, to_test, train.labels[to_test]),
    )


def why_not_labelled(source: Source, *, hold_out: bool = True) -> str:
    """Returns why a classifier of one class an image cannot be trained and tested on a data set; empty if it can.

    Args:
        source: The data set.
        hold_out: Whether images are held out to test on.

    Returns:
        The one reason, as a sentence without its full stop.
    """
    train, test = source.train, source.test
    if isinstance(train, Stream):
        return "it is a stream, for training; evaluation needs images that stay in place"
    if source.no_labels_reason:
        return source.no_labels_reason
    if train.labels is None:
        return "its images come without labels"
    if train.labels.ndim > 1:
        return "an image shows several classes, which infomax evaluate transfer takes; one for each is wanted here"
    if hold_out and (test is None or test.labels is None) and not _every_fifth(train.labels).any():
        return (
            "there is no labelled test split, and no class has the 5 images of which every fifth would be tested on: "
            f"the largest has {np.bincount(train.labels).max(initial=0)}"
        )
    return ""


def no_labels_error(source: Source, reason: str) -> ValueError:
    """Returns the error that a data set cannot be evaluated on for want of labels.

    Args:
        source: The images.
        reason: What :func:`why_not_labelled` returns of them.
    """
    hint = "; --data names images with labels, as a folder with a sub-folder for each class"
    hint += "" if isinstance(source.train, Stream) else "; infomax evaluate cluster needs none"
    return ValueError(f"--data {source.name} has no labels to evaluate by: {reason}{hint}")


def _every_fifth(labels: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Returns whether each image is every fifth of its class."""
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return is_test


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Returns names with commas between, at most ``limit`` of them, and how many more there are."""
    shown = ", ".join(shown_name(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def shown_name(name: str) -> str:
    """Returns a name as it may be printed: on one line, shortened if it is very long, and in quotes if it is empty."""
    return escape(name if len(name) <= 100 else f"{name[:60]}...{name[-30:]}") or "''"


def origin_of_test_images(source: Source, *, hold_out: bool = True) -> str:
    """Returns where the images to test on come from, in words: ``test``, ``every fifth image of each class of train``.

    Args:
        source: The images.
        hold_out: Whether images are held out to test on; if not, each is tested by the others.

    Returns:
        The words; empty if the data set cannot be evaluated on.
    """
    if why_not_labelled(source, hold_out=hold_out) and not has_several_classes(source):
        return ""
    if source.test is not None and source.test.labels is not None:
        return shown_name(source.test_split or "test")
    of_split = f" of {shown_name(source.train_split)}" if source.train_split else ""
    return f"{EVERY_FIFTH}{of_split}"


def has_several_classes(source: Source) -> bool:
    """Returns whether the images are labelled with several classes each, which transfer takes."""
    labels = source.train.labels if isinstance(source.train, Images) and not source.no_labels_reason else None
    return labels is not None and labels.ndim > 1


def describe_splits(
    source: Source,
    *,
    to_train: bool,
    notes_alone: bool = False,
    is_trained_on: bool = False,
    hold_out: bool = True,
) -> list[str]:
    """Returns the lines that say which images are trained on and tested on, and what was decided about the data.

    Args:
        source: The images.
        to_train: Whether an encoder is trained, or else evaluated. Images without labels are not described then, for
            the evaluation fails with the reason.
        notes_alone: Whether to return the notes on the data alone.
        is_trained_on: Whether the encoder that is evaluated was trained on these images.
        hold_out: Whether images are held out to test on; if not, each is tested by the others.
    """
    if notes_alone or not (to_train or origin_of_test_images(source, hold_out=hold_out)):
        return [f"{shown_name(source.name)}: {note}" for note in source.notes]
    labelled = source.train if isinstance(source.train, Images) else None
    lines, origin = [], origin_of_test_images(source, hold_out=hold_out)
    if to_train and source.unlabelled is not None:
        lines.append(f"trains on {_sized(source.unlabelled_split, 'unlabelled', source.unlabelled)}")
        if origin and labelled is not None:
            lines.append(f"labels come from {_sized(source.train_split, 'train', labelled)}")
    else:
        verb = "trains on" if to_train else "has labels of"
        lines.append(f"{verb} {_sized(source.train_split, 'train' if source.test else '', source.train)}")
    if not origin:
        lines.append(f"no labels to evaluate by: {why_not_labelled(source)}")
    else:
        is_seen = (to_train or is_trained_on) and source.unlabelled is None
        trained_on = f", which {'are' if to_train else 'were'} trained on too, without their labels" if is_seen else ""
        lines.append(_tested(source, origin, trained_on, hold_out=hold_out))
    if source.val is not None and source.val.labels is not None:
        lines.append(f"has {_sized(source.val_split, 'val', source.val)}, for protocols that choose settings")
    return [f"{shown_name(source.name)}: {line}" for line in (*lines, *source.notes)]


def _tested(source: Source, origin: str, trained_on: str, *, hold_out: bool) -> str:
    """Returns the line that says which images are tested on.

    Args:
        source: The images.
        origin: Where those to test on come from.
        trained_on: A clause that says that images to train on are tested on, if they are.
        hold_out: Whether images are held out to test on.
    """
    others = "Photos of another kind may score lower"
    if not hold_out:
        return f"tests each of these images by the others{trained_on}{f'. {others}' * bool(trained_on)}"
    splits = labelled_splits(source)
    count = counted(len(splits[1].index) if splits is not None else len(source.test or ()))
    if source.test is not None and source.test.labels is not None:
        return f"tests on {origin}: {count}"
    return f"tests on {origin}: {count}{trained_on}; there is no labelled test split. {others}"


def _sized(name: str, default: str, images: Images | Stream) -> str:
    """Returns words for a split: its name, the number of its images, and its classes."""
    name, classes = name or default, images.classes if isinstance(images, Images) else []
    in_classes = f" in {len(classes)} classes: {listed(classes)}" if len(classes) else ""
    where = f"{shown_name(name)}: " if name else ""
    return f"{where}{counted(len(images))}{in_classes}"


def counted(count: int, word: str = "image") -> str:
    """Returns a number of things in words, as ``1 image`` and ``2 images``."""
    return f"{count} {word}{'' if count == 1 else 's'}"
