"""Linear evaluation as each paper does it: probes trained by SGD on random crops, or on features computed once."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import Preprocessing, supervised_crops
from infomax.data.loading.training import BatchPrefetcher, BatchSchedule, training_batches
from infomax.data.loading.unreadable import unreadable_error
from infomax.data.loading.workers import Batch
from infomax.data.splits import LabelledImages, Source
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.paired import hash_images
from infomax.evaluation.probes import PROBES, LinearProbes, Probe, held_out, train_probes
from infomax.evaluation.representations import Representation, labelled, represent
from infomax.evaluation.resumable_work import ResumableWork, hash_labelled_images
from infomax.evaluation.rows import LinearRow
from infomax.evaluation.scores import hits, judge
from infomax.features.extraction import extract_features
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.devices import place_network, to_network
from infomax.runtime.progress import ProgressBar
from infomax.runtime.resumable_loop import ResumableLoop

SAVE_EVERY = 60.0  # seconds
STATE = "probe"
"""Name of the state that is saved."""
CHUNK = 8192  # images that are classified at once


def probe(
    encoder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    name: str = "mira",
    learning_rates: Sequence[float] | None = None,
    no_augmentation: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    evaluation: EvaluationOptions | None = None,
) -> LinearRow:
    """Evaluates an encoder by a linear classifier as a paper does it; the row is that of the last epoch.

    What was trained is saved every minute: the same call again goes on from there. On several ranks each takes a share
    of every batch.

    Args:
        encoder: Name of the encoder; see :func:`infomax.models.pretrained.open_encoder`.
        data: Name of the labelled images, or the images themselves.
        name: One of :data:`infomax.evaluation.probes.PROBES`.
        learning_rates: All trained in one pass, and one chosen by a tenth of the training images; None takes the
            probe's own.
        no_augmentation: Train on features that are computed once, of the images as they are tested, instead of on
            random crops that go through the encoder each time.
        epochs: None takes the probe's own; a schedule by drops keeps its proportions.
        batch_size: None takes the probe's own, or all images if they are fewer.
        seed: Of the first weights, the order of the images and their crops.
        evaluation: Device, workers and cache.
    """
    evaluation = evaluation or EvaluationOptions()
    settings = _settings(name, epochs, batch_size)
    rates = list(learning_rates) if learning_rates is not None else [settings.learning_rate]
    for rate in rates:
        check_number("--learning-rate", rate, low=0, open_low=True)
    check_count("--seed", seed, low=0)
    source, train, test = labelled(data)
    # As the papers' code resizes the images that it classifies (decisions: probe-resize).
    representation = represent(encoder, evaluation, change=lambda usual: replace(usual, bicubic=settings.bicubic))
    augmentation = settings.augmentation and not no_augmentation
    settings = replace(settings, batch_size=min(settings.batch_size, len(train.index)))
    start = time.perf_counter()
    job = ProbeJob(representation, settings, rates, train, seed=seed, augmentation=augmentation, evaluation=evaluation)
    probes = job.train()
    best, held_out_accuracy = 0, None
    if job.held_out is not None:
        accuracies = job.held_out_accuracies(probes)
        best = int(np.argmax(accuracies))
        held_out_accuracy = accuracies[best]
    features = representation.of(test, "test images")
    scores = torch.cat([probes.scores(x.to(job.device).float())[:, best].cpu() for x in features.split(CHUNK)])
    return LinearRow(
        data=source.name,
        representation=representation.name,
        probe=name,
        learning_rate=rates[best],
        learning_rates=tuple(rates) if held_out_accuracy is not None else None,
        held_out_top1=held_out_accuracy,
        augmentation=augmentation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        steps=job.steps,
        seed=seed,
        **judge(scores, torch.from_numpy(test.labels), images=hash_images(train, test)),
        classes=len(train.images.classes),
        labelled_images=len(train.index),
        test_images=len(test.labels),
        encoder=representation.identity,
        seconds=round(time.perf_counter() - start, 3),
    )


def _settings(name: str, epochs: int | None, batch_size: int | None) -> Probe:
    """Returns the settings of a paper's probe, with the user's changes."""
    settings = PROBES[choose("--probe", name, PROBES)]
    if batch_size is not None:
        check_count("--batch-size", batch_size, low=1)
        settings = replace(settings, batch_size=batch_size)
    if epochs is not None:
        check_count("--epochs", epochs, low=1)
        drops = tuple(round(drop * epochs / settings.epochs) for drop in settings.drops)
        settings = replace(settings, epochs=epochs, drops=drops)
    return settings


@dataclass(frozen=True, kw_only=True)
class ProbeSpecification:
    """A frozen dataclass that holds all that decides the weights of the probes."""

    probe: Probe
    encoder: str
    """Hash of the encoder's architecture and weights."""
    preprocessing: Preprocessing
    learning_rates: tuple[float, ...]
    seed: int
    augmentation: bool
    feature_precision: str
    train: str
    """Hash of the images to train on, their labels and their order."""
    infomax: str
    """Version of this library."""


class ProbeJob:
    """Trains one probe for each learning rate, all in one pass over the training images, and can be resumed.

    If there are several learning rates, each has a second probe that does not see a tenth of the images, by which one
    of the learning rates is chosen.

    Args:
        representation: The encoder.
        probe: The settings of the probes.
        learning_rates: The learning rates.
        train: The labelled images to train on.
        seed: Of the first weights, the order of the images and their crops.
        augmentation: Whether each epoch takes new random crops; otherwise features are computed once.
        evaluation: Device, workers and cache.

    Raises:
        ValueError: if a rank has no image in a batch, or there are too few images to choose a learning rate by.
    """

    def __init__(
        self,
        representation: Representation,
        probe: Probe,
        learning_rates: Sequence[float],
        train: LabelledImages,
        *,
        seed: int,
        augmentation: bool,
        evaluation: EvaluationOptions,
    ):
        assert representation.encoder is not None
        self.representation, self.encoder, self.probe = representation, representation.encoder, probe
        self.rates, self.seed, self.augmentation = list(learning_rates), seed, augmentation
        self.evaluation, self.device = evaluation, evaluation.torch_device
        self.network_device = evaluation.network_device
        self.images, self.labels, self.classes = train.selected_images, train.labels, len(train.images.classes)
        self.held_out = held_out(train.labels) if len(self.rates) > 1 else None
        if self.held_out is not None and not self.held_out.any():
            raise ValueError("--learning-rate: to choose among several takes two images of a class at least")
        self.steps = probe.epochs * (len(self.images) // probe.batch_size)
        if probe.batch_size < world_size():
            raise ValueError(f"--batch-size {probe.batch_size} leaves no image to some of {world_size()} ranks")
        specification = ProbeSpecification(
            probe=probe,
            encoder=representation.identity,
            preprocessing=self.encoder.preprocessing,
            learning_rates=tuple(self.rates),
            seed=seed,
            augmentation=augmentation,
            feature_precision=evaluation.feature_precision,
            train=hash_labelled_images(train),
            infomax=version("infomax"),
        )
        keeps_nothing = evaluation.no_cache
        self.work = ResumableWork(specification, None) if keeps_nothing else ResumableWork.in_cache(specification)

    def train(self) -> LinearProbes:
        """Returns all probes after the last epoch; what an interrupted process has done is not done again.

        Raises:
            ValueError: if an image cannot be read.
        """
        rates = self.rates * (1 if self.held_out is None else 2)
        width = self.encoder.width
        probes = LinearProbes(width, self.classes, rates, self.probe, seed=self.seed, device=self.device)
        done = 0
        if (state := self.work.newest_state(STATE)) is not None:
            done = int(state.pop("step"))
            probes.load(state)
        labels = torch.from_numpy(self.labels).to(self.device)
        held_out = None if self.held_out is None else torch.from_numpy(self.held_out).float().to(self.device)
        batches = self._augmented_batches(done) if self.augmentation else self._cached_batches(done)
        quiet = self.evaluation.quiet or rank() > 0
        loop = ResumableLoop(
            steps=self.steps,
            done=done,
            save=lambda: self.work.save(STATE, {"step": loop.done, **probes.state()}),
            device=self.device,
            save_every=SAVE_EVERY,
            bar=ProgressBar("probe", self.steps, done=done, unit="steps", quiet=quiet),
            resume_hint=self.work.resume_hint,
        )
        with loop:
            for _ in train_probes(probes, self.probe, batches, labels, held_out):
                loop.step_done()
        self.work.discard()
        return probes

    def held_out_accuracies(self, probes: LinearProbes) -> list[float]:
        """Returns the accuracy of each learning rate on the images held out, of the probes that have not seen them."""
        assert self.held_out is not None
        rows = np.flatnonzero(self.held_out)
        if self.augmentation:
            compute = {"device": self.network_device, "workers": self.evaluation.workers}
            features = extract_features(self.encoder, self.images, rows, self.encoder.preprocessing, **compute)
        else:
            features = self.representation.features(self.images, "train images")[rows]
        scores = probes.scores(features.to(self.device).float())[:, len(self.rates) :].cpu()
        labels = torch.from_numpy(self.labels[rows])
        return [float(hits(scores[:, i], labels).float().mean()) for i in range(len(self.rates))]

    def _schedule(self) -> dict[str, Any]:
        return {"batch_size": self.probe.batch_size, "seed": self.seed, "rank": rank(), "world_size": world_size()}

    def _cached_batches(self, done: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Yields the epoch, the features and the rows of each batch that is left, of features computed once."""
        features = self.representation.features(self.images, "train images").to(self.device).float()
        schedule = BatchSchedule(
            len(self.images), start=done, stop=self.steps, micro_batch_size=self.probe.batch_size, **self._schedule()
        )
        for epoch, index in schedule:
            yield epoch, features[torch.from_numpy(index).to(self.device)], index

    @torch.no_grad()
    def _augmented_batches(self, done: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Yields the epoch, the features and the rows of each batch that is left, of new random crops."""
        views = supervised_crops(self.encoder.preprocessing, bicubic=self.probe.bicubic)
        compute: dict[str, Any] = {"workers": self.evaluation.workers, "device": self.network_device}
        compute["pixel_format"] = self.encoder.preprocessing.pixel_format
        batches = training_batches(self.images, views, steps=range(done, self.steps), **self._schedule(), **compute)
        place_network(self.encoder.eval(), self.network_device)

        def make(batch: Batch) -> list[Tensor]:
            crops = make_views(batch.images, views, seed=self.seed, epoch=batch.epoch, index=batch.index)
            return [to_network(crop, self.network_device) for crop in crops]

        prefetcher = BatchPrefetcher(batches, self.network_device, make)
        for batch in prefetcher:
            if batch.unreadable:
                raise unreadable_error(next(iter(batch.unreadable.values())))
            view = (batch.views or make(batch))[0]
            features = self.encoder(view).float().to(self.device)
            prefetcher.prefetch()
            yield batch.epoch, features, batch.index
