"""Makes the page of classified images: how many got each label, the least certain ones, and images of each label."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from infomax.classifying.classifier import NONE, ImageClassifier
from infomax.classifying.predicted import PredictedImages, predictions_table
from infomax.data.splits import counted
from infomax.embeddings.shown_images import ImageRows, ThumbnailRoom
from infomax.reporting.pages.blocks import TableBlock
from infomax.reporting.pages.gallery import Gallery, Thumbnail
from infomax.reporting.pages.page import Page, Section
from infomax.reporting.pages.titled_gallery import TitledGallery, gallery_sections
from infomax.runtime.files import write_atomic

MAX_UNCERTAIN = 24
"""Images of the gallery of the least certain ones."""
MAX_OF_LABEL = 24
"""Images of each label."""
MAX_TABLE_ROWS = 2000
"""Rows of the table of labels."""
FOOTER = "Made by infomax classify run."


def write_predicted_page(
    file: Path, predicted: PredictedImages, classifier: ImageClassifier, share: float, *, title: str
) -> None:
    """Writes the page of classified images.

    Args:
        file: The file.
        predicted: The images, and what the classifier says of them.
        classifier: The classifier.
        share: Share of usual images that may be called none of these.
        title: The classifier's name.
    """
    page = predicted_page(predicted, classifier, share, title)
    write_atomic(file, page.html().encode(errors="surrogateescape"))


def predicted_page(predicted: PredictedImages, classifier: ImageClassifier, share: float, title: str) -> Page:
    """Returns the page of classified images; see :func:`write_predicted_page`."""
    predictions, rows, room = predicted.predictions, ImageRows(predicted.splits), ThumbnailRoom()

    def thumbnails(numbers: Iterable[int]) -> tuple[Thumbnail, ...]:
        return room.take(_thumbnail(predicted, rows, i) for i in numbers)

    rising = sorted(range(len(predictions)), key=lambda i: predictions[i].probability)
    uncertain = thumbnails(i for i in rising[:MAX_UNCERTAIN] if predictions[i].label != NONE)
    of_label: dict[str, list[int]] = {}
    for i in reversed(rising):
        of_label.setdefault(predictions[i].label, []).append(i)
    blocks = []
    for label, numbers in sorted(of_label.items(), key=lambda item: (item[0] == NONE, -len(item[1]))):
        shown = thumbnails(numbers[:MAX_OF_LABEL]) if room.left > 0 else ()
        if not shown:
            break
        left = len(numbers) - len(shown)
        text = f"The most certain first; {left:,} more are not shown" if left else "The most certain first"
        blocks.append(TitledGallery(f"{label}: {counted(len(numbers))}", text, Gallery(shown)))
    table = replace(predictions_table(predictions, classifier, share), title="").shortened(MAX_TABLE_ROWS, " labels")
    words = "Labels that are wrong are most often among these: look at them first."
    sections = [
        Section("Labels", blocks=(TableBlock(table),)),
        *([Section("The least certain", words, (Gallery(uncertain),))] if uncertain else []),
        *gallery_sections(blocks, f"Images of {len(blocks):,} labels"),
    ]
    text = [f"The classifier {title} on {counted(len(predictions))}. infomax classify run --out FILE.csv lists all."]
    if hidden := len(of_label) - len(blocks):
        text.append(f"The page shows images of {len(blocks):,} labels; {hidden:,} more labels are in the table alone.")
    return Page(f"Images classified by {title}", tuple(text), tuple(sections), FOOTER)


def _thumbnail(predicted: PredictedImages, rows: ImageRows, i: int) -> Thumbnail:
    """Returns the thumbnail of an image, with what the classifier says of it."""
    x = predicted.predictions[i]
    second = f"{x.second} {x.second_probability:.2f}"
    details = (f"{x.best} {x.probability:.2f}", f"then {second}", f"distance {x.distance:.2f}")
    return rows.thumbnail(predicted.rows[i], x.name, *details, mark=NONE if x.label == NONE else "")
