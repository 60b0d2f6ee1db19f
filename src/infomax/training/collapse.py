"""Total collapse: whether an encoder maps different images to the same vector. It then has learned nothing."""

import numpy as np
import torch
from torch.nn.functional import normalize

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.contract import Images
from infomax.data.loading.evaluation import evaluation_batches
from infomax.features.extraction import extract_features
from infomax.models.encoders import Encoder

SAMPLE = 64  # images that are compared
SAME = 1e-4  # standard deviation of each feature, of vectors of length 1; what is below is no more than rounding
SAME_PIXELS = 0.02  # standard deviation of each pixel, in units of the data's own; images below look the same
COLLAPSED = "all images have the same representation: the encoder has collapsed, and scores of it mean nothing"


@torch.no_grad()
def describe_collapse(
    encoder: Encoder, images: Images, preprocessing: Preprocessing, *, device: torch.device
) -> str | None:
    """Returns a sentence if the encoder maps different images to the same vector.

    Up to 64 images at equal distances are compared. Vectors are the same if the standard deviation of every feature
    over the images is below 1e-4, after each vector was scaled to length 1.

    Args:
        encoder: The encoder; it is back in its mode and on its device at the end.
        images: The images that are trained on.
        preprocessing: How an image becomes the encoder's input.
        device: The device that the encoder computes on.

    Returns:
        The sentence, or None if the representations differ, if there are fewer than two images, or if they look the
        same, which the verdict "equal images" says.
    """
    if len(images) < 2:
        return None
    index = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int))
    batches = evaluation_batches(images, index, preprocessing, workers=0, lenient=True)
    if torch.cat(list(batches)).std(0).max() < SAME_PIXELS:
        return None
    features = extract_features(encoder, images, index, preprocessing, device=device, workers=0, lenient=True)
    return COLLAPSED if normalize(features, dim=1).std(0).max() < SAME else None
