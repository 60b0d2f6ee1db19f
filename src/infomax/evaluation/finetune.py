"""Fine-tuning on few labels: 1 % or 10 % of ImageNet's, by the settings of the papers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.data.splits import LabelledImages, Source
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.paired import hash_images
from infomax.evaluation.representations import Representation, labelled, represent
from infomax.evaluation.resumable_work import ResumableWork, hash_labelled_images
from infomax.evaluation.rows import FinetuneRow
from infomax.evaluation.scores import METRICS, judge
from infomax.evaluation.tuning import Compute, FineTuner, FineTuning, class_count, class_scores
from infomax.evaluation.tuning_plan import announce
from infomax.runtime.checks import check_count, choose
from infomax.runtime.collectives import world_size

Row = dict[str, Any]

_FEW_LABELS = partial(FineTuning, bicubic=False)  # as for the papers' probes (decisions: fine-tuning)
_CORINFOMAX: dict[str, Any] = {"epochs": 20, "schedule": "staircase", "head_std": 0.01, "backbone_rate": 0.005}
SETTINGS = {
    setting.name: setting
    for setting in (
        _FEW_LABELS(name="mira-1", epochs=20, backbone_rate=0.0, head_rate=0.4),
        _FEW_LABELS(name="mira-10", epochs=20, backbone_rate=0.02, head_rate=0.1),
        _FEW_LABELS(name="corinfomax-1", head_rate=30.0, **_CORINFOMAX),
        _FEW_LABELS(name="corinfomax-10", head_rate=20.0, **_CORINFOMAX),
        _FEW_LABELS(name="mveb-1", epochs=60, backbone_rate=0.002, head_rate=0.8),
        _FEW_LABELS(name="mveb-10", epochs=60, backbone_rate=0.003, head_rate=0.4),
    )
}
"""The settings of MIRA, CorInfoMax (appendix F.5.1) and MVEB for 1 % and 10 % of ImageNet's labels, by name.

For 1 %, MIRA freezes the encoder by a learning rate of 0. The papers of MIRA and MVEB leave two things open: the
classifier's first weights, which here are those of PyTorch's linear layers; and whether the cosine falls by epoch or by
step, which here is by epoch (docs/decisions.md, fine-tuning).
"""


def finetune(
    encoder: str | PathLike[str] | Representation,
    data: str | PathLike[str] | Source,
    *,
    setting: str | FineTuning = "mira-10",
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    precision: str = "32",
    work: Path | None = None,
    evaluation: EvaluationOptions | None = None,
) -> FinetuneRow:
    """Fine-tunes an encoder with a classifier on all training images, and returns the accuracy on the test images.

    The accuracy is that after the last epoch. To fine-tune on few labels, let ``data`` have few. An epoch takes whole
    batches alone, and leaves out some other images each time.

    Args:
        encoder: Name of the encoder; images to classify are interpolated as the setting says. Or the encoder itself,
            which says how its images are prepared.
        data: Name of the labelled images, or the images themselves.
        setting: One of :data:`SETTINGS`, or a setting of one's own.
        epochs: None takes the setting's.
        batch_size: None takes the setting's, or all images if they are fewer.
        seed: Of the classifier's first weights, the order of the images and their crops.
        precision: ``32``, or ``bf16`` by autocast.
        work: A folder from which the same call goes on after its process was killed, to the same bits on a CPU, and
            which keeps the row; None takes one in the cache folder, unless ``no_cache`` forbids it.
        evaluation: Device, workers and cache.

    Raises:
        ValueError: if there is no such setting, the images do not suit it, or ``work`` belongs to something else.
        FloatingPointError: if the training diverges.
    """
    evaluation = evaluation or EvaluationOptions()
    if not isinstance(setting, FineTuning):
        setting = SETTINGS[choose("--setting", setting, SETTINGS)]
    changes: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    setting = replace(setting, **{name: value for name, value in changes.items() if value is not None})
    source, train, test = labelled(data)
    if isinstance(encoder, Representation):
        representation = encoder
    else:
        bicubic = setting.bicubic
        representation = represent(encoder, evaluation, change=lambda usual: replace(usual, bicubic=bicubic))
    job = FineTuneJob(
        representation,
        setting,
        {"train": train, "test": test},
        metric="top1",
        seed=seed,
        precision=precision,
        folder=work,
        evaluation=evaluation,
    )
    trainings = len(job.unfinished([setting.name]))
    announce(job.encoder, train, setting, job.compute, trainings=trainings)
    return FinetuneRow.from_json(
        {
            "protocol": "finetune",
            "data": source.name,
            "representation": representation.name,
            "setting": setting.name,
            "epochs": setting.epochs,
            "backbone_rate": setting.backbone_rate,
            "head_rate": setting.head_rate,
            "schedule": setting.schedule,
            "weight_decay": setting.weight_decay,
            **job.fine_tune("train", "test", setting),
            "labelled_images": len(train.index),
            "test_images": len(test.index),
            **job.row_fields(),
        }
    )


@dataclass(frozen=True, kw_only=True)
class FineTuneSpecification:
    """A frozen dataclass that holds all that decides the results of a fine-tuning job."""

    encoder: str
    """Hash of the encoder's architecture and weights."""
    preprocessing: Preprocessing
    setting: FineTuning
    images: Mapping[str, str]
    """Hash of the images of each split, their labels and their order, by the split's name."""
    metric: str
    seed: int
    precision: str
    ranks: int
    """Number of ranks: BatchNorm normalises by each rank's own images."""
    infomax: str
    """Version of this library."""


class FineTuneJob:
    """One or more fine-tunings of one encoder, whose rows are kept in one folder.

    Args:
        representation: The encoder.
        setting: How it is fine-tuned. A search changes the learning rates and the weight decay of each fine-tuning.
        splits: Labelled images, by the names that :meth:`fine_tune` takes.
        metric: Name of the metric; one of :data:`infomax.evaluation.scores.METRICS`.
        seed: Of the classifier's first weights, the order of the images and their crops.
        precision: ``32``, or ``bf16`` by autocast.
        folder: The folder to keep the rows in; None takes one in the cache folder, unless ``evaluation`` forbids it.
        evaluation: Device, workers and cache.

    Raises:
        ValueError: if a split has no images, the metric does not suit the labels, or the folder belongs to another job.
    """

    def __init__(
        self,
        representation: Representation,
        setting: FineTuning,
        splits: Mapping[str, LabelledImages],
        *,
        metric: str,
        seed: int,
        precision: str,
        folder: Path | None,
        evaluation: EvaluationOptions,
    ):
        check_count("--seed", seed, low=0)
        choose("--metric", metric, METRICS)
        for name, images in splits.items():
            _check(name, images, metric)
        assert representation.encoder is not None
        self.encoder, self.splits, self.metric, self.seed = representation.encoder, splits, metric, seed
        device, workers = evaluation.network_device, evaluation.workers
        self.compute = Compute(device=device, workers=workers, precision=precision, quiet=evaluation.quiet)
        self.specification = FineTuneSpecification(
            encoder=representation.identity,
            preprocessing=self.encoder.preprocessing,
            setting=setting,
            images={name: hash_labelled_images(images) for name, images in splits.items()},
            metric=metric,
            seed=seed,
            precision=precision,
            ranks=world_size(),
            infomax=version("infomax"),
        )
        if folder is None and not evaluation.no_cache:
            self.work = ResumableWork.in_cache(self.specification)
        else:
            self.work = ResumableWork(self.specification, folder)

    def row_fields(self) -> dict[str, Any]:
        """Returns what a row says of the whole job, by the names of its fields."""
        return {
            "classes": class_count(next(iter(self.splits.values()))),
            "seed": self.seed,
            "precision": self.compute.precision,
            "ranks": self.specification.ranks,
            "encoder": self.specification.encoder,
        }

    def unfinished(self, names: Sequence[str]) -> list[str]:
        """Returns the names of the fine-tunings whose rows are not kept yet."""
        return [name for name in names if self.work.finished_row(name) is None]

    def fine_tune(self, train: str, test: str, setting: FineTuning) -> Row:
        """Fine-tunes on one split, and returns the scores on another; once for each name of a setting.

        Args:
            train: Name of the split to train on.
            test: Name of the split to classify.
            setting: How the encoder is fine-tuned.

        Raises:
            FloatingPointError: if the training diverges.
        """
        if (row := self.work.finished_row(setting.name)) is not None:
            return row
        tuner = FineTuner(
            self.encoder, self.splits[train], setting, seed=self.seed, compute=self.compute, work=self.work
        )
        scores = class_scores(tuner.run(), self.splits[test], self.compute)
        images = hash_images(self.splits[train], self.splits[test])
        cut = {"batch_size_asked_for": setting.batch_size} if tuner.batch_size < setting.batch_size else {}
        row = {
            "steps": tuner.steps,
            "batch_size": tuner.batch_size,
            **cut,
            **judge(scores, torch.from_numpy(self.splits[test].labels), self.metric, images=images),
            "seconds": round(time.perf_counter() - tuner.began, 3),
        }
        self.work.finish(setting.name, row)
        return row


def _check(name: str, images: LabelledImages, metric: str) -> None:
    """Refuses a split without images, or with labels that the metric does not suit."""
    if not len(images.index):
        raise ValueError(f"fine-tuning takes images to {name} by, but there are none")
    if (images.labels.ndim > 1) != (metric == "map11"):
        wanted, shape = "a 1 or 0 for each class" if metric == "map11" else "one class", list(images.labels.shape)
        raise ValueError(f"--metric {metric} takes {wanted} for each image to {name} by, but labels are {shape}")
