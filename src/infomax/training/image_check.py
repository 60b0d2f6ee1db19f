"""Looks at the images before a training: whether they differ at all, and how many have a near-duplicate.

In: the images, and the encoder before its first step. Out: two numbers of the first row of health.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.loading.evaluation import evaluation_batches
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize
from infomax.runtime.devices import to_network

MOST_ARRAYS, MOST_FILES = 512, 128
"""The number of images that are looked at: files have to be decoded before the training can begin."""
RUN = 8
"""The length of runs of consecutive images, which half of the images are chosen in: copies often lie side by side."""
THUMBNAIL = 16  # pixels
NEAR = 0.99  # cosine of near-duplicates


def chosen_images(count: int, most: int, *, seed: int) -> Int[np.ndarray, " n"]:
    """Returns the indices of the images that are looked at, in rising order: all, if there are no more than ``most``.

    Otherwise half of them are runs of eight consecutive images, and half are single ones; all from random places.
    """
    if count <= most:
        return np.arange(count)
    random = np.random.default_rng(seed)
    begins = random.choice(count // RUN, most // 2 // RUN, replace=False) * RUN
    runs = (begins[:, None] + np.arange(RUN)).ravel()
    others = random.choice(count, most, replace=False)
    return np.sort(np.concatenate([runs, others[~np.isin(others, runs)][: most - len(runs)]]))


@torch.no_grad()
def measure_images(
    encoder: Encoder, images: Images, preprocessing: Preprocessing, *, seed: int, device: torch.device
) -> dict[str, float]:
    """Returns how much some images differ before a training.

    Args:
        encoder: The encoder before its first step; it is back in its mode at the end.
        images: The images that are trained on.
        preprocessing: How an image becomes the encoder's input.
        seed: Decides which images are looked at.
        device: The device that the encoder computes on.

    Returns:
        ``pixel_std``: the standard deviation of each pixel over the images, whose values go from 0 to 1, averaged over
        the pixels. ``near_duplicate_share``: the share of the images that have a near-duplicate among them, that is,
        another image with a cosine of 0.99 or more both of the 16 x 16 grey thumbnails, each minus its mean, and of the
        encoder's features, minus their mean. Nothing, if there are fewer than two images.
    """
    if len(images) < 2:
        return {}
    index = chosen_images(len(images), MOST_ARRAYS if isinstance(images, ArrayImages) else MOST_FILES, seed=seed)
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    sums, squares, thumbnails = torch.zeros(()), torch.zeros(()), []
    features = []
    for batch, encoded in _encoded(encoder, images, index, preprocessing, device):
        pixels = (batch * std + mean).double()
        sums, squares = sums + pixels.sum(0), squares + pixels.square().sum(0)
        thumbnails.append(F.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), THUMBNAIL).flatten(1))
        features.append(encoded)
    deviations = (squares / len(index) - (sums / len(index)).square()).clamp_min(0).sqrt()
    small, rows = torch.cat(thumbnails), torch.cat(features)
    share = _share_with_twin(small - small.mean(1, keepdim=True), rows - rows.mean(0))
    return {"pixel_std": float(deviations.mean()), "near_duplicate_share": share}


def _encoded(
    encoder: Encoder, images: Images, index: np.ndarray, preprocessing: Preprocessing, device: torch.device
) -> Iterator[tuple[Float[Tensor, "b 3 size size"], Float[Tensor, "b d"]]]:
    """Yields preprocessed images and their features, in float64 on the CPU, batch by batch."""
    was_training, dtype = encoder.training, next(encoder.parameters()).dtype
    encoder.eval()
    try:
        for batch in evaluation_batches(images, index, preprocessing, workers=0, lenient=True):
            yield batch, encoder(to_network(batch, device, dtype)).cpu().double()
    finally:
        encoder.train(was_training)


def _share_with_twin(*rows: Float[Tensor, "n d"]) -> float:
    """Returns the share of images that have another one whose rows are near in each of some matrices."""
    is_near = torch.ones(len(rows[0]), len(rows[0]), dtype=torch.bool)
    for x in rows:
        unit = l2_normalize(x)
        is_near &= unit @ unit.T >= NEAR - 1e-12
    return float(is_near.fill_diagonal_(False).any(1).double().mean())
