"""Features of all images of a data set, with their names, for use outside of infomax."""

import sys
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.sources.location import DataLocation
from infomax.data.splits import Source, describe_splits
from infomax.data.streams import Stream
from infomax.features.extraction import extract_features
from infomax.models.pretrained import open_encoder
from infomax.runs.run_folder import Run
from infomax.runtime.checks import choose_device
from infomax.runtime.text import note, show
from infomax.runtime.threads import threads_within_quota


@threads_within_quota()
def embed(
    encoder: str | PathLike[str],
    data: str | PathLike[str] | Source,
    *,
    device: str = "auto",
    workers: int | None = None,
    value_range: str | None = None,
    max_megapixels: float | None = None,
) -> tuple[Float[Tensor, "n d"], list[str]]:
    """Computes the features of all images of ``data``, and returns them with the name of each image.

    A name is the file's path relative to ``data``, or the image's number in its array, after the name of the split if
    there are two. The images to test on follow the training images: those of the test split, or of a validation split
    where that one alone has usable labels. Lines on stderr say what was decided about the data, as images left out.

    Args:
        encoder: A run folder, or anything else that :func:`infomax.models.pretrained.open_encoder` takes.
        data: What ``--data`` takes, or an opened source.
        device: ``cpu``, ``cuda``, or ``auto``, which takes the GPU if there is one.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        value_range: ``LOW,HIGH``, the numbers that become black and white in image files of one channel with more than
            8 bits. None takes what the run was trained with, and of another encoder the format's.
        max_megapixels: Largest number of pixels of an image file, in millions; None is 120.

    Raises:
        ValueError: if ``data`` is a stream, whose images have no numbers.
    """
    network, device = open_encoder(encoder), choose_device(device)
    if isinstance(data, Source):
        source = data
    else:
        value_range = value_range or trained_value_range(encoder)
        source = DataLocation(fspath(data), value_range=value_range, max_megapixels=max_megapixels).open()
        for line in describe_splits(source, to_train=True, notes_alone=True):
            show(line, file=sys.stderr)
    if isinstance(source.train, Stream):
        raise ValueError(f"--data {source.name} is a stream, for training; its images cannot be counted off")
    splits = {source.train_split or "train": source.train}
    if source.test is not None:
        splits[source.test_split or "test"] = source.test
    features = [
        extract_features(network, images, np.arange(len(images)), network.preprocessing, device=device, workers=workers)
        for images in splits.values()
    ]
    numbered = len(splits) > 1 and source.train.name(0).isdecimal()  # both count from 0: names need the split
    names = [
        f"{split}/{images.name(i)}" if numbered else images.name(i)
        for split, images in splits.items()
        for i in range(len(images))
    ]
    return torch.cat(features), names


def trained_value_range(encoder: str | PathLike[str]) -> str | None:
    """Returns the range of values that a run's images were read with, and prints a line that it is taken.

    Args:
        encoder: A run folder, or any other encoder.

    Returns:
        ``LOW,HIGH``; None if it is no run, or one that took the range of its images' format.
    """
    if not (Path(encoder) / "config.json").is_file():
        return None
    value_range = Run(Path(encoder)).location.value_range
    if value_range is not None:
        note(f"--value-range {value_range} is taken, with which {fspath(encoder)} was trained")
    return value_range
