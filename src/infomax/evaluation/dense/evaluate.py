"""Classifies the cells of frozen feature maps, and scores the classes at the pixels of masks by mean IoU."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.evaluation.dense.cells import (
    IMAGES_AT_ONCE,
    MaskedImage,
    best_at_pixels,
    cell_labels,
    cell_quota,
    choose_cells,
    masked_batches,
)
from infomax.evaluation.dense.classifiers import HELD_OUT, CellBank, KnnCells, LinearCells, fit_linear
from infomax.evaluation.dense.confusion import (
    TRUE,
    class_counts,
    confusion_matrix,
    iou,
    mean_iou,
    mean_iou_interval,
    occurring,
    pixel_accuracy,
)
from infomax.evaluation.dense.dense_row import DenseRow
from infomax.evaluation.dense.maps import DenseRepresentation, dense_representations
from infomax.evaluation.dense.masks import DenseSource, Masks
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.paired import pack_pixels
from infomax.evaluation.resumable_work import ResumableWork
from infomax.runtime.collectives import broadcast_from_rank0, gather_objects, rank, world_size
from infomax.runtime.progress import ProgressBar
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.runtime.text import note

SAVE_EVERY = 60.0  # seconds
BANK, FIT, TEST = "bank", "fit", "test"
"""Names of the unfinished parts."""
CELLS = ("features", "labels", "images")
"""Names of what a bank holds of its cells."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DenseSetting:
    """A frozen dataclass that says by what cells are classified, as
    :class:`infomax.evaluation.protocols.dense.DenseOptions`."""

    classifier: tuple[str, ...] = ("linear", "knn")
    size: int | None = None
    positions: int = 50_000
    k: int = 20
    temperature: float = 0.07
    ignore_background: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DenseSpecification:
    """A frozen dataclass that holds all that decides the results of one representation."""

    representation: str
    setting: DenseSetting
    images: tuple[str, ...]
    """States of the images to train on, of those to test on, and of the masks."""
    classes: tuple[str, ...]
    infomax: str
    """Version of this library."""


def evaluate_dense(
    encoder: str | PathLike[str], source: DenseSource, setting: DenseSetting, evaluation: EvaluationOptions
) -> Iterator[DenseRow]:
    """Yields a row for each representation and classifier.

    Args:
        encoder: Name of the encoder.
        source: Images and masks.
        setting: How cells are chosen and classified.
        evaluation: Device, workers and cache, and whether there are baselines.

    Raises:
        ValueError: if the encoder gives no feature map, a file cannot be read, or no pixel has a class.
    """
    ignored_class = _ignored_class(source, setting)
    states = tuple(images.state(np.arange(len(images))) for images in (source.to_train[0], source.to_test[0]))
    for number, representation in enumerate(dense_representations(encoder, source, setting.size, evaluation)):
        if number == 0 and rank() == 0:
            _describe(representation, source, setting)
        specification = DenseSpecification(
            representation=representation.identity,
            setting=setting,
            images=(*states, source.masks_state),
            classes=source.class_names,
            infomax=version("infomax"),
        )
        work = ResumableWork(specification, None) if evaluation.no_cache else ResumableWork.in_cache(specification)
        job = _DenseJob(representation, source, setting, evaluation, work, ignored_class)
        for fields in job.rows():
            yield DenseRow.from_json({**fields, "data": source.name, "representation": representation.name})


def _ignored_class(source: DenseSource, setting: DenseSetting) -> int | None:
    """Returns the position of the class whose pixels are ignored; None if all count."""
    if not setting.ignore_background:
        return None
    if 0 not in source.class_numbers:
        raise ValueError("--ignore-background ignores class 0, but the masks have no pixel with the number 0")
    return source.class_numbers.index(0)


def _describe(representation: DenseRepresentation, source: DenseSource, setting: DenseSetting) -> None:
    """Prints the lines that say what is decided about the images and the cells."""
    size, (rows, columns) = representation.preprocessing.size, representation.cells
    note(
        f"whole images are resized to {size} x {size} pixels, whatever their proportions; the feature map has {rows} x "
        f"{columns} cells. A cell has the class of the pixel at its centre; its scores are enlarged bilinearly to each "
        "mask's own size, and scored there"
    )
    images = len(source.to_train[0])
    if images > setting.positions:
        note(f"--positions {setting.positions} takes a cell of as many of the {images} training images, evenly spread")


class _DenseJob:
    """The evaluation of one representation: a bank of cells, the classifiers of them, and the test."""

    def __init__(
        self,
        representation: DenseRepresentation,
        source: DenseSource,
        setting: DenseSetting,
        evaluation: EvaluationOptions,
        work: ResumableWork,
        ignored_class: int | None,
    ):
        self.representation, self.source, self.setting = representation, source, setting
        self.evaluation, self.work, self.ignored_class = evaluation, work, ignored_class
        self.device, self.classes = evaluation.torch_device, len(source.class_names)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields the fields of the row of each classifier; those that were finished before are not computed again."""
        finished = [self.work.finished_row(name) for name in self.setting.classifier]
        rows = [row for row in finished if row is not None]
        if len(rows) < len(finished):
            computed = self._compute()
            for name, row in computed.items():
                self.work.finish(name, row)
            for part in (BANK, FIT, TEST):
                self.work.finish(part, {})
            rows = list(computed.values())
        yield from rows

    def _compute(self) -> dict[str, dict[str, Any]]:
        """Returns the fields of the row of each classifier."""
        maps = self.representation.make_maps()
        start = time.perf_counter()
        bank = self._bank(maps)
        bank_seconds, classifiers, about = time.perf_counter() - start, {}, {}
        for name in self.setting.classifier:
            start = time.perf_counter()
            if name == "linear":
                classifiers[name], penalty = self._linear(bank)
                about[name] = {"penalty": penalty}
            else:
                setting = self.setting
                classifiers[name] = KnnCells(bank, setting.k, setting.temperature)
                about[name] = {"k": min(setting.k, len(bank.labels)), "temperature": setting.temperature}
            about[name]["seconds"] = bank_seconds + time.perf_counter() - start
        counts, seconds = self._test(maps, classifiers)
        return {
            name: self._fields(name, counts[i], bank)
            | about[name]
            | {"seconds": round(about[name]["seconds"] + seconds[i], 3)}
            for i, name in enumerate(classifiers)
        }

    def _linear(self, bank: CellBank) -> tuple[LinearCells, float]:
        """Returns the linear classifier and its penalty; a fit that was finished before is not computed again."""
        if len(bank.images.unique()) < HELD_OUT and rank() == 0:
            note(f"fewer than {HELD_OUT} training images have a mask to choose the penalty by: it is 0.01")
        state: dict[str, Any] | None = self.work.newest_state(FIT)
        if state is None:
            fitted, penalty = fit_linear(bank, self.classes)
            tensors = {key: tensor.cpu() for key, tensor in vars(fitted).items()}
            state = {"step": 0, "penalty": penalty, **tensors}
            self.work.save(FIT, state)
        shared = broadcast_from_rank0(lambda: state)  # on GPUs the fits of ranks may differ in their last bits
        tensors = {key: shared[key].to(self.device) for key in ("weight", "bias", "classes")}
        return LinearCells(**tensors), shared["penalty"]

    def _in_steps(
        self,
        part: str,
        split: tuple[Images, Masks],
        indices: Int[np.ndarray, " n"],
        state: dict[str, Any],
        *,
        compute: Callable[[Int[np.ndarray, " b"], Iterator[list[MaskedImage]]], T],
        keep: Callable[[list[T]], None],
        to_save: Callable[[], dict[str, Any]],
    ) -> None:
        """Computes something of all images, batch by batch in their order; each rank takes one batch a step.

        A batch holds the same images on any number of ranks, and so has the same features.

        Args:
            part: BANK or TEST.
            split: Images and masks.
            indices: Indices of the images.
            state: What was saved, whose ``step`` is the number of images that are done.
            compute: Is given the indices of a batch, and what yields its images.
            keep: Is given what was computed in a step, by all ranks, in the images' order.
            to_save: Returns what is saved beside ``step``.
        """
        done, of_step = state["step"], IMAGES_AT_ONCE * world_size()
        starts = range(done + IMAGES_AT_ONCE * rank(), len(indices), of_step)
        own = [indices[start : start + IMAGES_AT_ONCE] for start in starts]
        batches = self._batches(*split, np.concatenate([np.zeros(0, int), *own]))
        first_step = done // of_step
        steps, quiet = first_step + -(-(len(indices) - done) // of_step), self.evaluation.quiet or rank() > 0
        task = f"{'train' if part == BANK else 'test'} images, {self.representation.name}"

        def save() -> None:
            self.work.save(part, {"step": done, **to_save()})

        loop = ResumableLoop(
            steps=steps,
            done=first_step,
            save=save,
            device=self.device,
            save_every=SAVE_EVERY,
            bar=ProgressBar(task, steps, done=first_step, unit=f"batches of {of_step}", quiet=quiet),
            name="dense features",
            resume_hint=self.work.resume_hint,
        )
        with loop:
            for step in range(steps - first_step):
                computed = compute(own[step], batches) if step < len(own) else None
                keep([of_rank for of_rank in gather_objects(computed) if of_rank is not None])
                done = min(done + of_step, len(indices))
                loop.step_done()
        if part == BANK and state["step"] < done:
            save()  # the test begins anew if it is interrupted before its first save, and this does not

    def _bank(self, maps: Callable[[Tensor], Tensor]) -> CellBank:
        """Returns the features and classes of cells of the training images."""
        quota = cell_quota(self.setting.positions, len(self.source.to_train[0]))
        state = self.work.newest_state(BANK) or {"step": 0}
        parts = [{key: state[key] for key in CELLS}] if state["step"] else []

        def compute(indices: Int[np.ndarray, " b"], batches: Iterator[list[MaskedImage]]) -> dict[str, Tensor]:
            batch = next(batches)
            features = maps(torch.stack([image.pixels for image in batch])).flatten(2)
            of_images = []
            for index, image, cells in zip(indices.tolist(), batch, features, strict=True):
                labels = cell_labels(image.mask, self.representation.cells)
                chosen = choose_cells(labels, int(quota[index]), (self.setting.seed, index))
                of_images.append(
                    {
                        "features": cells[:, torch.from_numpy(chosen).to(cells.device)].T.cpu(),
                        "labels": torch.from_numpy(labels.ravel()[chosen].astype(np.int64)),
                        "images": torch.full((len(chosen),), index),
                    }
                )
            return _joined(of_images)

        self._in_steps(
            BANK,
            self.source.to_train,
            np.flatnonzero(quota),
            state,
            compute=compute,
            keep=parts.extend,
            to_save=lambda: _joined(parts),
        )
        joined = _joined(parts)
        if not len(joined["labels"]):
            raise ValueError("no cell of the training images has a class: the pixels at their centres are all ignored")
        if not joined["features"].isfinite().all():
            raise ValueError(f"{self.representation.name} gives features that are infinite or NaN")
        return CellBank(**{key: value.to(self.device) for key, value in joined.items()})

    def _batches(self, images: Images, masks: Masks, indices: Int[np.ndarray, " n"]) -> Iterator[list[MaskedImage]]:
        return masked_batches(
            images,
            masks,
            indices,
            self.representation.preprocessing,
            ignored_class=self.ignored_class,
            workers=self.evaluation.workers,
        )

    @torch.no_grad()
    def _test(
        self, maps: Callable[[Tensor], Tensor], classifiers: dict[str, LinearCells | KnnCells]
    ) -> tuple[Int64[np.ndarray, "classifiers n 3 classes"], list[float]]:
        """Returns the counts of each test image by each classifier, and the seconds that each took."""
        images, _ = self.source.to_test
        state = self.work.newest_state(TEST) or {
            "step": 0,
            "counts": torch.zeros(len(classifiers), len(images), 3, self.classes, dtype=torch.int64),
            "seconds": [0.0] * len(classifiers),
        }
        counts, seconds = state["counts"], state["seconds"]

        def compute(
            indices: Int[np.ndarray, " b"], batches: Iterator[list[MaskedImage]]
        ) -> tuple[np.ndarray, Tensor, list[float]]:
            start, batch = time.perf_counter(), next(batches)
            features = maps(torch.stack([image.pixels for image in batch])).permute(0, 2, 3, 1)
            of_maps = time.perf_counter() - start
            of_batch = torch.zeros(len(classifiers), len(batch), 3, self.classes, dtype=torch.int64)
            spent = []
            for i, classifier in enumerate(classifiers.values()):
                start = time.perf_counter()
                scores = classifier.scores(features.flatten(0, 2), self.classes).unflatten(0, features.shape[:3])
                for j, image in enumerate(batch):
                    predicted = best_at_pixels(scores[j].permute(2, 0, 1), *image.mask.shape)
                    of_batch[i, j] = torch.from_numpy(
                        class_counts(confusion_matrix(image.mask, predicted, self.classes))
                    )
                spent.append(of_maps + time.perf_counter() - start)
            return indices, of_batch, spent

        def keep(of_step: list[tuple[np.ndarray, Tensor, list[float]]]) -> None:
            for indices, of_batch, _ in of_step:
                counts[:, torch.from_numpy(indices)] = of_batch
            for i in range(len(seconds)):  # ranks work at the same time
                seconds[i] += max(spent[i] for _, _, spent in of_step)

        self._in_steps(
            TEST,
            self.source.to_test,
            np.arange(len(images)),
            state,
            compute=compute,
            keep=keep,
            to_save=lambda: {"counts": counts, "seconds": seconds},
        )
        return counts.numpy(), seconds

    def _fields(self, name: str, by_image: np.ndarray, bank: CellBank) -> dict[str, Any]:
        """Returns the fields of the row of a classifier."""
        counts = by_image.sum(0)
        if not occurring(counts).any():
            raise ValueError("no pixel of the test images has a class that counts")
        shown = np.flatnonzero(occurring(counts))
        names, ious = self.source.class_names, iou(counts)
        fields = {
            "classifier": name,
            "metric": "mean_iou",
            "encoder": self.representation.encoder,
            "classes": self.classes - (self.ignored_class is not None),
            "labelled_images": len(bank.images.unique()),
            "test_images": len(by_image),
            "tested_on": self.source.test_split,
            "image_size": self.representation.preprocessing.size,
            "cells": list(self.representation.cells),
            "ignore_background": self.setting.ignore_background,
            "hits": pack_pixels(by_image, images=self.source.images_hash),
            "positions": self.setting.positions,
            "used_positions": len(bank.labels),
            "seed": self.setting.seed,
            "mean_iou": mean_iou(counts),
            "pixel_accuracy": pixel_accuracy(counts),
            "iou_by_class": [{"name": names[c], "iou": float(ious[c]), "pixels": int(counts[TRUE, c])} for c in shown],
        }
        interval = mean_iou_interval(by_image)
        return fields if interval is None else fields | {"interval": list(interval)}


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Joins the cells of several images."""
    return {key: torch.cat([part[key] for part in parts]) for key in CELLS}
