"""Fits a classifier to labelled images: what ``infomax classify fit`` and Python share."""

import shlex
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.classifying.calibration import BINS, calibrated, calibration_error, fit_temperature
from infomax.classifying.classifier import (
    NONE,
    ClassifierDescription,
    EncoderOrigin,
    FitRecord,
    HeldOutScores,
    ImageClassifier,
    is_classifier,
    load_classifier,
    read_description,
    write_classifier,
)
from infomax.classifying.images import features_of_readable
from infomax.classifying.known_features import KnownFeatures
from infomax.classifying.labelled import Labelled, images_to_fit
from infomax.classifying.opening import open_to_fit
from infomax.classifying.options import NONE_SHARE, ClassifyFitOptions, check_names
from infomax.classifying.outputs import CLASSIFIER, check_new_folder, check_outside
from infomax.classifying.solve import HeldOut, held_out_folds, solve
from infomax.classifying.tuning import default_epochs, fine_tune, split_rows
from infomax.data.sources.location import OpenedImages
from infomax.data.splits import Source, counted, listed, shown_name
from infomax.embeddings.write import FeatureComputation
from infomax.evaluation.intervals import share_interval
from infomax.evaluation.linear import PENALTIES
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocols.linear import MAX_SCORES
from infomax.models.encoders import Encoder, fingerprint, load_encoder, save_encoder
from infomax.models.pretrained import open_encoder
from infomax.runs.provenance import provenance
from infomax.runs.public_words import licence_words, public_data_name, without_folders
from infomax.runs.run_folder import describe_unfinished, run_of
from infomax.runtime.new_folders import new_folder
from infomax.runtime.options import pick
from infomax.runtime.text import note
from infomax.runtime.threads import threads_within_quota

FEW = 5
"""Images of a class below which a line says that they are few."""


def classify_fit(
    encoder: str | PathLike[str],
    *,
    data: str | PathLike[str],
    out: str | PathLike[str],
    labels: str | PathLike[str] | None = None,
    none_share: float = NONE_SHARE,
    penalty: float | None = None,
    finetune: bool = False,
    epochs: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = True,
    **data_and_compute: Any,
) -> ImageClassifier:
    """Fits a classifier of your classes on the features of an encoder, and keeps all that it needs in a folder.

    The classifier is an exact logistic regression on frozen features. Its penalty and the temperature of its
    probabilities are chosen on images that are held out, each once.

    Args:
        encoder: A run folder; timm:NAME, torchvision:NAME or hf:NAME; or a checkpoint file.
        data: Images with labels: a folder with a sub-folder for each class; a .csv with a line path,label for each
            image, its paths relative to itself; an .npz of arrays; a data set's name, as cifar10; or hf:NAME.
        out: Folder to make, which holds the classifier.
        labels: CSV with a line path,label for each image, its paths relative to the folder that ``data`` names.
        none_share: Share of images like those that it is fitted on that may be called none of these.
        penalty: Penalty on half the squared weights, beside the mean cross-entropy; None takes the best of five on
            held-out images.
        finetune: Train the encoder together with the classifier, on four fifths of the images; the last fifth is held
            out.
        epochs: Passes over the images of ``finetune``; None takes 20, or as many as make 500 steps.
        seed: Seed by which images are held out, and of the order and the crops of ``finetune``.
        overwrite: Replace a classifier that is there.
        quiet: Show no progress bar.
        data_and_compute: The other options of the command, as ``classes``, ``device`` and ``workers``.

    Returns:
        The classifier, as :func:`infomax.load_classifier` loads it.

    Raises:
        ValueError: if there is no such encoder, the images have not one class each, or ``out`` is there already.

    Example:
        >>> import infomax
        >>> classifier = infomax.classify_fit("runs/a", data="photos/", out="flowers/")  # doctest: +SKIP
        >>> classifier.description.fit.held_out.accuracy  # doctest: +SKIP
        0.93
    """
    named = {"labels": labels, "none_share": none_share, "penalty": penalty, "finetune": finetune, "epochs": epochs}
    named |= {"seed": seed, "overwrite": overwrite}
    words = {"encoder": fspath(encoder), "data": fspath(data), "out": out, **named, **data_and_compute}
    check_names(words, ClassifyFitOptions)
    return fit(pick(ClassifyFitOptions, words), quiet=quiet)


@dataclass(frozen=True)
class FitJob:
    """A frozen dataclass that holds what a classifier is fitted to, and by which options."""

    encoder: Encoder
    labelled: Labelled
    source: Source
    value_range: str | None
    options: ClassifyFitOptions
    evaluation: EvaluationOptions


@threads_within_quota()
def fit(options: ClassifyFitOptions, opened: OpenedImages | None = None, *, quiet: bool) -> ImageClassifier:
    """Carries out ``infomax classify fit``; see :func:`classify_fit`.

    Args:
        options: The options.
        opened: The images, if they are open already.
        quiet: Whether to show no progress bars.
    """
    check_new_folder(options.out, CLASSIFIER, overwrite=options.overwrite)
    opened = opened or open_to_fit(options)
    location, source = opened.location, opened.source
    check_outside(options.out, source.folders, source.name)
    labelled = images_to_fit(source)
    if source.test is not None:
        fitted, left = source.train_split or "the training images", source.test_split or "the test images"
        note(f"{shown_name(source.name)}: fits on {shown_name(fitted)}, leaves {shown_name(left)} for classify test")
    if NONE in labelled.classes:
        raise ValueError(f"--data {source.name} has a class {NONE!r}, which is what images of no class are called")
    images, classes = len(labelled.labels), len(labelled.classes)
    if images * classes > MAX_SCORES:
        raise ValueError(
            f"{images:,} images of {classes:,} classes are too many for logistic regression, which keeps the logits of "
            f"all, of which {MAX_SCORES:,} fit; --subset takes fewer images"
        )
    given = open_encoder(options.encoder).float()
    if training := describe_unfinished(options.encoder):
        note(f"{options.encoder} is {training}")
    evaluation = pick(EvaluationOptions, {**vars(options), "quiet": quiet})
    with new_folder(options.out) as contents:
        save_encoder(given, asdict(given.settings), given.preprocessing, contents)
        encoder = load_encoder(contents)  # the classifier is fitted on the features that its folder will give
        job = FitJob(encoder, labelled, source, location.value_range, options, evaluation)
        _fit_into(contents, job)
    return load_classifier(options.out)


@dataclass(frozen=True)
class Fitted:
    """A frozen dataclass that holds a linear layer, what was chosen for it, and what it gives on held-out images."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    penalty: float
    temperature: float | None
    folds: int
    scores: HeldOutScores | None
    known: KnownFeatures
    epochs: int | None = None
    """Epochs of fine-tuning; None if the encoder stayed as it was."""


def _fit_into(folder: Path, job: FitJob) -> None:
    """Fits a classifier to the images that can be read, says what was chosen, and writes it into a folder."""
    read = features_of_readable(FeatureComputation(job.encoder, job.evaluation), job.labelled.images)
    labelled = job.labelled.of_rows(read.rows)
    if len(labelled.classes) < 2:
        classes = listed(labelled.classes)
        raise ValueError(f"--data {job.source.name} has readable images of one class only, {classes}")
    if few := [f"{name} ({n})" for name, n in zip(labelled.classes, labelled.counts, strict=True) if n < FEW]:
        note(f"classes of fewer than {FEW} images, of which little can be learned: {listed(few)}")
    fitted = (_fit_tuned if job.options.finetune else _fit_linear)(folder, job, labelled, read.features)
    _note_threshold(fitted.known, job.options.none_share)
    encoder = load_encoder(folder)
    description = _describe(job, encoder, labelled, fitted)
    write_classifier(ImageClassifier(encoder, fitted.weight, fitted.bias, fitted.known, description), folder)


def _fit_linear(folder: Path, job: FitJob, labelled: Labelled, features: Float[Tensor, "n d"]) -> Fitted:
    """Fits the linear layer to the features of an encoder that stays as it is."""
    solution = solve(
        features,
        torch.from_numpy(labelled.labels),
        classes=len(labelled.classes),
        penalty=job.options.penalty,
        seed=job.options.seed,
        device=job.evaluation.torch_device,
        quiet=job.evaluation.quiet,
    )
    scores = None
    if solution.held_out is None:
        note(
            "no class has two images, so none can be held out: probabilities are not calibrated, no image will be "
            f"{NONE}, and the penalty is {solution.penalty:g}"
        )
    else:
        scores = score_held_out(solution.held_out, solution.temperature)
        once = "each image is held out once" if solution.folds > 1 else "a fifth of each class is held out"
        origin = "given by --penalty" if job.options.penalty is not None else f"the best of {len(PENALTIES)}"
        note(f"{once}, {scores.images:,} in all (--seed {job.options.seed}); penalty {solution.penalty:g}, {origin}")
        note(describe_temperature(solution.temperature, scores))
    choices = (solution.weight, solution.bias, solution.penalty, solution.temperature, solution.folds)
    folds = held_out_folds(labelled.labels, job.options.seed)
    known = KnownFeatures.of(features, torch.from_numpy(labelled.labels), len(labelled.classes), folds)
    return Fitted(*choices, scores, known)


def _fit_tuned(folder: Path, job: FitJob, labelled: Labelled, features: Float[Tensor, "n d"]) -> Fitted:
    """Fine-tunes the encoder with the linear layer, and writes the encoder into the folder."""
    to_train, to_hold = split_rows(labelled, job.options.seed)
    note(f"a fifth of each class is held out, {len(to_hold):,} images in all (--seed {job.options.seed})")
    model, start, work = fine_tune(
        job.encoder,
        labelled.of_rows(to_train),
        features[to_train],
        epochs=job.options.epochs,
        penalty=job.options.penalty,
        seed=job.options.seed,
        evaluation=job.evaluation,
    )
    save_encoder(model.encoder, asdict(job.encoder.settings), job.encoder.preprocessing, folder)
    tuned = features_of_readable(FeatureComputation(load_encoder(folder), job.evaluation), labelled.images).features
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    labels = torch.from_numpy(labelled.labels)[to_hold]
    held_out = HeldOut(to_hold, tuned[to_hold] @ weight.T + bias, labels)
    temperature = fit_temperature(held_out.logits, labels)
    scores = score_held_out(held_out, temperature)
    note(describe_temperature(temperature, scores))
    frozen = ((features[to_hold] @ start.weight.T + start.bias).argmax(1) == labels).double().mean()
    after, before = 100 * scores.accuracy, 100 * frozen
    note(f"accuracy on the held-out images {after:.1f} %, with the encoder as it was {before:.1f} %")
    work.discard()
    all_labels = torch.from_numpy(labelled.labels)
    known = KnownFeatures.of_split(tuned[to_train], all_labels[to_train], len(labelled.classes), tuned[to_hold])
    epochs = job.options.epochs or default_epochs(len(to_train))
    return Fitted(weight, bias, start.penalty, temperature, 1, scores, known, epochs)


def score_held_out(held_out: HeldOut, temperature: float | None) -> HeldOutScores:
    """Returns the scores on held-out images, with the temperature and without."""
    probabilities = calibrated(held_out.logits, temperature)
    right = (probabilities.argmax(1) == held_out.labels).numpy()
    return HeldOutScores(
        images=len(right),
        accuracy=float(right.mean()),
        interval=share_interval(right),
        calibration_error=calibration_error(probabilities, held_out.labels),
        uncalibrated_error=calibration_error(calibrated(held_out.logits, None), held_out.labels),
    )


def describe_temperature(temperature: float | None, scores: HeldOutScores) -> str:
    """Returns a line on the calibration; if the temperature makes the calibration error larger, it says why."""
    line = (
        f"temperature {temperature:.3g}, fitted on the held-out images: calibration error "
        f"{100 * scores.calibration_error:.1f} %, without it {100 * scores.uncalibrated_error:.1f} %"
    )
    if scores.calibration_error <= scores.uncalibrated_error:
        return line
    return (
        f"{line}. The error grows, because the temperature is the one with the least cross-entropy, not the least "
        f"calibration error; that comes from {BINS} bins, and chance moves it if they have few of the "
        f"{counted(scores.images)}"
    )


def _note_threshold(known: KnownFeatures, share: float) -> None:
    """Prints a line on which images will be called none of these."""
    if share == 0 or not len(known.held_out):
        note(f"no image will be {NONE}{'' if share else ' (--none-share 0)'}")
        return
    threshold, expected = known.threshold(share)
    least = f"; {len(known.held_out)} images allow no smaller share" if expected > share else ""
    note(
        f"an image is {NONE} above a distance of {threshold:.3g} to the nearest class, as {100 * expected:.2g} % of "
        f"the held-out images are (--none-share {share:g}){least}"
    )


def _describe(job: FitJob, encoder: Encoder, labelled: Labelled, fitted: Fitted) -> ClassifierDescription:
    """Returns the content of ``classifier.json``."""
    circumstances = provenance()
    return ClassifierDescription(
        kind="linear" if fitted.epochs is None else "fine-tuned",
        classes=labelled.classes,
        features=encoder.width,
        temperature=fitted.temperature,
        none_share=job.options.none_share,
        encoder=EncoderOrigin(
            name=without_folders(job.options.encoder),
            hash=fingerprint(encoder),
            licence=_licence(job.options.encoder),
        ),
        fit=FitRecord(
            data=public_data_name(job.source.name),
            split=labelled.split,
            fingerprint=labelled.images.fingerprint(),
            images=len(labelled.labels),
            class_counts=tuple(labelled.counts),
            unreadable=len(job.labelled.labels) - len(labelled.labels),
            notes=tuple(without_folders(line) for line in job.source.notes),
            value_range=job.value_range,
            seed=job.options.seed,
            penalty=fitted.penalty,
            folds=fitted.folds,
            epochs=fitted.epochs,
            held_out=fitted.scores,
        ),
        versions=circumstances["versions"],
        created=circumstances["started"],
    )


def _licence(encoder: str) -> str:
    """Returns words for the licence of an encoder's weights."""
    if is_classifier(encoder):
        return read_description(encoder).encoder.licence
    return licence_words(run_of(encoder), encoder)


def summary(classifier: ImageClassifier, folder: str) -> str:
    """Returns what was fitted, in words for a terminal.

    Args:
        classifier: The classifier.
        folder: Its folder.
    """
    about, record = classifier.description, classifier.description.fit
    lines = [
        f"{folder}: a {about.kind} classifier of {len(about.classes)} classes on {about.features} features of "
        f"{about.encoder.name}, fitted on {counted(record.images)}"
    ]
    if (scores := record.held_out) is not None:
        low, high = (100 * bound for bound in scores.interval)
        lines.append(
            f"accuracy on held-out images: {100 * scores.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f}, "
            f"{counted(scores.images)})"
        )
    lines.append(f"the classes of other images: infomax classify run {shlex.quote(folder)} --data DIR")
    return "\n".join(lines)
