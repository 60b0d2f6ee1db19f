"""Representations of images: that of an encoder, and its baselines, as the untrained encoder and the raw pixels."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.contract import Images
from infomax.data.sources.location import open_source
from infomax.data.splits import LabelledImages, Source, labelled_splits, no_labels_error, why_not_labelled
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.paired import hash_images
from infomax.evaluation.result_row import ResultRow
from infomax.features.cache import Encode, FeatureSpecification, cached_features
from infomax.features.extraction import RECALIBRATION_IMAGES, encode_batches, pixel_batches, recalibrate_batch_norm
from infomax.models.encoders import Encoder, fingerprint, initial_encoder, untrained_encoder
from infomax.models.pretrained import open_encoder
from infomax.runs.run_folder import run_of

Row = TypeVar("Row", bound=ResultRow)


@dataclass(frozen=True)
class Representation:
    """A frozen dataclass that holds a way from images to vectors."""

    name: str
    identity: str
    """Hash of the encoder's architecture and weights; empty for raw pixels."""
    features: Callable[[Images, str], Float[Tensor, "n d"]]
    """Computes the features of all of some images, on the CPU. The text says which images, for the progress bar."""
    encoder: Encoder | None = field(default=None, repr=False)
    make_encoder: Callable[[], Encoder] | None = field(default=None, repr=False)
    """Makes the encoder, if that takes time and features that are kept may not need it."""

    @property
    def network(self) -> Encoder | None:
        """The encoder, which is made if it is not there yet; None for raw pixels."""
        return self.make_encoder() if self.make_encoder is not None else self.encoder

    def of(self, part: LabelledImages, images_words: str) -> Float[Tensor, "n d"]:
        """Returns the features of the images of a part, in its order.

        Args:
            part: The images.
            images_words: Says which images they are, as ``test images``, for the progress bar.
        """
        features = self.features(part.images, images_words)
        return features if len(features) == len(part.index) else features[part.index]


def represent(
    encoder: str | PathLike[str],
    evaluation: EvaluationOptions,
    change: Callable[[Preprocessing], Preprocessing] | None = None,
) -> Representation:
    """Opens an encoder by its name; see :func:`infomax.models.pretrained.open_encoder`.

    Args:
        encoder: Name of the encoder.
        evaluation: Device, workers and cache of its features.
        change: Returns another preprocessing than the encoder's own, for a protocol that prescribes one.
    """
    network = open_encoder(encoder)
    if change is not None:
        network.preprocessing = change(network.preprocessing)
    name = "trained encoder" if is_run(encoder) else fspath(encoder)
    return _of_encoder(name, network, network.preprocessing, evaluation)


def is_run(encoder: str | PathLike[str]) -> bool:
    """Returns whether this is the encoder of a run, which is also known untrained."""
    return (Path(encoder) / "encoder.json").is_file()


def _of_encoder(
    name: str, network: Encoder, preprocessing: Preprocessing, evaluation: EvaluationOptions
) -> Representation:
    identity = fingerprint(network)
    device, workers = evaluation.network_device, evaluation.workers

    def encode(images: Images, index: np.ndarray) -> Iterator[Tensor]:
        return encode_batches(network, images, index, preprocessing, device=device, workers=workers)

    return Representation(name, identity, _cached(name, encode, identity, preprocessing, evaluation), network)


def _cached(
    name: str, encode: Encode, identity: str, preprocessing: Preprocessing, evaluation: EvaluationOptions
) -> Callable[[Images, str], Tensor]:
    """Returns a function that computes features, or reads them from the cache.

    Args:
        name: Name of the representation, for the progress bar.
        encode: Computes what is missing.
        identity: Hash of the encoder's architecture and weights; empty for raw pixels.
        preprocessing: Says how an image becomes the encoder's input.
        evaluation: Precision and cache of the features, and whether bars are shown.
    """
    specification = FeatureSpecification(
        encoder=identity, preprocessing=preprocessing, precision=evaluation.feature_precision
    )
    options = {"keep": not evaluation.no_cache, "quiet": evaluation.quiet}

    def features(images: Images, images_words: str) -> Tensor:
        return cached_features(encode, specification, images, task=f"{images_words}, {name}", **options)

    return features


def baselines(
    encoder: str | PathLike[str], trained: Representation, part: LabelledImages, evaluation: EvaluationOptions
) -> list[Representation]:
    """Returns what an encoder must beat: the encoder that its run started from, untrained ones, and the raw pixels.

    Only the encoder of a run is known untrained, and only a run with initial weights has an initial encoder.

    Args:
        encoder: Name of the encoder.
        trained: The encoder itself.
        part: Images to set the untrained encoder's BatchNorm statistics by.
        evaluation: Device, workers and cache of their features.
    """
    assert trained.encoder is not None
    preprocessing = trained.encoder.preprocessing
    device, workers = evaluation.network_device, evaluation.workers

    def raw(images: Images, index: np.ndarray) -> Iterator[Tensor]:
        return pixel_batches(images, index, preprocessing, workers=workers)

    representations = [Representation("raw pixels", "", _cached("raw pixels", raw, "", preprocessing, evaluation))]
    if is_run(encoder):
        network, sample = untrained_encoder(encoder), part.subsample(RECALIBRATION_IMAGES)
        # The identity names what the statistics come from, not their last bits, which differ between machines.
        # Its preprocessing is written as encoder.json holds it, with lists.
        stored = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(preprocessing).items()}
        settings = ", ".join(f"{key}={value!r}" for key, value in stored.items())
        specification = f"{fingerprint(network)} Preprocessing({settings}) {sample.images.state(sample.index)}"
        identity = hashlib.sha256(specification.encode()).hexdigest()[:12]

        @cache
        def recalibrated() -> Encoder:
            return recalibrate_batch_norm(network, sample, preprocessing, device=device, workers=workers)

        def encode(images: Images, index: np.ndarray) -> Iterator[Tensor]:
            yield from encode_batches(recalibrated(), images, index, preprocessing, device=device, workers=workers)

        name = "untrained encoder"
        features = _cached(name, encode, identity, preprocessing, evaluation)
        representations.insert(0, Representation(name, identity, features, make_encoder=recalibrated))
        run = run_of(encoder)
        if (initial := initial_encoder(encoder if run is None else run.path)) is not None:
            representations.insert(0, _of_encoder("initial encoder", initial, preprocessing, evaluation))
    return representations


@dataclass(frozen=True)
class Features:
    """A frozen dataclass that holds one representation of the images to classify by and of those to classify.

    All of it is on the CPU. A split that was not asked for has no features, but its labels.
    """

    name: str
    train: Float[Tensor, "n d"]
    train_labels: Int[Tensor, " n"]
    test: Float[Tensor, "m d"]
    test_labels: Int[Tensor, " m"]
    classes: int
    encoder: str = ""
    """Hash of the encoder's architecture and weights; empty for raw pixels."""


def labelled(
    data: str | PathLike[str] | Source, *, hold_out: bool = True
) -> tuple[Source, LabelledImages, LabelledImages]:
    """Returns a data set, its images to classify by, and those to classify.

    Args:
        data: Name of the labelled images, or the images themselves.
        hold_out: Whether images are held out to classify; if not, there are none of these.

    Raises:
        ValueError: with the reason, if a classifier of one class an image cannot be trained and tested on them.
    """
    source = data if isinstance(data, Source) else open_source(str(data))
    splits = labelled_splits(source, hold_out=hold_out)
    if splits is None:
        raise no_labels_error(source, why_not_labelled(source, hold_out=hold_out))
    return source, *splits


def compare_features(
    encoder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    evaluation: EvaluationOptions | None = None,
    *,
    splits: Sequence[str] = ("train", "test"),
) -> Iterator[Features]:
    """Yields the features of labelled images: those of an encoder, then those of each of its baselines.

    Args:
        encoder: Name of the encoder.
        data: Name of the labelled images, or the images themselves.
        evaluation: Device, workers and cache, and whether there are baselines.
        splits: Names of the splits that are needed, ``train``, ``test`` or both. Without ``test`` no image is held out.

    Raises:
        ValueError: if the images have no labels, or there is no such encoder.
    """
    evaluation = evaluation or EvaluationOptions()
    _, train, test = labelled(data, hold_out="test" in splits)
    trained = represent(encoder, evaluation)
    yield _features(trained, train, test, splits)
    for baseline in [] if evaluation.no_baselines else baselines(encoder, trained, train, evaluation):
        yield _features(baseline, train, test, splits)


def _features(
    representation: Representation, train: LabelledImages, test: LabelledImages, splits: Sequence[str]
) -> Features:
    computed: dict[int, Tensor] = {}  # features of a data set that both parts belong to are computed once

    def of(name: str, part: LabelledImages) -> Tensor:
        if name not in splits:
            return torch.empty(0, 0)
        if id(part.images) not in computed:
            words = "images" if train.images is test.images and len(splits) > 1 else f"{name} images"
            computed[id(part.images)] = representation.features(part.images, words)
        features = computed[id(part.images)]
        return features if len(features) == len(part.index) else features[part.index]

    return Features(
        representation.name,
        of("train", train),
        torch.from_numpy(train.labels),
        of("test", test),
        torch.from_numpy(test.labels),
        len(train.images.classes),
        representation.identity,
    )


def evaluate_representations(
    row: type[Row],
    score: Callable[[Features], Iterable[dict[str, Any]]],
    encoder: str | PathLike[str],
    source: Source,
    evaluation: EvaluationOptions,
    *,
    splits: Sequence[str] = ("train", "test"),
) -> Iterator[Row]:
    """Yields the rows of a protocol on frozen features, for an encoder and its baselines.

    Args:
        row: Class of the rows.
        score: Yields, of the features of one representation, the fields of each row that the protocol alone knows:
            its conditions, its scores and the name of the metric.
        encoder: Name of the encoder.
        source: The labelled images.
        evaluation: Device, workers and cache, and whether there are baselines.
        splits: Names of the splits that are needed, ``train``, ``test`` or both. Without ``test`` no image is held out.
    """
    _, train, test = labelled(source, hold_out="test" in splits)

    @cache
    def images() -> str:  # computed only if a row says which images were right: it may read many files
        parts = (part for part, name in ((train, "train"), (test, "test")) if name in splits)
        precision = evaluation.feature_precision  # two precisions are two measurements
        return hash_images(*parts) + ("" if precision == "32" else f"-{precision}")

    for features in compare_features(encoder, source, evaluation, splits=splits):
        common: dict[str, Any] = {
            "data": source.name,
            "representation": features.name,
            "classes": features.classes,
            "labelled_images": len(features.train) if "train" in splits else None,
            "test_images": len(features.test),
            "encoder": features.encoder,
        }
        start = time.perf_counter()
        for values in score(features):
            fields: dict[str, Any] = {**common, **values, "seconds": round(time.perf_counter() - start, 3)}
            if fields.get("hits") is not None:
                fields["hits"] = {**fields["hits"], "images": images()}
            yield row(**fields)
            start = time.perf_counter()
        del features  # its memory is free before the next ones are computed
