"""Classifies images: what ``infomax classify run`` and Python share."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from infomax.classifying.classifier import NONE, ImageClassifier, load_classifier
from infomax.classifying.images import features_of_readable
from infomax.classifying.options import ClassifyRunOptions, check_names, check_share
from infomax.classifying.outputs import PAGE_SUFFIX
from infomax.classifying.predicted import PredictedImages, Prediction
from infomax.classifying.predicted_page import write_predicted_page
from infomax.data.images.contract import Images
from infomax.data.options import DataOptions
from infomax.data.sources.given import GivenImages, open_given
from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, all_images, describe_splits
from infomax.embeddings.feature_file import import_pyarrow
from infomax.embeddings.write import FeatureComputation
from infomax.evaluation.options import ComputeOptions, EvaluationOptions
from infomax.runtime.csv_text import csv_text
from infomax.runtime.files import write_atomic
from infomax.runtime.options import pick
from infomax.runtime.text import note, show
from infomax.runtime.threads import threads_within_quota


def classify_run(
    classifier: str | PathLike[str] | ImageClassifier,
    data: str | PathLike[str] | Source | GivenImages,
    *,
    none_share: float | None = None,
    quiet: bool = True,
    **compute: Any,
) -> list[Prediction]:
    """Names the class of each image, with a calibrated probability, or none of these.

    Args:
        classifier: Folder that ``infomax classify fit`` wrote, or the classifier in it.
        data: What ``--data`` takes; or the images themselves, as :func:`infomax.embed` takes them.
        none_share: Share of images like those that it was fitted on that may be called none of these; None takes the
            classifier's.
        quiet: Show no progress bar.
        compute: ``device``, ``workers``, ``feature_precision`` and ``no_cache``, as the command takes them.

    Returns:
        A prediction for each image that can be read, in their order.

    Raises:
        ValueError: if it is no classifier, or there are no images.

    Example:
        >>> import infomax
        >>> predictions = infomax.classify_run("flowers/", ["1.jpg", "2.jpg"])  # doctest: +SKIP
        >>> predictions[0].label, predictions[0].probability  # doctest: +SKIP
        ('tulip', 0.97)
    """
    check_names(compute, ComputeOptions)
    check_share(none_share)
    model = classifier if isinstance(classifier, ImageClassifier) else load_classifier(classifier)
    if isinstance(data, Source):
        source = data
    elif isinstance(data, str | PathLike):
        source = DataLocation(fspath(data), value_range=model.description.fit.value_range).open()
    else:
        location = DataLocation("", value_range=model.description.fit.value_range)
        source = location.select(open_given(data, in_order=True))
    return predict(model, source, pick(EvaluationOptions, {**compute, "quiet": quiet}), none_share).predictions


def run(options: ClassifyRunOptions, source: Source, *, quiet: bool) -> tuple[list[Prediction], ImageClassifier]:
    """Carries out ``infomax classify run``: classifies the images, and writes the file.

    Args:
        options: The options.
        source: The images, opened.
        quiet: Whether to show no progress bars.
    """
    model = load_classifier(options.classifier)
    source = source.decoded_by(location_for(options, model).decoding())
    evaluation = pick(EvaluationOptions, {**vars(options), "quiet": quiet})
    predicted = predict(model, source, evaluation, options.none_share)
    if options.out.suffix == PAGE_SUFFIX:
        share = share_of(model, options.none_share)
        write_predicted_page(options.out, predicted, model, share, title=Path(options.classifier).resolve().name)
    else:
        write_predictions(options.out, predicted.predictions)
    return predicted.predictions, model


def location_for(options: DataOptions, classifier: ImageClassifier) -> DataLocation:
    """Returns where the images are, with the range of values of those that the classifier was fitted on."""
    given, value_range = options.given_location(), classifier.description.fit.value_range
    if "value_range" not in given and value_range is not None:
        note(f"--value-range {value_range} is taken, with which the classifier was fitted")
        given["value_range"] = value_range
    return DataLocation(**given)


@threads_within_quota()
def predict(
    classifier: ImageClassifier, source: Source, evaluation: EvaluationOptions, none_share: float | None
) -> PredictedImages:
    """Returns a prediction for each image of a source that can be read."""
    for line in describe_splits(source, to_train=True, notes_alone=True):
        show(line, file=sys.stderr)
    note_uncalibrated(classifier)
    splits, names = all_images(source)
    predictions: list[Prediction] = []
    kept: list[int] = []
    start = 0
    for images in splits.values():
        rows, numbers = _predict_images(classifier, images, evaluation, none_share)
        predictions += [Prediction(names[start + n], *row) for n, row in zip(numbers, rows, strict=True)]
        kept += [start + n for n in numbers]
        start += len(images)
    return PredictedImages(predictions, kept, list(splits.values()))


def note_uncalibrated(classifier: ImageClassifier) -> None:
    """Prints a line if the classifier's probabilities are not calibrated."""
    if classifier.description.temperature is None:
        note("probabilities are not calibrated: no image could be held out when the classifier was fitted")


def _predict_images(
    classifier: ImageClassifier, images: Images, evaluation: EvaluationOptions, none_share: float | None
) -> tuple[list[tuple[str, float, str, str, float, float]], list[int]]:
    """Returns the fields of a prediction but its name, and the images' numbers."""
    read = features_of_readable(FeatureComputation(classifier.encoder, evaluation), images)
    distances = classifier.known.shapes.distances(read.features)
    threshold, _ = classifier.known.threshold(share_of(classifier, none_share))
    best, place = classifier.probabilities(read.features).topk(2, dim=1)
    rows = []
    for (p, q), (first, second), distance in zip(best.tolist(), place.tolist(), distances.tolist(), strict=True):
        name = classifier.classes[first]
        label = NONE if distance > threshold else name
        rows.append((label, p, name, classifier.classes[second], q, distance))
    return rows, read.rows.tolist()


def share_of(classifier: ImageClassifier, none_share: float | None) -> float:
    """Returns the share of usual images that may be called none of these: that given, or the classifier's."""
    return classifier.description.none_share if none_share is None else none_share


def check_parquet(file: Path) -> None:
    """Raises ValueError if a file is to be Parquet and pyarrow is not installed."""
    if file.suffix == ".parquet":
        import_pyarrow(instead=".csv")


def write_predictions(file: Path, predictions: Sequence[Prediction]) -> None:
    """Writes predictions to a .csv, .jsonl or .parquet file, a row for each image."""
    rows = [asdict(prediction) for prediction in predictions]
    write_atomic(file, {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[file.suffix](rows))


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    cells = [Prediction.__dataclass_fields__, *(_rounded(row).values() for row in rows)]
    return csv_text(cells).encode(errors="surrogateescape")


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    lines = (json.dumps(_rounded(row), ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    pa, pq = import_pyarrow(instead=".csv"), import_module("pyarrow.parquet")
    kinds = {field.name: pa.string() if field.type is str else pa.float64() for field in _fields()}
    columns = {name: [row[name] for row in rows] for name in kinds}
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=pa.schema(list(kinds.items()))), out)
    return out.getvalue()


def _fields() -> Sequence[Any]:
    return list(Prediction.__dataclass_fields__.values())
