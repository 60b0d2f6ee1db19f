"""Measures a classifier on labelled images: what ``infomax classify test`` and Python share."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from infomax.classifying.calibration import calibration_bins, calibration_error
from infomax.classifying.classifier import NONE, ImageClassifier, load_classifier
from infomax.classifying.confusion import MOST_CLASSES, draw_confusion
from infomax.classifying.images import features_of_readable
from infomax.classifying.labelled import images_to_test
from infomax.classifying.opening import open_labelled
from infomax.classifying.options import ClassifyTestOptions, check_names, check_share
from infomax.classifying.outputs import PAGE_SUFFIX, TEST, check_new_folder, check_outside
from infomax.classifying.run import location_for, note_uncalibrated, share_of
from infomax.classifying.tested import ClassifierTest, ClassScores, ImageAnswers
from infomax.classifying.tested_page import write_tested_page
from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, counted, listed
from infomax.embeddings.write import FeatureComputation
from infomax.evaluation.intervals import share_interval
from infomax.evaluation.options import ComputeOptions, EvaluationOptions
from infomax.runs.public_words import public_data_name
from infomax.runtime.csv_text import csv_text
from infomax.runtime.new_folders import new_folder
from infomax.runtime.options import pick
from infomax.runtime.text import note
from infomax.runtime.threads import threads_within_quota


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
    return measure(model, source, pick(EvaluationOptions, {**compute, "quiet": quiet}), none_share)[0]


def test(options: ClassifyTestOptions, source: Source, *, quiet: bool) -> ClassifierTest:
    """Carries out ``infomax classify test``: measures the classifier, and writes the folder or the page.

    Args:
        options: The options.
        source: The images, opened.
        quiet: Whether to show no progress bars.
    """
    is_page = options.out.suffix == PAGE_SUFFIX
    if not is_page:
        check_new_folder(options.out, TEST, overwrite=options.overwrite)
    model = load_classifier(options.classifier)
    source = source.decoded_by(location_for(options, model).decoding())
    evaluation, title = (
        pick(EvaluationOptions, {**vars(options), "quiet": quiet}),
        Path(options.classifier).resolve().name,
    )
    if not is_page:
        check_outside(options.out, source.folders, source.name)
    measured, answers = measure(model, source, evaluation, options.none_share)
    if is_page:
        write_tested_page(options.out, measured, answers, model, title=title)
    else:
        write_test(options.out, measured, title=title)
    return measured


@threads_within_quota()
def measure(
    classifier: ImageClassifier, source: Source, evaluation: EvaluationOptions, none_share: float | None
) -> tuple[ClassifierTest, ImageAnswers]:
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
    is_fitted = known.are_fitted(read.features)
    probabilities = classifier.probabilities(read.features[torch.from_numpy(is_known)])
    scored = _score(classifier.classes, probabilities, true[is_known], is_none[is_known])
    names = [labelled.classes[i] for i in np.unique(labelled.labels[read.rows][~is_known])]
    measured = replace(
        scored,
        data=public_data_name(source.name),
        split=labelled.split,
        none_share=share,
        unknown_images=int((~is_known).sum()),
        unknown_classes=tuple(names),
        unknown_none_of_these=int(is_none[~is_known].sum()),
        fitted_images=int(is_fitted.sum()),
    )
    if measured.caveat:
        note(measured.caveat)
    probability, chosen = (x.numpy() for x in probabilities.max(1))
    answers = ImageAnswers(
        labelled.images, read.rows[is_known], true[is_known], chosen, probability, is_fitted[is_known]
    )
    return measured, answers


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
        interval=share_interval(right > 0),
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
        calibration=tuple(calibration_bins(probabilities, labels)),
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
            right = f"{100 * measured.label_accuracy:.1f} % of {counted(measured.images)} have the right label"
            heading = f"{title} on {measured.data}: {right}"
            (contents / "confusion.png").write_bytes(
                draw_confusion(confusion, names, columns, heading, measured.caveat)
            )
        else:
            note(f"there is no picture of the confusion matrix: {len(names)} classes could not be read in it")
        (contents / TEST).write_text(json.dumps(asdict(measured), indent=1), encoding="utf-8")
