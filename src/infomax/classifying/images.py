"""Computes the features of all images that can be read."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.loading.unreadable import find_unreadable
from infomax.data.range_notes import range_notes
from infomax.data.splits import counted
from infomax.embeddings.write import FeatureComputation
from infomax.runtime.text import note


@dataclass(frozen=True)
class ReadFeatures:
    """A frozen dataclass that holds the features of those images that can be read."""

    features: Float[Tensor, "m d"]
    rows: Int[np.ndarray, " m"]
    """Numbers of these images among all."""


def features_of_readable(computation: FeatureComputation, images: Images) -> ReadFeatures:
    """Computes the features of all images that can be read; lines say which others are left out, and their range.

    Only if an image fails are all of them decoded once more, to find the others that do.

    Raises:
        ValueError: if no image can be read, or the features of one are infinite or NaN.
    """
    pixel_format = computation.network.preprocessing.pixel_format
    for line in range_notes(images, pixel_format):
        note(line)
    try:
        return ReadFeatures(_features(computation, images), np.arange(len(images)))
    except ValueError as error:
        problems = find_unreadable(images, pixel_format)
        if not problems:
            raise
        if len(problems) == len(images):
            raise ValueError(f"no image can be classified, as {problems[0]}") from error
        note(f"left out: {counted(len(problems))} that cannot be read, as {next(iter(problems.values()))}")
    rows = np.array([i for i in range(len(images)) if i not in problems])
    readable = select_images(images, rows, None, [])
    return ReadFeatures(_features(computation, readable), rows)


def _features(computation: FeatureComputation, images: Images) -> Float[Tensor, "n d"]:
    return torch.cat([torch.from_numpy(part) for part in computation.parts([images])]).float()
