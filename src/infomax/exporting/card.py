"""The model card of an export: what the encoder is, how it is opened, what it was trained on and how good it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infomax.classifying.classifier import ClassifierDescription
from infomax.data.augmentation.views import Preprocessing
from infomax.data.pixel_format import PixelFormat
from infomax.evaluation.result_row import ResultRow
from infomax.evaluation.results import read_results, with_hits
from infomax.exporting.check import Comparison
from infomax.exporting.export_format import Format, LoadingCode
from infomax.reporting.results import results_table
from infomax.runs.public_words import initial_weights, licence_words, public_data_name, without_folders
from infomax.runs.run_folder import Run, trained_steps_of
from infomax.runtime.durations import duration
from infomax.runtime.text import escape

HUB_LIBRARIES = {"timm": "timm", "huggingface": "transformers", "onnx": "onnx"}
"""Names of libraries as the hub knows them, by format."""
PROTOCOL_WORDS = {"knn": "k-NN"}


@dataclass(frozen=True, kw_only=True)
class CardContent:
    """A frozen dataclass that holds what a model card is filled from."""

    title: str
    kind: Format
    code: LoadingCode
    facts: dict[str, str]
    """What the format says of itself, as its opset."""
    input_words: str
    preprocessing: Preprocessing
    width: int
    parameters: int
    """Number of weights."""
    comparison: Comparison
    images: str
    """Words for the images of the comparison."""
    encoder_name: str
    """The encoder as the user named it."""
    fingerprint: str
    """Hash of the encoder's architecture and weights."""
    run: Run | None
    """The run that trained it; None for an encoder of another library or in a file."""
    kept_epoch: int | None = None
    """Epoch, from 1, after which the encoder was kept within its run; None for the one of the whole run."""
    classifier: ClassifierDescription | None = None
    """The classifier that it is the encoder of, whose logits the export gives; None for an encoder alone."""


def card_text(content: CardContent) -> str:
    """Returns a model card in Markdown, with the head that the hub of Hugging Face reads."""
    if content.classifier is not None:
        return _classifier_card(content, content.classifier)
    sections = [
        _head(content),
        f"# {escape(content.title)}\n\n{_summary(content)}",
        f"## Use\n\n```python\n{content.code.with_image().rstrip()}\n```\n\n{_use_words(content)}",
        f"## Preprocessing\n\n{preprocessing_words(content.preprocessing)}",
        f"## Training data\n\n{_data_words(content.run)}",
        f"## Training\n\n{_training_words(content)}",
        f"## Scores\n\n{_scores(content)}",
        f"## Check\n\n{_check_words(content)}",
        f"## Licence\n\n{licence_words(content.run, content.encoder_name)}",
    ]
    return "\n\n".join(sections) + "\n"


def _classifier_card(content: CardContent, classifier: ClassifierDescription) -> str:
    """Returns the card of a classifier."""
    head = ["---", "pipeline_tag: image-classification"]
    head += [f"library_name: {library}"] if (library := HUB_LIBRARIES.get(content.kind.name)) else []
    shown = content.code.with_image("logits").rstrip()
    sections = [
        "\n".join([*head, "tags:", "- infomax", "- image-classification", "---"]),
        f"# {escape(content.title)}\n\n{_classifier_summary(content, classifier)}",
        f"## Use\n\n```python\n{shown}\n```\n\nThe model takes {content.input_words}, and returns logits [B, "
        f"{len(classifier.classes)}] of the classes below, in their order. Their softmax gives the probabilities: the "
        "temperature is in the weights."
        f"{_opset_words(content)}",
        f"## Classes\n\n{_class_list(classifier)}",
        f"## Preprocessing\n\n{preprocessing_words(content.preprocessing)}",
        f"## Training\n\n{_classifier_training(classifier)}",
        f"## Scores\n\n{_classifier_scores(classifier)}",
        f"## Check\n\n{_check_words(content)}",
        f"## Licence\n\n{classifier.encoder.licence}",
    ]
    return "\n\n".join(sections) + "\n"


def _classifier_summary(content: CardContent, classifier: ClassifierDescription) -> str:
    return (
        f"A classifier of {len(classifier.classes)} classes of images: an encoder, {escape(classifier.encoder.name)}, "
        f"with a linear layer on its {content.width} features. It has {content.parameters / 1e6:.1f} million weights. "
        f"Format: {content.kind.description}; {content.facts['architecture']}."
    )


def _class_list(classifier: ClassifierDescription) -> str:
    counts = classifier.fit.class_counts
    return "\n".join(
        f"{i}. {escape(name)} ({count:,} images)"
        for i, (name, count) in enumerate(zip(classifier.classes, counts, strict=True))
    )


def _classifier_training(classifier: ClassifierDescription) -> str:
    fit, temperature = classifier.fit, classifier.temperature
    calibration = "not calibrated" if temperature is None else f"calibrated by a temperature of {temperature:.3g}"
    images = f"{fit.images:,} labelled images, {escape(fit.data)} (fingerprint `{fit.fingerprint}`)"
    kind = f"Logistic regression with infomax on frozen features of {images}; penalty {fit.penalty:g}"
    if fit.epochs is not None:
        kind = f"Fine-tuning with infomax for {fit.epochs} epochs on {images}"
    return f"{kind}; probabilities {calibration}."


def _classifier_scores(classifier: ClassifierDescription) -> str:
    scores = classifier.fit.held_out
    if scores is None:
        return "None: no image could be held out."
    low, high = (100 * bound for bound in scores.interval)
    return (
        f"Accuracy on {scores.images:,} held-out images: {100 * scores.accuracy:.1f} % (95 % interval {low:.1f} to "
        f"{high:.1f}); expected calibration error {100 * scores.calibration_error:.1f} %."
    )


def _head(content: CardContent) -> str:
    """Returns the lines in YAML."""
    tags = ["infomax", "self-supervised-learning", "image-feature-extraction"]
    tags += [content.run.recipe.method.name] if content.run is not None else []
    library = HUB_LIBRARIES.get(content.kind.name)
    lines = ["---", "pipeline_tag: image-feature-extraction"]  # the licence is for the user to add
    lines += [f"library_name: {library}"] if library else []
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _summary(content: CardContent) -> str:
    run = content.run
    training = "" if run is None else f", trained without labels by {run.recipe.method.name} with infomax"
    return (
        f"An image encoder{training}: it maps an image to {content.width} features. It has "
        f"{content.parameters / 1e6:.1f} million weights. Format: {content.kind.description}; "
        f"{content.facts['architecture']}."
    )


def _use_words(content: CardContent) -> str:
    """Returns words for what goes in and what comes out."""
    return f"The model takes {content.input_words}, and returns features [B, {content.width}].{_opset_words(content)}"


def _opset_words(content: CardContent) -> str:
    if "opset" not in content.facts:
        return ""
    return f" Opset {content.facts['opset']}; `metadata_props` hold the preprocessing."


def preprocessing_words(shown: Preprocessing) -> str:
    """Returns words for how an image becomes the encoder's input."""
    interpolation = "bicubic" if shown.bicubic else "bilinear"
    pixel_format = shown.pixel_format
    image = "The image, in RGB, is" if pixel_format.is_rgb else f"{_numbers_words(pixel_format)} Then it is"
    scaled = "" if pixel_format.is_deep else " scaled to 0 to 1,"
    channels = "red, green and blue" if pixel_format.is_rgb else "its channels"
    return (
        f"{image} resized to {shown.resize} pixels on its shorter side ({interpolation}, with "
        f"antialiasing), cropped to the {shown.size} x {shown.size} pixels in its centre,{scaled} and "
        f"normalised: minus the mean {_numbers(shown.mean)}, over the standard deviation {_numbers(shown.std)}, of "
        f"{channels}."
    )


def _numbers_words(pixel_format: PixelFormat) -> str:
    """Returns words for what an image of other channels or depths than 8-bit RGB is, and how its numbers are scaled."""
    channels = f"{pixel_format.channels} channel{'s'[: pixel_format.channels != 1]}"
    if not pixel_format.is_deep:
        gray = " (colours become gray: the luma of ITU-R 601, as Pillow's mode L)" if pixel_format.channels == 1 else ""
        return f"The image is an array [H, W, {pixel_format.channels}] of {channels} of bytes{gray}."
    low, high, fill = (_numbers_once(values) for values in (pixel_format.low, pixel_format.high, pixel_format.fill))
    missing = "NaN and infinite numbers are"
    if pixel_format.no_data is not None:
        missing = f"NaN, infinite numbers and {pixel_format.no_data:g} are"
    gray = ""
    if pixel_format.channels == 1:
        gray = " Of DICOM, they are those after the rescale slope and intercept, and of MONOCHROME1 turned around."
    return (
        f"The image is an array [H, W, {pixel_format.channels}] of {channels}, with the numbers of its file.{gray} "
        f"The numbers from {low} to {high} become 0 to 1, and what lies outside is cut off. {missing} no measurements, "
        f"and become {fill or 0}."
    )


def _numbers_once(values: Sequence[float]) -> str:
    """Returns a number for each channel, or one if all are the same."""
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return _numbers(values) if values else ""


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def _data_words(run: Run | None) -> str:
    if run is None:
        return "Not known: the encoder was not trained in a run folder of infomax."
    config = run.config
    words = [f"{config['images']:,} images without labels: {escape(public_data_name(run.location.data))}."]
    if (side := config.get("shorter_side")) is not None:
        words.append(f"A typical one has {side} pixels on its shorter side.")
    if config.get("subset") or config.get("classes"):
        words.append("They are a selection of that data set.")
    words.append(f"Their fingerprint is `{config['fingerprint']}`.")
    return " ".join(words)


def _training_words(content: CardContent) -> str:
    run = content.run
    if run is None:
        return f"The weights were taken as they are from `{escape(without_folders(content.encoder_name))}`."
    config, recipe = run.config, run.recipe
    launch, machine = config.get("launch", {}), config.get("machine", {})
    kinds = {"cuda": "a GPU", "mps": "Apple's GPU"}
    device = launch.get("gpu") or kinds.get(launch.get("device", ""), f"a CPU, {machine.get('cpu') or ''}")
    count = launch.get("devices", 1)
    rows = run.read_rows("metrics.jsonl")
    steps = run.trained_steps if content.kept_epoch is None else trained_steps_of(run.kept_encoder(content.kept_epoch))
    rows = [row for row in rows if row["step"] <= steps]
    seconds = [row["seconds"] for row in rows if isinstance(row.get("seconds"), int | float)]
    cost = f"{steps:,} steps of {recipe.batch_size} images"
    cost += f" in {duration(seconds[-1])}" if seconds else ""
    lines = [
        f"- Recipe: {escape(without_folders(run.recipe_title))}",
        f"- Backbone: {escape(without_folders(recipe.encoder.backbone))}",
        f"- Cost: {cost}, on {device.strip().rstrip(',')}{f' ({count} devices)' if count > 1 else ''}",
        f"- Versions: {', '.join(f'{name} {value}' for name, value in config.get('versions', {}).items())}",
    ]
    if content.kept_epoch is not None:
        lines.append(f"- The encoder was kept after epoch {content.kept_epoch} of {recipe.epochs}")
    elif not run.finished:
        total = recipe.steps(config["images"])
        lines.append(f"- The training is not finished: {run.trained_steps:,} of {total:,} steps are done")
    if (name := initial_weights(run)) is not None:
        lines.append(f"- Initial weights: {escape(name)}")
    return "\n".join(lines)


def current_rows(run: Run, fingerprint: str) -> list[ResultRow]:
    """Returns the newest rows of a run's results that are of the encoder as it is now, and of its baselines.

    Args:
        run: The run.
        fingerprint: Hash of its encoder.

    Raises:
        ValueError: if the results cannot be read.
    """
    file = run.path / "results.jsonl"
    if not file.is_file():
        return []
    rows = with_hits(read_results(file), file)
    own = [row for row in rows if row.encoder == fingerprint]
    measured = {_measurement(row) for row in own}
    newest: dict[Any, ResultRow] = {}
    for row in rows:
        if _measurement(row) in measured and (row.encoder == fingerprint or not _is_of_a_run(row)):
            newest[(_measurement(row), row.representation)] = row
    return list(newest.values())


def _is_of_a_run(row: ResultRow) -> bool:
    return row.representation == "trained encoder"


def _measurement(row: ResultRow) -> tuple[Any, ...]:
    """Returns what tells apart two measurements of one encoder."""
    from infomax.evaluation.result_row import Condition, row_fields

    conditions = [field.name for field in row_fields(type(row)) if isinstance(field.mark, Condition)]
    return (row.protocol, *(getattr(row, name) for name in conditions), row.labelled_images, row.test_images)


def _scores(content: CardContent) -> str:
    if content.run is None:
        return "None were measured in a run folder."
    try:
        rows = current_rows(content.run, content.fingerprint)
    except ValueError as error:
        return f"They could not be read: {escape(without_folders(str(error)))}"
    if not rows:
        return "None yet: `infomax evaluate knn` on the run folder measures some."
    tables = []
    for protocol, data in dict.fromkeys((row.protocol, row.data) for row in rows):
        group = [row for row in rows if (row.protocol, row.data) == (protocol, data)]
        shown = [replace(row, data=public_data_name(row.data)) for row in group]
        title = PROTOCOL_WORDS.get(protocol, protocol)
        limits = sorted({Path(file).name for row in group for file in (row.classes_file, row.subset_file) if file})
        tables.append(results_table(title, shown, limits=limits).markdown())
    return "\n\n".join([*tables, "The interval is of 95 %, over the test images."])


def _check_words(content: CardContent) -> str:
    comparison = content.comparison
    return (
        f"{comparison.library} {comparison.version} has opened this export in a process of its own, by the code above, "
        f"and gives {comparison.words()}. The images were 8 {content.images}. Its own preprocessing of them differs by "
        f"{comparison.pixel_difference:.2g} of 255 in the mean."
    )
