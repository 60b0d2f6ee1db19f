"""Fine-tuning on another data set, with learning rate and weight decay chosen on images held out (MVEB, Table 4).

The protocol of Kornblith et al. (2019), as Ericsson et al. (2021) carry it out: of each pair of a grid, the encoder is
fine-tuned on the training images and evaluated once, at the end, on the validation images. With the best pair, the
encoder is fine-tuned once more, from its own weights, on both; this is evaluated on the test images, which nothing else
has seen.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.sources.joined import JoinedImages
from infomax.data.splits import LabelledImages, Source
from infomax.evaluation.finetune import FineTuneJob, Row
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import Representation
from infomax.evaluation.rows import TransferFinetuneRow
from infomax.evaluation.transfer import metric_of, parts, to_transfer
from infomax.evaluation.tuning import FineTuning
from infomax.evaluation.tuning_plan import announce
from infomax.runtime.checks import check_count

RATES = (0.1, 0.01, 0.001, 0.0001)
DECAYS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
GRID = tuple(product(RATES, DECAYS))
"""Pairs of a learning rate and a weight decay. SGD is given the weight decay divided by the learning rate."""
ORDER = tuple((rate, decay) for decay in (0.0, 1e-4, 1e-6, 1e-3, 1e-5) for rate in (0.01, 0.001, 0.1, 0.0001))
"""The pairs in the order in which they are tried.

The learning rate moves the result more than the weight decay. So all four are tried first without any weight decay, the
middle ones before the extremes; then come the weight decays, each far from those before.
"""
TRANSFER = FineTuning(
    name="transfer",
    steps=5000,
    batch_size=64,
    backbone_rate=0.1,
    head_rate=0.1,
    schedule="cosine-by-step",
    nesterov=True,
)
"""The setting of one fine-tuning, but for the pair. The classifier starts as PyTorch's linear layers do."""


def transfer_finetune(
    encoder: str | PathLike[str] | Representation,
    source: Source,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    budget: int | None = None,
    seed: int = 0,
    precision: str = "32",
    work: Path | None = None,
    evaluation: EvaluationOptions | None = None,
) -> TransferFinetuneRow:
    """Fine-tunes an encoder on a data set by the best pair of learning rate and weight decay, and returns its score.

    The score is the metric of the data set on its test images; the pair is the best one on the validation images.

    Of equally good pairs that with the larger learning rate counts, then that with the smaller decay. A pair whose
    training diverges is worse than any other. Images to classify are resized until their shorter side is that of the
    encoder's input. If images show several classes, each class has a binary cross-entropy of its own.

    Args:
        encoder: Name of the encoder, or what :func:`infomax.evaluation.transfer.to_transfer` made of it, for several
            data sets.
        source: The data set.
        steps: Of each fine-tuning; None takes 5,000.
        batch_size: None takes 64, or all training images if they are fewer.
        budget: Try only so many of the 20 pairs, the first in :data:`ORDER`; None tries all.
        seed: Of the classifier's first weights, the order of the images and their crops; the same for all pairs.
        precision: ``32``, or ``bf16`` by autocast.
        work: As in :func:`infomax.evaluation.finetune.finetune`; it keeps each pair, and serves a larger budget too.
        evaluation: Device, workers and cache.

    Raises:
        ValueError: if the images do not suit it, or ``work`` belongs to something else.
        FloatingPointError: if all pairs diverge, or the best one does on training and validation images together.
    """
    evaluation = evaluation or EvaluationOptions()
    if budget is not None:
        check_count("--budget", budget, low=1)
    changes: dict[str, Any] = {"steps": steps, "batch_size": batch_size}
    setting = replace(TRANSFER, **{name: value for name, value in changes.items() if value is not None})
    representation = encoder if isinstance(encoder, Representation) else to_transfer(encoder, evaluation)
    split, metric = parts(source), metric_of(source)
    both = together(split.train, split.val)
    job = FineTuneJob(
        representation,
        setting,
        {"train": split.train, "val": split.val, "trainval": both, "test": split.test},
        metric=metric,
        seed=seed,
        precision=precision,
        folder=work,
        evaluation=evaluation,
    )
    pairs = [of_pair(setting, "trial", *pair).name for pair in ORDER[:budget]]
    announce(job.encoder, split.train, setting, job.compute, trainings=len(job.unfinished(pairs)) + 1)
    trials = [_try_pair(job, setting, *pair) for pair in ORDER[:budget]]
    best = choose_best(trials)
    rate, decay = best["learning_rate"], best["weight_decay"]
    final = job.fine_tune("trainval", "test", of_pair(setting, "best", rate, decay))
    return TransferFinetuneRow.from_json(
        {
            "protocol": "transfer-finetune",
            "data": source.name,
            "representation": representation.name,
            "setting": setting.name,
            "learning_rate": rate,
            "weight_decay": decay,
            "validation": best["validation"],
            "tried": trials,
            "grid": len(GRID),
            **final,
            "train_images": len(split.train.index),
            "validation_images": len(split.val.index),
            "test_images": len(split.test.index),
            **job.row_fields(),
            "seconds": round(final["seconds"] + sum(trial["seconds"] for trial in trials), 3),
        }
    )


def of_pair(setting: FineTuning, stage: str, rate: float, decay: float) -> FineTuning:
    """Returns the setting of one pair of the grid, named after the stage and the pair."""
    name = f"{stage}-{rate:g}-{decay:g}"
    return replace(setting, name=name, backbone_rate=rate, head_rate=rate, weight_decay=decay / rate)


def _try_pair(job: FineTuneJob, setting: FineTuning, rate: float, decay: float) -> Row:
    """Returns what a row says of a pair: its metric on the validation images, or that its training diverged."""
    start, pair = time.perf_counter(), of_pair(setting, "trial", rate, decay)
    try:
        row = job.fine_tune("train", "val", pair)
    except FloatingPointError:
        row = {job.metric: None, "seconds": round(time.perf_counter() - start, 3)}
        job.work.finish(pair.name, row)
    score = row[job.metric]
    return {
        "learning_rate": rate,
        "weight_decay": decay,
        "validation": score,
        "diverged": score is None,
        "seconds": row["seconds"],
    }


def choose_best(trials: Sequence[Row]) -> Row:
    """Returns the trial of the highest ``validation``; of several, the first in :data:`GRID`.

    Raises:
        FloatingPointError: if all have diverged.
    """
    converged = [trial for trial in trials if not trial["diverged"]]
    if not converged:
        raise FloatingPointError(f"transfer: the training diverged with each of {len(trials)} pairs of the grid")
    converged.sort(key=lambda trial: GRID.index((trial["learning_rate"], trial["weight_decay"])))
    return max(converged, key=lambda trial: trial["validation"])  # max takes the first of equals


def together(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """Returns the images of both splits as one.

    Arrays of one size become one array. Splits of the same images become a split of those images.

    Raises:
        ValueError: if the splits differ in their classes or in the kind of their labels.
    """
    if first.labels.shape[1:] != second.labels.shape[1:]:
        shapes = f"{list(first.labels.shape)} and {list(second.labels.shape)}"
        raise ValueError(f"two splits must have labels of one kind, but have {shapes}")
    labels = np.concatenate([first.labels, second.labels])
    if first.images is second.images:
        index = np.concatenate([first.index, second.index])
        order = np.argsort(index)
        return LabelledImages(first.images, index[order], labels[order])
    a, b = first.images, second.images
    if a.classes != b.classes:
        raise ValueError(f"two splits must have the same classes, but have {a.classes} and {b.classes}")
    all_labels = None
    if a.labels is not None and b.labels is not None:
        all_labels = np.concatenate([a.labels, b.labels])
    images: Images | None = None
    if isinstance(a, ArrayImages) and isinstance(b, ArrayImages):
        images = a.join(b, all_labels)
    if images is None:
        images = JoinedImages([a, b], all_labels, a.classes)
    return LabelledImages(images, np.concatenate([first.index, second.index + len(a)]), labels)
