"""Writes the features of a data set to a file: what the command ``infomax embed`` does."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.data.loading.unreadable import UnreadableImageError, describe_unreadable, name_all_unreadable
from infomax.data.range_notes import note_range
from infomax.data.sources.location import DataLocation, OpenedImages
from infomax.data.splits import all_images, describe_splits
from infomax.embeddings.feature_file import FeatureOrigin, write_features
from infomax.embeddings.opening import open_images
from infomax.embeddings.options import EmbedOptions
from infomax.embeddings.readable import ReadableImages, leave_out_unreadable
from infomax.evaluation.options import EvaluationOptions
from infomax.features.cache import FeatureSpecification, cached_feature_parts
from infomax.features.extraction import encode_batches
from infomax.models.encoders import Encoder, fingerprint
from infomax.models.pretrained import open_encoder
from infomax.runs.run_folder import describe_unfinished
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.progress import format_rate
from infomax.runtime.text import note, show
from infomax.runtime.threads import threads_within_quota


@threads_within_quota()
def embed_to_file(options: EmbedOptions, evaluation: EvaluationOptions, opened: OpenedImages | None = None) -> str:
    """Computes the features of all images of a data set, and writes them to a file.

    Features go through the cache of features on disk, as those of ``infomax evaluate`` do: after an interruption the
    same command computes only what is missing, several ranks share the work, and memory does not grow with the number
    of images.

    Args:
        options: The encoder, the images and the file.
        evaluation: Device, workers and cache, as this rank has them.
        opened: The images, if they are open already.

    Returns:
        A line on what was written.

    Raises:
        ValueError: if there is no such encoder or data set, an image cannot be read, or the file cannot be written.
    """
    opened = opened or open_images(options)
    location, source = opened.location, opened.source
    splits, names = all_images(source)
    if os.path.abspath(options.out) == location.resolved().data:  # an array of images, which --overwrite would replace
        raise ValueError(f"--out {options.out} holds the images of --data {source.name}; name another file")
    network = open_encoder(options.encoder)
    if rank() == 0:
        source = note_range(source, network.preprocessing.pixel_format)
        for line in describe_splits(source, to_train=True, notes_alone=True):
            show(line, file=sys.stderr)
    if rank() == 0 and (training := describe_unfinished(options.encoder)):
        note(f"{options.encoder} is {training}")
    images = ReadableImages(splits, names)
    pixel_format, share = network.preprocessing.pixel_format, options.skip_unreadable
    job = _EmbedJob(network, location, options, evaluation)
    if world_size() > 1 and share:  # all ranks leave out the same, before they share the work
        return job.write(leave_out_unreadable(images, pixel_format, share))
    try:
        return job.write(images)
    except UnreadableImageError as error:
        if world_size() > 1:
            raise name_all_unreadable(error, splits.values(), pixel_format) from None
        readable = leave_out_unreadable(images, pixel_format, share)
        if not readable.left_out:  # it can be read by now
            raise
    return job.write(readable)


@dataclass(frozen=True)
class _EmbedJob:
    """A frozen dataclass that holds an encoder and what its features are written by."""

    network: Encoder
    location: DataLocation
    options: EmbedOptions
    evaluation: EvaluationOptions

    def write(self, images: ReadableImages) -> str:
        """Computes and writes the features of images; returns a line on what was written, on the first rank."""
        if rank() == 0 and images.left_out:
            count = len(images.names) + len(images.left_out)
            note(f"left out: {describe_unreadable(images.left_out, count)}")
        computation = FeatureComputation(self.network, self.evaluation)
        splits = list(images.splits.values())
        parts = computation.parts(splits)
        if rank() > 0:
            for _ in parts:  # the first rank reads the features of this one from the cache
                pass
            return ""
        out = self.options.out
        described = write_features(out, parts, images.names, _labels(splits), partial(self.origin, images))
        counts = ", ".join(f"{len(split):,} of {name}" for name, split in images.splits.items())
        left_out = f"; {len(images.left_out):,} that cannot be read are left out" if images.left_out else ""
        return (
            f"{out}: {len(images.names):,} images{f' ({counts})' if len(splits) > 1 else ''}, {described.dimension} "
            f"features each in float{described.precision}, {out.stat().st_size / 1e6:,.1f} MB; "
            f"{computation.describe_speed()}{left_out}"
        )

    def origin(self, images: ReadableImages, dimension: int) -> FeatureOrigin:
        """Returns what the features in the file came from."""
        return FeatureOrigin(
            images=len(images.names),
            dimension=dimension,
            precision=self.evaluation.feature_precision,
            encoder=_lasting_name(self.options.encoder),
            encoder_hash=fingerprint(self.network),
            preprocessing=self.network.preprocessing,
            data={name: value for name, value in vars(self.location.resolved()).items() if value is not None},
            version=version("infomax"),
            training=describe_unfinished(self.options.encoder),
            left_out=images.left_out,
        )


def _lasting_name(encoder: str) -> str:
    """Returns the encoder's name with an absolute path, by which it is found from any folder."""
    path, number, prefix = encoder.partition("#")
    return f"{os.path.abspath(path)}{number}{prefix}" if os.path.exists(path) else encoder


class FeatureComputation:
    """Computes features by an encoder, and counts the images whose features were not in the cache.

    Args:
        network: The encoder.
        evaluation: Device, workers and cache.
    """

    def __init__(self, network: Encoder, evaluation: EvaluationOptions):
        self.network, self.evaluation = network, evaluation
        self.images, self.seconds = 0, 0.0

    def parts(self, splits: list[Images]) -> Iterator[np.ndarray]:
        """Yields the features of the images of all splits, some thousand at a time."""
        specification = FeatureSpecification(
            encoder=fingerprint(self.network),
            preprocessing=self.network.preprocessing,
            precision=self.evaluation.feature_precision,
        )
        options = {"keep": not self.evaluation.no_cache, "quiet": self.evaluation.quiet, "task": "images"}
        for images in splits:
            for part in cached_feature_parts(self._encode, specification, images, **options):
                yield part.numpy()

    def _encode(self, images: Images, index: np.ndarray) -> Iterator[Tensor]:
        evaluation, start = self.evaluation, time.perf_counter()
        options = {"device": evaluation.network_device, "workers": evaluation.workers}
        for features in encode_batches(self.network, images, index, self.network.preprocessing, **options):
            self.images += len(features)
            self.seconds += time.perf_counter() - start
            yield features
            start = time.perf_counter()

    def describe_speed(self) -> str:
        """Returns words on how fast the features were computed, those of this rank that were not in the cache."""
        if not self.images:
            return "all of them were in the cache"
        rate = f"{format_rate(self.images / self.seconds)} images/s"
        return rate if world_size() == 1 else f"{rate} on this rank"


def _labels(splits: list[Images]) -> list[str] | None:
    """Returns the name of each image's class, with ``|`` between several; None if no split has labels."""
    if all(images.labels is None for images in splits):
        return None
    labels: list[str] = []
    for images in splits:
        if images.labels is None:
            labels += [""] * len(images)
        elif images.labels.ndim == 1:
            labels += [images.classes[int(label)] if label >= 0 else "" for label in images.labels]
        else:
            labels += ["|".join(images.classes[i] for i in np.flatnonzero(row)) for row in images.labels]
    return labels
