"""The papers' linear evaluation: a probe of their own on an encoder, with random crops or on features computed once."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import supervised_crops
from infomax.data.images import Images
from infomax.data.loading.training import BatchPrefetcher, BatchSchedule, training_batches
from infomax.data.splits import LabelledImages, Source
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.probes import PROBES, LinearProbes, Probe, held_out, train_heads
from infomax.evaluation.representations import Representation, labelled, represent
from infomax.evaluation.rows import LinearRow
from infomax.evaluation.scores import hits, judge
from infomax.evaluation.unfinished import Unfinished, hash_labelled_images
from infomax.features.extraction import extract_features
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.collectives import all_ranks_max, rank, world_size
from infomax.runtime.files import cache_folder
from infomax.runtime.progress import progress_bar
from infomax.runtime.signals import Interruption

SAVE_EVERY = 60.0  # seconds


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
    representation = represent(encoder, evaluation)
    images = train.selected_images
    settings = replace(settings, batch_size=min(settings.batch_size, len(images)))
    start = time.perf_counter()
    run = _Probing(representation, settings, rates, images, train, seed, no_augmentation, evaluation)
    heads = run.train()
    best, held_accuracy = 0, None
    if run.held is not None:
        accuracies = run.accuracies(heads)
        best = int(np.argmax(accuracies))
        held_accuracy = accuracies[best]
    features = representation.of(test)
    scores = torch.cat([heads.scores(x.to(run.device).float())[:, best].cpu() for x in features.split(8192)])
    return LinearRow(
        data=source.name,
        representation=representation.name,
        probe=name,
        learning_rate=rates[best],
        learning_rates=tuple(rates) if held_accuracy is not None else None,
        held_out_top1=held_accuracy,
        augmentation=not no_augmentation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        steps=run.steps,
        seed=seed,
        **judge(scores, torch.from_numpy(test.labels)),
        classes=len(train.images.classes),
        labelled_images=len(images),
        test_images=len(test.labels),
        encoder=representation.identity,
        seconds=round(time.perf_counter() - start, 3),
    )


def _settings(name: str, epochs: int | None, batch_size: int | None) -> Probe:
    settings = PROBES[choose("--probe", name, PROBES)]
    if batch_size is not None:
        check_count("--batch-size", batch_size, low=1)
        settings = replace(settings, batch_size=batch_size)
    if epochs is not None:
        check_count("--epochs", epochs, low=1)
        drops = tuple(round(drop * epochs / settings.epochs) for drop in settings.drops)
        settings = replace(settings, epochs=epochs, drops=drops)
    return settings


class _Probing:
    """One pass over the training images for all learning rates."""

    def __init__(
        self,
        what: Representation,
        settings: Probe,
        rates: list[float],
        images: Images,
        train: LabelledImages,
        seed: int,
        no_augmentation: bool,
        how: EvaluationOptions,
    ):
        assert what.encoder is not None
        self.what, self.encoder, self.settings, self.rates = what, what.encoder, settings, rates
        self.images, self.seed, self.how, self.cached = images, seed, how, no_augmentation
        self.classes = len(train.images.classes)
        self.labels, self.device = train.labels, how.torch_device
        self.held = held_out(train.labels) if len(rates) > 1 else None
        if self.held is not None and not self.held.any():
            raise ValueError("--learning-rate: to choose among several takes two images of a class at least")
        self.steps = settings.epochs * (len(images) // settings.batch_size)
        if settings.batch_size < world_size():
            raise ValueError(f"--batch-size {settings.batch_size} leaves no image to some of {world_size()} ranks")
        told = {
            **asdict(settings),
            "encoder": what.identity,
            "preprocessing": asdict(what.encoder.preprocessing),
            "rates": rates,
            "seed": seed,
            "augmentation": not no_augmentation,
            "feature_precision": how.feature_precision,
            "train": hash_labelled_images(train),
            "infomax": version("infomax"),
        }
        place = cache_folder() / "unfinished" / hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        self.unfinished = Unfinished(None if how.no_cache else place, told)

    def train(self) -> LinearProbes:
        """All heads after the last epoch, from where an interrupted process left them."""
        rates = self.rates * (1 if self.held is None else 2)
        width = self.encoder.width
        heads = LinearProbes(width, self.classes, rates, self.settings, seed=self.seed, device=self.device)
        done, saved_at = 0, time.perf_counter()
        if (state := self.unfinished.newest("probe")) is not None:
            done = int(state.pop("step"))
            heads.load(state)
        labels = torch.from_numpy(self.labels).to(self.device)
        held = None if self.held is None else torch.from_numpy(self.held).float().to(self.device)
        trained = train_heads(
            heads, self.settings, self._cached(done) if self.cached else self._augmented(done), labels, held
        )
        quiet = self.how.quiet or rank() > 0
        with (
            progress_bar("probe", self.steps, done=done, unit="steps", quiet=quiet) as bar,
            Interruption() as interruption,
        ):
            for step, _ in enumerate(trained, start=done + 1):
                bar.update()
                signal = all_ranks_max(interruption.signal, self.device)  # ranks end at the same step
                if signal or (time.perf_counter() - saved_at > SAVE_EVERY and step < self.steps):
                    self.unfinished.save("probe", {"step": step, **heads.state()})
                    saved_at = time.perf_counter()
                if signal:
                    if self.unfinished.path is not None and rank() == 0:
                        where = f"infomax: stopped at step {step} of {self.steps}"
                        bar.write(f"{where}; the same command goes on from there", file=sys.stderr)
                    interruption.end(signal)
        if self.unfinished.path is not None and rank() == 0:
            shutil.rmtree(self.unfinished.path, ignore_errors=True)
        return heads

    def accuracies(self, heads: LinearProbes) -> list[float]:
        """On the images held out, of the heads that have not seen them."""
        assert self.held is not None
        rows = np.flatnonzero(self.held)
        if self.cached:
            features = self.what.features(self.images)[rows]
        else:
            where = {"device": self.device, "workers": self.how.workers}
            features = extract_features(self.encoder, self.images, rows, self.encoder.preprocessing, **where)
        scores = heads.scores(features.to(self.device).float())[:, len(self.rates) :].cpu()
        labels = torch.from_numpy(self.labels[rows])
        return [float(hits(scores[:, i], labels).float().mean()) for i in range(len(self.rates))]

    def _plan(self) -> dict[str, Any]:
        return {"batch_size": self.settings.batch_size, "seed": self.seed, "rank": rank(), "world_size": world_size()}

    def _cached(self, done: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        features = self.what.features(self.images).to(self.device).float()
        plan = BatchSchedule(
            len(self.images), start=done, stop=self.steps, micro_batch_size=self.settings.batch_size, **self._plan()
        )
        for epoch, index in plan:
            yield epoch, features[torch.from_numpy(index).to(self.device)], index

    @torch.no_grad()
    def _augmented(self, done: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        views = supervised_crops(self.encoder.preprocessing, bicubic=self.settings.bicubic)
        where = {"workers": self.how.workers, "device": self.device}
        batches = training_batches(self.images, views, steps=range(done, self.steps), **self._plan(), **where)
        self.encoder.eval().to(self.device)

        def make(batch: Any) -> list[Tensor]:
            return make_views(batch.images, views, seed=self.seed, epoch=batch.epoch, index=batch.index)

        ready = BatchPrefetcher(batches, self.device, make)
        for batch in ready:
            if batch.unreadable:
                raise ValueError(next(iter(batch.unreadable.values())))
            view = (batch.views or make(batch))[0]
            features = self.encoder(view).float()
            ready.prefetch()
            yield batch.epoch, features, batch.index
