"""Makes a source of the splits that were found in a folder, a file of arrays or a table: one rule for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.sources.split_names import SplitChoice, choose_splits, role_of
from infomax.data.splits import Source, counted, listed


@dataclass(frozen=True)
class FoundSplit:
    """A frozen dataclass that holds one split as it was found, before it is known what it is for."""

    images: Images
    """Its images. ``images.labels`` and ``images.classes`` are the split's own: its classes may differ from those of
    other splits. ``labels`` is None if the images have none that are usable."""
    no_labels_reason: str = ""
    """Why the images have no usable labels, as words that follow the split's name: ``has no class folders``; empty if
    they have."""


def assemble_source(
    data: str, splits: Mapping[str, FoundSplit], *, notes: Iterable[str] = (), folders: Sequence[Path] = ()
) -> Source:
    """Chooses which split is for what, and numbers the classes of all splits as those of the training images.

    Test images of classes that the training images lack are left out. If no class is common, the split has no usable
    labels; if there is no other one to test on, the source has no labels to evaluate by. Test images without usable
    labels stay, without labels.

    Args:
        data: The source's name.
        splits: The splits by their names in the data, in the order in which they lie there; one with an empty name if
            the data has no splits.
        notes: Decisions about the data that were taken before, a line each.
        folders: See :class:`~infomax.data.splits.Source`.

    Raises:
        ValueError: if two splits have the same role.
    """
    names = list(splits)
    train = choose_splits(names).train
    no_labels_reason = _why_unusable(train, splits[train])
    if no_labels_reason:  # its labels are no use to anything
        splits = {**splits, train: FoundSplit(_relabelled(splits[train].images, None, []), no_labels_reason)}
    to_evaluate = [name for name in names if name != train]
    numbered = {name: _number_as(splits[name], splits[train].images, name) for name in to_evaluate}
    choice = choose_splits(names, [name for name, (split, _) in numbered.items() if split.images.labels is not None])
    notes = [*notes, *_notes_on_choice(choice, splits)]
    kept: dict[str, Images] = {}
    for role in ("test", "val"):
        name = getattr(choice, role)
        if name is None:
            continue
        split, note = numbered[name]
        notes += [note] if note else []
        if split.images.labels is not None or role == "test":  # test images without labels are embedded
            kept[role] = split.images
        if split.images.labels is None and not no_labels_reason:
            if role == "test" and splits[name].images.labels is not None:  # labels of other classes alone
                no_labels_reason = f"{_split(name)} {split.no_labels_reason}"
            else:
                notes.append(f"{_split(name)} is not tested on: it {split.no_labels_reason}")
    if choice.unlabelled is not None:
        kept["unlabelled"] = _relabelled(splits[choice.unlabelled].images, None, [])
    return Source(
        data,
        splits[train].images,
        kept.get("test"),
        kept.get("val"),
        kept.get("unlabelled"),
        folders=tuple(folders),
        train_split=choice.train,
        test_split=choice.test if choice.test is not None and "test" in kept else "",
        val_split=choice.val if choice.val is not None and "val" in kept else "",
        unlabelled_split=choice.unlabelled or "",
        notes=tuple(notes),
        no_labels_reason=no_labels_reason,
    )


def check_labels(source: Source) -> Source:
    """Returns a source, some of whose training images were taken away, without test images of classes that are gone.

    If fewer than two classes are left, or none that the test images show, there is a reason why it cannot be evaluated
    on.
    """
    train, notes = source.train, list(source.notes)
    if not isinstance(train, Images) or train.labels is None or source.no_labels_reason:
        return source
    reason = _why_unusable(source.train_split, FoundSplit(train))
    kept: dict[str, Any] = {}
    for role, images in (("test", source.test), ("val", source.val)):
        if images is None or reason:
            continue
        name = getattr(source, f"{role}_split") or role
        split, note = _number_as(FoundSplit(images), train, name)
        notes += [note] if note else []
        kept[role] = split.images
        if role == "test" and split.no_labels_reason:
            reason = f"{_split(name)} {split.no_labels_reason}"
    return replace(source, **kept, notes=tuple(notes), no_labels_reason=reason)


def _split(name: str) -> str:
    """Returns words for a split at the beginning of a sentence."""
    return listed([name]) if name else "the data"


def _why_unusable(name: str, train: FoundSplit) -> str:
    """Returns why images to train on cannot be classified by; empty if they can."""
    if train.images.labels is None:
        reason = train.no_labels_reason or "has no labels"
        return f"{_split(name)} {reason}"
    if train.images.labels.ndim == 1 and len(present := np.unique(train.images.labels)) < 2:
        return f"{_split(name)} has one class only, {listed([train.images.classes[i] for i in present])}"
    return ""


def _number_as(split: FoundSplit, train: Images, name: str) -> tuple[FoundSplit, str]:
    """Returns the split with labels that number the classes of the training images, and a note on what is left out."""
    labels, own_classes = split.images.labels, split.images.classes
    if labels is None or labels.ndim > 1:
        return split, ""
    if train.labels is None or train.labels.ndim > 1:
        return FoundSplit(_relabelled(split.images, None, []), "cannot be tested on without labels to train by"), ""
    number = {train.classes[i]: int(i) for i in np.unique(train.labels)}
    new_labels = np.array([number.get(class_name, -1) for class_name in own_classes])[labels]
    counts = np.bincount(labels, minlength=len(own_classes))
    unknown = [i for i in np.flatnonzero(counts) if own_classes[i] not in number]
    if (new_labels < 0).all():
        classes = listed([own_classes[i] for i in unknown])
        reason = f"has the classes {classes}, none of which is one of those to train on, {listed(train.classes)}"
        return FoundSplit(_relabelled(split.images, None, []), reason), ""
    if not unknown:
        return FoundSplit(_relabelled(split.images, new_labels, train.classes)), ""
    index = np.flatnonzero(new_labels >= 0)
    left_out = listed([f"{own_classes[i]} ({counts[i]})" for i in unknown])
    note = (
        f"{_split(name)}: {counted(len(labels) - len(index))} left out, of classes without training images: {left_out}"
    )
    return FoundSplit(select_images(split.images, index, new_labels, train.classes)), note


def _relabelled(images: Images, labels: Int[np.ndarray, " n"] | None, classes: list[str]) -> Images:
    """Returns the same images with other labels."""
    if images.labels is None and labels is None:
        return images
    changed = copy(images)
    changed.labels, changed.classes = labels, classes
    return changed


def _notes_on_choice(choice: SplitChoice, splits: Mapping[str, FoundSplit]) -> list[str]:
    """Returns a line for each decision on splits that a user may not expect."""
    notes = []
    if choice.train and role_of(choice.train) not in ("train", None):
        unused = _sizes([name for name in (choice.test, choice.val) if name is not None], splits)
        not_trained = f"; not trained on: {unused}" if unused else ""
        notes.append(f"there is no split called train: {listed([choice.train])} takes its place{not_trained}")
    if choice.left_out:
        notes.append(f"left out: {_sizes(choice.left_out, splits)}; {choice.train or 'the data'} is used to train")
    return notes


def _sizes(names: Sequence[str], splits: Mapping[str, FoundSplit]) -> str:
    """Returns names of splits, each with the number of its images; empty without names."""
    return listed([f"{name} ({counted(len(splits[name].images))})" for name in names])
