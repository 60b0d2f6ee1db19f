"""Detection and instance segmentation: trains Mask R-CNN on an encoder, and returns the AP on the test images."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infomax.data.images.contract import Images
from infomax.data.splits import shown_name
from infomax.evaluation.detection.coco_folder import CocoObjects, CocoSource
from infomax.evaluation.detection.detect_row import DetectRow, hash_pictures
from infomax.evaluation.detection.masks import check_packages
from infomax.evaluation.detection.model import Detector
from infomax.evaluation.detection.pictures import draw_images
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.detection.scoring import Detection, average_precision, scorer, true_objects
from infomax.evaluation.detection.training import NAME, DetectorTraining
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import Representation, represent
from infomax.evaluation.resumable_work import ResumableWork
from infomax.evaluation.tuning import Compute
from infomax.runtime.collectives import broadcast_from_rank0, rank, world_size
from infomax.runtime.text import note

AGREEMENT = 1e-9
"""Difference between the two scorers up to which they agree."""


@dataclass(frozen=True, kw_only=True)
class DetectionSpecification:
    """A frozen dataclass that holds all that decides the result of a detection."""

    encoder: str
    """Hash of the encoder's architecture and weights."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    setting: DetectorSetting
    images: dict[str, str]
    """Hash of the images of each split and of their objects, by the split's name."""
    ranks: int
    infomax: str
    """Version of this library."""
    torchvision: str
    """Version of the library that the detector is made of."""


def detect(
    encoder: str | PathLike[str] | Representation,
    source: CocoSource,
    setting: DetectorSetting,
    *,
    work: Path | None = None,
    evaluation: EvaluationOptions | None = None,
) -> DetectRow:
    """Trains Mask R-CNN on an encoder, all of which is trained but what is frozen, and returns the AP after the end.

    Args:
        encoder: Name of the encoder, or the encoder itself.
        source: Images and objects.
        setting: How the detector is built and trained.
        work: A folder from which the same call goes on after its process was killed, to the same bits on a CPU, and
            which keeps the row; None takes one in the cache folder, unless ``no_cache`` forbids it.
        evaluation: Device, workers and cache.

    Raises:
        ValueError: if a package is missing, the encoder is no ResNet, an image cannot be read or is of another size
            than its JSON says, or ``work`` belongs to something else.
        FloatingPointError: if the training diverges.
    """
    check_packages()
    evaluation = evaluation or EvaluationOptions()
    if evaluation.network_device.type == "mps":
        raise ValueError("detect with --device mps: its operations were never tried on Apple's GPU; use --device cpu")
    representation = encoder if isinstance(encoder, Representation) else represent(encoder, evaluation)
    assert representation.encoder is not None
    preprocessing = representation.encoder.preprocessing
    specification = DetectionSpecification(
        encoder=representation.identity,
        mean=preprocessing.mean,
        std=preprocessing.std,
        setting=setting,
        images={
            "train": _hash_split(*source.to_train),
            "test": _hash_split(*source.to_test),
        },
        ranks=world_size(),
        infomax=version("infomax"),
        torchvision=version("torchvision"),
    )
    if work is None and not evaluation.no_cache:
        kept = ResumableWork.in_cache(specification)
    else:
        kept = ResumableWork(specification, work)
    compute = Compute(
        device=evaluation.torch_device,
        workers=evaluation.workers,
        precision=setting.precision,
        quiet=evaluation.quiet,
    )
    if (fields := kept.finished_row(NAME)) is None:
        fields = _train(representation, source, setting, compute, kept)
        kept.finish(NAME, fields)
    return DetectRow.from_json(fields | {"data": source.name, "representation": representation.name})


def _train(
    representation: Representation,
    source: CocoSource,
    setting: DetectorSetting,
    compute: Compute,
    work: ResumableWork,
) -> dict[str, Any]:
    """Trains the detector, and returns the fields of the row."""
    assert representation.encoder is not None
    detector = Detector(
        representation.encoder,
        len(source.categories),
        setting,
        title=representation.name,
        device=torch.device(compute.device),
    )
    if rank() == 0 and not compute.quiet:
        note(setting.describe())
    test_images, test_objects = source.to_test
    truth = true_objects(test_objects)
    training = DetectorTraining(detector, source, setting, compute=compute, work=work, truth=truth)
    found = training.run()
    scores = broadcast_from_rank0(lambda: _scores(truth, found, training.points[-1]))
    pictures = list(draw_images(test_images, test_objects, found))
    return {
        **scores,
        **_setting_fields(setting),
        "metric": "box_ap",
        "encoder": representation.identity,
        "classes": len(source.categories),
        "labelled_images": len(source.train),
        "test_images": len(test_images),
        "tested_on": shown_name(source.test_split),
        "ranks": world_size(),
        "scorer": scorer(),
        "points": training.points,
        "pictures": pictures,
        "pictures_hash": hash_pictures(pictures),
        "seconds": round(training.seconds, 3),
    }


def _scores(truth: dict[str, Any], found: list[Detection], last_point: dict[str, Any]) -> dict[str, float]:
    """Returns the scores by pycocotools; a line says so if the faster scorer of the test on the way disagrees."""
    scores = average_precision(truth, found)
    for name, value in scores.items():
        if abs(value - last_point[name]) > AGREEMENT:
            note(
                f"{name} is {value:.9f} by pycocotools and {last_point[name]:.9f} by faster-coco-eval; the first counts"
            )
    return scores


def _setting_fields(setting: DetectorSetting) -> dict[str, Any]:
    """Returns what the row says of the setting; what is None is left out."""
    names = ("arch", "schedule", "budget", "iterations", "batch_size", "micro_batch_size", "norm", "freeze", "head")
    names += ("boxes_per_image", "train_sides", "test_side", "precise_batches", "precision", "seed")
    fields = {name: getattr(setting, name) for name in names} | {"learning_rate": setting.peak_rate}
    fields["train_sides"] = list(setting.train_sides)
    return {name: value for name, value in fields.items() if value is not None}


def _hash_split(images: Images, objects: CocoObjects) -> str:
    """Returns 16 hexadecimal digits that change with the images of a split, their objects or their order."""
    state = images.state(np.arange(len(images)))
    return hashlib.sha256(f"{state} {objects.fingerprint()}".encode()).hexdigest()[:16]
