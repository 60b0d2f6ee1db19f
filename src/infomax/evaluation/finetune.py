"""Fine-tuning on few labels: on 1 % or 10 % of ImageNet's, by the settings of the papers."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from infomax.data.splits import LabelledImages, Source
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import Representation, labelled, represent
from infomax.evaluation.rows import FinetuneRow
from infomax.evaluation.scores import METRICS, judge
from infomax.evaluation.tuning import Compute, FineTuner, FineTuning, class_count, class_scores
from infomax.evaluation.unfinished import Unfinished, hash_labelled_images
from infomax.runtime.checks import check_count, choose
from infomax.runtime.collectives import world_size
from infomax.runtime.files import cache_folder

Row = dict[str, Any]

_CORINFOMAX: dict[str, Any] = {"epochs": 20, "schedule": "staircase", "head_std": 0.01, "backbone_rate": 0.005}
SETTINGS = {
    setting.name: setting
    for setting in (
        FineTuning(name="mira-1", epochs=20, backbone_rate=0.0, head_rate=0.4),
        FineTuning(name="mira-10", epochs=20, backbone_rate=0.02, head_rate=0.1),
        FineTuning(name="corinfomax-1", head_rate=30.0, **_CORINFOMAX),
        FineTuning(name="corinfomax-10", head_rate=20.0, **_CORINFOMAX),
        FineTuning(name="mveb-1", epochs=60, backbone_rate=0.002, head_rate=0.8),
        FineTuning(name="mveb-10", epochs=60, backbone_rate=0.003, head_rate=0.4),
    )
}
"""For 1 % and 10 % of ImageNet's labels: of MIRA, of CorInfoMax (appendix F.5.1) and of MVEB. MIRA freezes the encoder
with a learning rate of 0 for 1 %. The papers of MIRA and MVEB do not say how the classifier starts: here as PyTorch's
linear layers do; nor whether the cosine falls by epoch or by step: here by epoch."""


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
        encoder: Name of the encoder, or the encoder itself.
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
    chosen = setting if isinstance(setting, FineTuning) else SETTINGS[choose("--setting", setting, SETTINGS)]
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    chosen = replace(chosen, **{key: value for key, value in given.items() if value is not None})
    source, train, test = labelled(data)
    representation = encoder if isinstance(encoder, Representation) else represent(encoder, evaluation)
    job = FineTuneJob(representation, chosen, {"train": train, "test": test}, "top1", seed, precision, work, evaluation)
    return FinetuneRow.from_json(
        {
            "protocol": "finetune",
            "data": source.name,
            "representation": representation.name,
            "setting": chosen.name,
            "epochs": chosen.epochs,
            "backbone_rate": chosen.backbone_rate,
            "head_rate": chosen.head_rate,
            "schedule": chosen.schedule,
            "weight_decay": chosen.weight_decay,
            **job.judged("train", "test", chosen),
            "labelled_images": len(train.index),
            "test_images": len(test.index),
            **job.common,
        }
    )


class FineTuneJob:
    """Fine-tunings of one encoder that are kept in one folder.

    Args:
        parts: LabelledImages images, by the names that :meth:`judged` takes.
        work: As in :func:`finetune`.

    Raises:
        ValueError: if a part has no images, the metric does not suit the labels, or ``work`` belongs to another job.
    """

    def __init__(
        self,
        what: Representation,
        setting: FineTuning,
        parts: dict[str, LabelledImages],
        metric: str,
        seed: int,
        precision: str,
        work: Path | None,
        how: EvaluationOptions,
    ):
        check_count("--seed", seed, low=0)
        choose("--metric", metric, METRICS)
        for name, part in parts.items():
            _check(name, part, metric)
        assert what.encoder is not None
        self.encoder, self.parts, self.metric, self.seed = what.encoder, parts, metric, seed
        self.compute = Compute(device=how.torch_device, workers=how.workers, precision=precision, quiet=how.quiet)
        self.common = {
            "classes": class_count(next(iter(parts.values()))),
            "seed": seed,
            "precision": precision,
            "ranks": world_size(),
            "encoder": what.identity,
        }
        told = {
            **self.common,
            "preprocessing": asdict(self.encoder.preprocessing),
            **{name: hash_labelled_images(part) for name, part in parts.items()},
            **asdict(setting),
            "metric": metric,
            "infomax": version("infomax"),
        }
        if work is None and not how.no_cache:
            work = cache_folder() / "unfinished" / hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        self.unfinished = Unfinished(work, told)

    def judged(self, train: str, test: str, setting: FineTuning) -> Row:
        """What a row says of one fine-tuning, by the names of the parts; computed once for each name of a setting.

        Raises:
            FloatingPointError: if the training diverges.
        """
        if (kept := self.unfinished.finished(setting.name)) is not None:
            return kept
        again = {"seed": self.seed, "compute": self.compute, "unfinished": self.unfinished}
        tuning = FineTuner(self.encoder, self.parts[train], setting, **again)
        scores = class_scores(tuning.run(), self.parts[test], self.compute)
        cut = {"batch_size_asked_for": setting.batch_size} if tuning.batch_size < setting.batch_size else {}
        row = {
            "steps": tuning.steps,
            "batch_size": tuning.batch_size,
            **cut,
            **judge(scores, torch.from_numpy(self.parts[test].labels), self.metric),
            "seconds": round(time.perf_counter() - tuning.began, 3),
        }
        self.unfinished.finish(setting.name, row)
        return row


def _check(name: str, part: LabelledImages, metric: str) -> None:
    if not len(part.index):
        raise ValueError(f"fine-tuning takes images to {name} by, but there are none")
    if (part.labels.ndim > 1) != (metric == "map11"):
        wanted, shape = "a 1 or 0 for each class" if metric == "map11" else "one class", list(part.labels.shape)
        raise ValueError(f"--metric {metric} takes {wanted} for each image to {name} by, but labels are {shape}")
