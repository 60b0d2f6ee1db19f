"""What a classifier says of images: a label and a probability for each, and how many got each label."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from infomax.classifying.classifier import NONE, ImageClassifier
from infomax.data.images.contract import Images
from infomax.reporting.tables import Cell, Table, make_table


@dataclass(frozen=True)
class Prediction:
    """A frozen dataclass that holds what a classifier says of an image."""

    name: str
    """Name of the image."""
    label: str
    """The class, or ``none of these``."""
    probability: float
    """Probability of the most probable class, which is the label unless that is ``none of these``."""
    best: str
    """The most probable class."""
    second: str
    """The second most probable class."""
    second_probability: float
    distance: float
    """How far its features are from those of the nearest class; about 1 is usual."""


@dataclass(frozen=True)
class PredictedImages:
    """A frozen dataclass that holds the predictions for images, and the images themselves."""

    predictions: list[Prediction]
    rows: list[int]
    """The number of each image among those of all splits, one split after the other."""
    splits: list[Images]


def predictions_table(predictions: Sequence[Prediction], classifier: ImageClassifier, share: float) -> Table:
    """Returns a table of how many images got each label, the most frequent first."""
    number = Counter(prediction.label for prediction in predictions)
    counts = sorted(((number[name], name) for name in (*classifier.classes, NONE)), key=lambda pair: -pair[0])
    sums: dict[str, float] = {}
    for prediction in predictions:
        sums[prediction.label] = sums.get(prediction.label, 0.0) + prediction.probability
    rows = [
        [
            name,
            f"{count:,}",
            Cell.per_cent(count / len(predictions)),
            "" if name == NONE else f"{sums[name] / count:.2f}",
        ]
        for count, name in counts
        if count
    ]
    threshold, expected = classifier.known.threshold(share)
    rule = f"{NONE}: a distance above {threshold:.3g}, as {100 * expected:.2g} % of the held-out images had"
    note_below = f"no image is {NONE}" if math.isinf(threshold) else rule
    return make_table(
        ("label", "images", "%", "mean probability"), rows, notes=(f"{note_below} (--none-share {share:g})",)
    )
