"""What is judged: an encoder, and beside it what it must beat."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images import Images
from infomax.data.sources.location import open_source
from infomax.data.splits import LabelledImages, Source, labelled_splits
from infomax.data.streams import Stream
from infomax.features.cache import Encode, cached_features
from infomax.features.extraction import encode_batches, pixel_batches, recalibrate_batch_norm
from infomax.models.encoders import Encoder, fingerprint, untrained_encoder
from infomax.models.pretrained import open_encoder
from infomax.runtime.checks import choose_device

SETTLING = 10_000  # images that set an untrained encoder's BatchNorm statistics
PRECISIONS = {"32": torch.float32, "16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How encoders are judged, whatever the protocol: nothing that decides a result but by rounding."""

    device: str = "auto"
    """``auto`` takes the GPU if there is one."""
    workers: int | None = None
    """Processes that decode image files; None takes one a core, at most 8."""
    feature_precision: str = "32"
    """``32``, or ``16`` at half the memory and disk."""
    no_cache: bool = False
    """Neither keep features on disk nor use those that are there."""
    alone: bool = False
    """Judge the encoder without what it must beat beside it."""
    quiet: bool = True
    """No progress bars."""

    def __post_init__(self) -> None:
        if self.feature_precision not in PRECISIONS:
            raise ValueError(f"--feature-precision must be 32 or 16, but is {self.feature_precision!r}")

    @property
    def torch_device(self) -> torch.device:
        return torch.device(choose_device(self.device))


@dataclass(frozen=True)
class Representation:
    """A way from images to vectors."""

    name: str
    identity: str
    """Hash of the encoder's architecture and weights; empty for raw pixels."""
    features: Callable[[Images], Float[Tensor, "n d"]]
    """Of all of some images, on the CPU."""
    encoder: Encoder | None = field(default=None, repr=False)

    def of(self, part: LabelledImages) -> Float[Tensor, "n d"]:
        """Features of the images of a part, in its order."""
        every = self.features(part.images)
        return every if len(every) == len(part.index) else every[part.index]


def represent(
    encoder: str | PathLike[str], how: EvaluationOptions, change: Callable[[Preprocessing], Preprocessing] | None = None
) -> Representation:
    """An encoder by its name; see :func:`infomax.models.pretrained.open_encoder`.

    Args:
        change: Of what it was meant to be shown, for a protocol that says otherwise.
    """
    network = open_encoder(encoder)
    if change is not None:
        network.preprocessing = change(network.preprocessing)
    name = "trained encoder" if is_run(encoder) else fspath(encoder)
    return _of_encoder(name, network, network.preprocessing, how)


def is_run(encoder: str | PathLike[str]) -> bool:
    """Whether this is a run folder, whose encoder is also known untrained."""
    return (Path(encoder) / "encoder.json").is_file()


def _of_encoder(name: str, network: Encoder, preprocessing: Preprocessing, how: EvaluationOptions) -> Representation:
    identity = fingerprint(network)

    def encode(images: Images, index: np.ndarray) -> Iterator[Tensor]:
        return encode_batches(network, images, index, preprocessing, device=how.torch_device, workers=how.workers)

    return Representation(name, identity, _kept(encode, f"{identity} {preprocessing}", how), network)


def _kept(encode: Encode, identity: str, how: EvaluationOptions) -> Callable[[Images], Tensor]:
    dtype, keep = PRECISIONS[how.feature_precision], not how.no_cache
    return partial(cached_features, encode, identity, dtype=dtype, keep=keep, quiet=how.quiet)


def references(
    encoder: str | PathLike[str], first: Representation, part: LabelledImages, how: EvaluationOptions
) -> list[Representation]:
    """What an encoder must beat: itself untrained, where that is known, and the pixels themselves.

    Args:
        first: The encoder.
        part: Images to set the untrained encoder's BatchNorm statistics by.
    """
    assert first.encoder is not None
    preprocessing = first.encoder.preprocessing

    def raw(images: Images, index: np.ndarray) -> Iterator[Tensor]:
        return pixel_batches(images, index, preprocessing, workers=how.workers)

    others = [Representation("raw pixels", "", _kept(raw, f"pixels {preprocessing}", how))]
    if is_run(encoder):
        network, some = untrained_encoder(encoder), part.subsample(SETTLING)
        # Known by what its statistics come from, not by their last bits, which differ between machines.
        known = f"{fingerprint(network)} {preprocessing} {some.images.state(some.index)}"
        identity = hashlib.sha256(known.encode()).hexdigest()[:12]

        @cache
        def settled() -> Encoder:
            return recalibrate_batch_norm(network, some, preprocessing, device=how.torch_device, workers=how.workers)

        def encode(images: Images, index: np.ndarray) -> Iterator[Tensor]:
            yield from encode_batches(
                settled(), images, index, preprocessing, device=how.torch_device, workers=how.workers
            )

        others.insert(0, Representation("untrained encoder", identity, _kept(encode, identity, how)))
    return others


@dataclass(frozen=True)
class Features:
    """One representation of the images to classify by and of those to classify, on the CPU."""

    name: str
    train: Float[Tensor, "n d"]
    train_labels: Int[Tensor, " n"]
    test: Float[Tensor, "m d"]
    test_labels: Int[Tensor, " m"]
    classes: int
    encoder: str = ""
    """Its identity."""


def labelled(data: str | PathLike[str] | Source) -> tuple[Source, LabelledImages, LabelledImages]:
    """A data set, its images to classify by, and those to classify.

    Raises:
        ValueError: if the images have no labels, one for each.
    """
    source = data if isinstance(data, Source) else open_source(str(data))
    if isinstance(source.train, Stream):
        raise ValueError(f"--data {source.name} is a stream, for training; evaluation needs images that stay in place")
    if source.train.labels is not None and source.train.labels.ndim > 1:
        raise ValueError(
            f"--data {source.name} shows several classes in an image, for infomax evaluate transfer; this protocol "
            "wants one for each"
        )
    splits = labelled_splits(source)
    if splits is None:
        raise ValueError(
            f"--data {source.name} has no labels to evaluate by, one for each image; want a sub-folder for each class, "
            "or an array of labels, and at least 5 images of a class where there is no test split"
        )
    return source, *splits


def compare_features(
    encoder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    how: EvaluationOptions | None = None,
    *,
    splits: Sequence[str] = ("train", "test"),
) -> Iterator[Features]:
    """An encoder's features of labelled images, and those of what it must beat, one representation after another.

    Args:
        splits: Those that are needed; the others have no features.

    Raises:
        ValueError: if the images have no labels, or there is no such encoder.
    """
    how = how or EvaluationOptions()
    _, train, test = labelled(data)
    first = represent(encoder, how)
    yield _features(first, train, test, splits)
    for other in [] if how.alone else references(encoder, first, train, how):
        yield _features(other, train, test, splits)


def _features(what: Representation, train: LabelledImages, test: LabelledImages, splits: Sequence[str]) -> Features:
    whole: dict[int, Tensor] = {}  # of a data set that both parts are of, once

    def of(name: str, part: LabelledImages) -> Tensor:
        if name not in splits:
            return torch.empty(0, 0)
        if id(part.images) not in whole:
            whole[id(part.images)] = what.features(part.images)
        every = whole[id(part.images)]
        return every if len(every) == len(part.index) else every[part.index]

    return Features(
        what.name,
        of("train", train),
        torch.from_numpy(train.labels),
        of("test", test),
        torch.from_numpy(test.labels),
        len(train.images.classes),
        what.identity,
    )
