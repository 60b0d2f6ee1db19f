"""Makes the page of a test of a classifier: scores, confusions, calibration, and the most confident mistakes."""

from collections.abc import Iterator
from pathlib import Path

from infomax.classifying.classifier import NONE, ImageClassifier
from infomax.classifying.tested import ClassifierTest, ImageAnswers
from infomax.data.splits import counted, listed
from infomax.embeddings.shown_images import ImageRows, ThumbnailRoom
from infomax.evaluation.intervals import wilson_distances
from infomax.reporting.pages.blocks import Facts, Notice, TableBlock
from infomax.reporting.pages.charts import MAX_CLASSES, Curve, LineChart, Matrix
from infomax.reporting.pages.gallery import Gallery
from infomax.reporting.pages.page import Page, Section
from infomax.runtime.files import write_atomic

MAX_MISTAKES = 48
"""Images of the gallery of mistakes."""
MAX_TABLE_ROWS = 2000
"""Rows of the table of classes."""
FOOTER = "Made by infomax classify test."


def write_tested_page(
    file: Path, measured: ClassifierTest, answers: ImageAnswers, classifier: ImageClassifier, *, title: str
) -> None:
    """Writes the page of a test.

    Args:
        file: The file.
        measured: What was measured.
        answers: The answer on each image.
        classifier: The classifier.
        title: Its name.
    """
    page = classifier_test_page(measured, answers, classifier, title)
    write_atomic(file, page.html().encode(errors="surrogateescape"))


def classifier_test_page(
    measured: ClassifierTest, answers: ImageAnswers, classifier: ImageClassifier, title: str
) -> Page:
    """Returns the page of a test; see :func:`write_tested_page`."""
    low, high = (100 * bound for bound in measured.interval)
    split = f", split {measured.split}" if measured.split else ""
    text = (
        f"The most probable class is right for {100 * measured.accuracy:.1f} % of {counted(measured.images)} (95 % "
        f"interval {low:.1f} to {high:.1f}).",
        f"The classifier {title} on {measured.data}{split}.",
    )
    notices = tuple(_notices(measured, classifier))
    table = measured.table().shortened(MAX_TABLE_ROWS, " classes")
    sections = [
        *([Section("Before you trust the scores", blocks=notices)] if notices else []),
        Section("Scores", blocks=(Facts(tuple(_scores(measured))),)),
        Section("Classes", blocks=(TableBlock(table), _matrix(measured))),
        Section("Calibration", _calibration_words(measured), (_calibration_chart(measured),)),
        _mistakes_section(measured, answers),
        Section("The classifier", blocks=(Facts(tuple(_origin(classifier))),)),
    ]
    return Page(f"Test of {title}", text, tuple(sections), FOOTER)


def _notices(measured: ClassifierTest, classifier: ImageClassifier) -> Iterator[Notice]:
    """Yields what makes the scores mislead."""
    if measured.caveat:
        yield Notice(
            "warning", "Images were fitted on", measured.caveat, "Test on images that the classifier has not seen"
        )
    if measured.unknown_images:
        share = 100 * measured.unknown_none_of_these / measured.unknown_images
        yield Notice(
            "info",
            f"{counted(measured.unknown_images)} of unknown classes are not counted",
            f"The classifier does not know {listed(measured.unknown_classes)}; {measured.unknown_none_of_these:,} of "
            f"these images ({share:.1f} %) are {NONE}",
        )
    if classifier.description.temperature is None:
        yield Notice("info", "Probabilities are not calibrated", "No image could be held out when it was fitted")


def _scores(measured: ClassifierTest) -> Iterator[tuple[str, str]]:
    """Yields the scores of all images, with their names."""
    low, high = (100 * bound for bound in measured.interval)
    yield "accuracy, by the most probable class", f"{100 * measured.accuracy:.1f} % ({low:.1f} to {high:.1f})"
    yield "images", f"{measured.images:,}"
    yield "mean over classes", f"{100 * measured.mean_recall:.1f} %"
    yield "calibration error", f"{100 * measured.calibration_error:.1f} %"
    share = 100 * measured.none_of_these / measured.images
    yield NONE, f"{measured.none_of_these:,} ({share:.1f} %, --none-share {measured.none_share:g})"
    if measured.accuracy_of_others is not None:
        yield "accuracy on the others", f"{100 * measured.accuracy_of_others:.1f} %"
    if measured.none_of_these:
        yield f"accuracy by the label, for which {NONE} is wrong", f"{100 * measured.label_accuracy:.1f} %"


def _matrix(measured: ClassifierTest) -> Matrix:
    """Returns the confusion matrix; ``none of these`` is a column if an image is called so."""
    names = [x.name for x in measured.classes]
    has_none = any(row[-1] for row in measured.confusion)
    columns = [*names, NONE] if has_none and len(names) < MAX_CLASSES else names
    counts = [row[: len(columns)] for row in measured.confusion]
    left = has_none and len(columns) == len(names)
    caption = "A row is the class of an image, a column its label." + (
        f" Images that are {NONE} are left out." if left else ""
    )
    return Matrix("Which class is taken for which", names, columns, counts, caption)


def _calibration_words(measured: ClassifierTest) -> str:
    return (
        f"Of images with a probability of 0.8, 80 % should be right. The mean probability is "
        f"{100 * measured.mean_probability:.1f} %, {100 * measured.accuracy:.1f} % are right; the mean distance of the "
        f"bins from the line is {100 * measured.calibration_error:.1f} % (expected calibration error)."
    )


def _calibration_chart(measured: ClassifierTest) -> LineChart:
    """Returns the chart of how many images are right by their probability, with an interval for each bin."""
    bins = measured.calibration
    right, edges = [x.accuracy for x in bins], [_wilson(x.accuracy, x.images) for x in bins]
    low, high = (tuple(edge[i] for edge in edges) for i in (0, 1))
    counts = ", ".join(f"{x.images:,} at {x.low:.2f} to {x.high:.2f}" for x in bins)
    curves = (
        Curve("this classifier", tuple(x.mean_probability for x in bins), tuple(right), 0, low, high),
        Curve("well calibrated", (0.0, 1.0), (0.0, 1.0), 1),
    )
    caption = f"The band is the 95 % interval of each bin (Wilson). Images by their probability: {counts}."
    return LineChart(
        "Share that is right by probability", "probability", "share that is right", curves, caption=caption
    )


def _wilson(share: float, images: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share."""
    below, above = wilson_distances(round(share * images), images)
    return share - below, share + above


def _mistakes_section(measured: ClassifierTest, answers: ImageAnswers) -> Section:
    """Returns the section with the images that are named wrongly with the highest probabilities."""
    names, mistakes = [x.name for x in measured.classes], answers.mistakes()
    if not len(mistakes):
        return Section("Mistakes", "Every image is named rightly.")
    rows = ImageRows([answers.images])
    thumbnails = ThumbnailRoom().take(
        rows.thumbnail(
            int(answers.rows[i]),
            answers.images.name(int(answers.rows[i])),
            f"is {names[answers.true[i]]}",
            f"taken for {names[answers.chosen[i]]}, probability {answers.probability[i]:.2f}",
            mark="fitted on" if answers.is_fitted[i] else "",
        )
        for i in mistakes[:MAX_MISTAKES].tolist()
    )
    share = 100 * len(mistakes) / len(answers.rows)
    shown = (
        f"the {len(thumbnails):,} with the highest probability" if len(thumbnails) < len(mistakes) else "all of them"
    )
    text = f"{len(mistakes):,} images ({share:.1f} %) are named wrongly; {shown}. Wrong labels are often among these."
    return Section("The most confident mistakes", text, (Gallery(thumbnails),))


def _origin(classifier: ImageClassifier) -> Iterator[tuple[str, str]]:
    """Yields what the classifier was made of."""
    described, fit = classifier.description, classifier.description.fit
    yield "encoder", described.encoder.name
    yield "fitted on", f"{counted(fit.images)} of {fit.data}{f', split {fit.split}' if fit.split else ''}"
    yield "classes", f"{len(described.classes):,}"
    yield "kind", described.kind
    yield "temperature", "none" if described.temperature is None else f"{described.temperature:.3g}"
    if fit.held_out is not None:
        low, high = (100 * bound for bound in fit.held_out.interval)
        held_out = f"{100 * fit.held_out.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f})"
        yield "accuracy on held-out images", f"{held_out} of {counted(fit.held_out.images)}"
    yield "made", described.created
