"""Measures a classifier on labelled images: what ``infomax classify test`` and Python share."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from infomax.classifying.calibration import calibration_error
from infomax.classifying.classifier import NONE, ImageClassifier, load_classifier
from infomax.classifying.confusion import MOST_CLASSES, draw_confusion
from infomax.classifying.images import features_of_readable, images_to_test, open_labelled
from infomax.classifying.options import ClassifyTestOptions, check_names, check_share
from infomax.classifying.outputs import TEST, check_new_folder, check_outside
from infomax.classifying.run import location_for, note_uncalibrated, share_of
from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, counted, listed
from infomax.embeddings.write import FeatureComputation
from infomax.evaluation.options import ComputeOptions, EvaluationOptions
from infomax.evaluation.scores import interval
from infomax.reporting.tables import Cell, Table, make_table
from infomax.runs.public_words import public_data_name
from infomax.runtime.csv_text import csv_text
from infomax.runtime.new_folders import new_folder
from infomax.runtime.options import pick
from infomax.runtime.text import note
from infomax.runtime.threads import threads_within_quota

SHOWN_CLASSES = 40
"""Classes that the table in a terminal shows."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """A frozen dataclass that holds the scores of one class."""

    name: str
    images: int
    """Number of its images."""
    recall: float | None
    """Share of its images that the most probable class is right for; None without images."""
    precision: float | None
    """Share that is right of the images whose most probable class it is; None if it is that of none."""
    none_of_these: int
    """Number of its images that are called none of these."""
    taken_for: str
    """The other class that most of its images are taken for; empty if none is."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTest:
    """A frozen dataclass that holds what was measured of a classifier."""

    data: str
    """Name of the images."""
    split: str
    images: int
    """Number of images of classes that the classifier knows."""
    accuracy: float
    """Share of them whose most probable class is right, also of those that are called none of these."""
    interval: tuple[float, float]
    """95 % interval of the accuracy."""
    mean_recall: float
    """Mean of the classes' recalls."""
    calibration_error: float
    """Expected calibration error."""
    mean_probability: float
    """Mean probability of the most probable class."""
    none_share: float
    """Share of usual images that may be called none of these."""
    none_of_these: int
    """Number of the images that are called none of these."""
    accuracy_of_others: float | None
    """Accuracy on those that are not; None if all are."""
    unknown_images: int
    """Number of images of classes that the classifier does not know, which count in nothing above."""
    unknown_classes: tuple[str, ...]
    unknown_none_of_these: int
    """Number of them that are called none of these."""
    fitted_images: int
    """Number of images that the classifier was fitted on, by their features."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """For each class, how many of its images got each label: the classes in their order, then none of these."""

    def table(self) -> Table:
        """Returns the scores of each class as a table."""
        rows = [
            [x.name, f"{x.images:,}", _per_cent(x.recall), _per_cent(x.precision), f"{x.none_of_these:,}", x.taken_for]
            for x in self.classes[:SHOWN_CLASSES]
        ]
        left = len(self.classes) - len(rows)
        notes = (f"and {left} more classes, in classes.csv",) if left else ()
        return make_table(_COLUMNS, rows, notes=notes)

    def lines(self) -> list[str]:
        """Returns the scores of all images in words."""
        low, high = (100 * bound for bound in self.interval)
        lines = [
            f"accuracy {100 * self.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f}) on {counted(self.images)}; "
            f"mean over classes {100 * self.mean_recall:.1f} %",
            f"calibration error {100 * self.calibration_error:.1f} %: the mean probability is "
            f"{100 * self.mean_probability:.1f} %",
        ]
        others = self.accuracy_of_others
        beside = "" if others is None else f"; accuracy on the others {100 * others:.1f} %"
        lines.append(
            f"{NONE}: {self.none_of_these:,} ({100 * self.none_of_these / self.images:.1f} %, --none-share "
            f"{self.none_share:g}){beside}"
        )
        if self.unknown_images:
            lines.append(
                f"not counted: {counted(self.unknown_images)} of classes that the classifier does not know, "
                f"{listed(self.unknown_classes)}; {self.unknown_none_of_these:,} of them "
                f"({100 * self.unknown_none_of_these / self.unknown_images:.1f} %) are {NONE}"
            )
        return lines


_COLUMNS = ("class", "images", "recall, %", "precision, %", NONE, "most taken for")


def _per_cent(share: float | None) -> Cell | str:
    return "" if share is None else Cell.per_cent(share)


def classify_test(
    classifier: str | PathLike[str] | ImageClassifier,
    data: str | PathLike[str] | Source,
    *,
    labels: str | PathLike[str] | None = None,
    none_share: float | None = None,
    quiet: bool = True,
    **compute: Any,
) -> ClassifierTest:
    """Measures a classifier on labelled images that it was not fitted on. Nothing is written.

    Args:
        classifier: Folder that ``infomax classify fit`` wrote, or the classifier in it.
        data: Images with labels. If they have a test split, that is taken, and else all of them.
        labels: CSV with a line path,label for each image, its paths relative to the folder that ``data`` names.
        none_share: Share of images like those that it was fitted on that may be called none of these; None takes the
            classifier's.
        quiet: Show no progress bar.
        compute: ``device``, ``workers``, ``feature_precision`` and ``no_cache``, as the command takes them.

    Raises:
        ValueError: if it is no classifier, the images have not one class each, or it knows none of their classes.

    Example:
        >>> import infomax
        >>> infomax.classify_test("flowers/", "more-photos/").accuracy  # doctest: +SKIP
        0.92
    """
    check_names(compute, ComputeOptions)
    model = classifier if isinstance(classifier, ImageClassifier) else load_classifier(classifier)
    check_share(none_share)
    source = data
    if not isinstance(source, Source):
        location = DataLocation(fspath(source), value_range=model.description.fit.value_range)
        source = open_labelled(location, None if labels is None else Path(labels))
    return measure(model, source, pick(EvaluationOptions, {**compute, "quiet": quiet}), none_share)


def test(options: ClassifyTestOptions, *, quiet: bool) -> ClassifierTest:
    """Carries out ``infomax classify test``: measures the classifier, and writes the folder."""
    check_new_folder(options.out, TEST, overwrite=options.overwrite)
    model = load_classifier(options.classifier)
    source = open_labelled(location_for(options, model), options.labels, download=options.download)
    check_outside(options.out, source.folders, source.name)
    measured = measure(model, source, pick(EvaluationOptions, {**vars(options), "quiet": quiet}), options.none_share)
    write_test(options.out, measured, title=Path(options.classifier).resolve().name)
    return measured


@threads_within_quota()
def measure(
    classifier: ImageClassifier, source: Source, evaluation: EvaluationOptions, none_share: float | None
) -> ClassifierTest:
    """Measures a classifier on the labelled images of a source that can be read."""
    labelled = images_to_test(source)
    number = {name: i for i, name in enumerate(classifier.classes)}
    if not number.keys() & set(labelled.classes):
        raise ValueError(
            f"--data {source.name} has the classes {listed(labelled.classes)}, none of which the classifier knows: "
            f"{listed(classifier.classes)}"
        )
    note_uncalibrated(classifier)
    read = features_of_readable(FeatureComputation(classifier.encoder, evaluation), labelled.images)
    true = np.array([number.get(name, -1) for name in labelled.classes])[labelled.labels[read.rows]]
    is_known = true >= 0
    if not is_known.any():
        raise ValueError(f"--data {source.name}: no image of a class that the classifier knows can be read")
    share, known = share_of(classifier, none_share), classifier.known
    is_none = known.shapes.distances(read.features).numpy() > known.threshold(share)[0]
    fitted = int(known.are_fitted(read.features).sum())
    if fitted:
        note(
            f"{counted(fitted)} of {len(true):,} {'is' if fitted == 1 else 'are'} the same as one that the classifier "
            "was fitted on, so the scores are too high"
        )
    probabilities = classifier.probabilities(read.features[torch.from_numpy(is_known)])
    scored = _score(classifier.classes, probabilities, true[is_known], is_none[is_known])
    names = [labelled.classes[i] for i in np.unique(labelled.labels[read.rows][~is_known])]
    return replace(
        scored,
        data=public_data_name(source.name),
        split=labelled.split,
        none_share=share,
        unknown_images=int((~is_known).sum()),
        unknown_classes=tuple(names),
        unknown_none_of_these=int(is_none[~is_known].sum()),
        fitted_images=fitted,
    )


def _score(
    classes: Sequence[str], probabilities: torch.Tensor, true: Int[np.ndarray, " n"], is_none: Bool[np.ndarray, " n"]
) -> ClassifierTest:
    """Returns the scores on images of known classes, without what is known of the data.

    Args:
        classes: Names of the classes.
        probabilities: Probabilities of the classes for each image.
        true: The class of each image.
        is_none: Whether each image is called none of these.
    """
    labels = torch.from_numpy(true)
    confidence, chosen = (x.numpy() for x in probabilities.max(1))
    right = (chosen == true).astype(float)
    count = len(classes)
    most_probable = np.bincount(true * count + chosen, minlength=count * count).reshape(count, count)
    label = np.where(is_none, count, chosen)
    confusion = np.bincount(true * (count + 1) + label, minlength=count * (count + 1)).reshape(count, count + 1)
    scores = [_class_scores(classes, most_probable, i, int(confusion[i, count])) for i in range(count)]
    return ClassifierTest(
        data="",
        split="",
        images=len(true),
        accuracy=float(right.mean()),
        interval=interval(lambda rows: float(right[rows].mean()), len(right)),
        mean_recall=float(np.mean([x.recall for x in scores if x.recall is not None])),
        calibration_error=calibration_error(probabilities, labels),
        mean_probability=float(confidence.mean()),
        none_share=0.0,
        none_of_these=int(is_none.sum()),
        accuracy_of_others=None if is_none.all() else float(right[~is_none].mean()),
        unknown_images=0,
        unknown_classes=(),
        unknown_none_of_these=0,
        fitted_images=0,
        classes=tuple(scores),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _class_scores(classes: Sequence[str], counts: Int[np.ndarray, "c c"], i: int, none_of_these: int) -> ClassScores:
    """Returns the scores of class ``i``, of the numbers of images of each class by their most probable class."""
    images, chosen, others = int(counts[i].sum()), int(counts[:, i].sum()), counts[i].copy()
    others[i] = 0
    return ClassScores(
        name=classes[i],
        images=images,
        recall=float(counts[i, i] / images) if images else None,
        precision=float(counts[i, i] / chosen) if chosen else None,
        none_of_these=none_of_these,
        taken_for=classes[int(others.argmax())] if others.any() else "",
    )


def write_test(out: Path, measured: ClassifierTest, *, title: str) -> None:
    """Writes the folder of a test: a picture and a table of the confusion matrix, the classes, and all of it as JSON.

    Args:
        out: The folder.
        measured: What was measured.
        title: Name of the classifier, for the picture.
    """
    names = [x.name for x in measured.classes]
    confusion = np.array(measured.confusion)
    has_none = bool(confusion[:, -1].any())
    columns = [*names, NONE] if has_none else names
    confusion = confusion[:, : len(columns)]
    tables = {
        "confusion.csv": [
            ["class of the image", *columns],
            *([n, *row] for n, row in zip(names, confusion.tolist(), strict=True)),
        ],
        "classes.csv": [list(ClassScores.__dataclass_fields__), *(list(asdict(x).values()) for x in measured.classes)],
    }
    with new_folder(out) as contents:
        for name, rows in tables.items():
            (contents / name).write_bytes(csv_text(rows).encode(errors="surrogateescape"))
        if len(names) <= MOST_CLASSES:
            heading = f"{title} on {measured.data}: {100 * measured.accuracy:.1f} % of {counted(measured.images)} right"
            (contents / "confusion.png").write_bytes(draw_confusion(confusion, names, columns, heading))
        else:
            note(f"there is no picture of the confusion matrix: {len(names)} classes could not be read in it")
        (contents / TEST).write_text(json.dumps(asdict(measured), indent=1), encoding="utf-8")
