"""Computes the features of several views of each image, as measures of the agreement between views want them."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import ViewSet
from infomax.data.images.contract import Images
from infomax.data.loading.evaluation import BATCH_SIZE
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import load_kernels
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.models.encoders import Encoder
from infomax.runtime.devices import float64_device, place_network, to_network


@torch.no_grad()
def extract_view_features(
    encoder: Encoder,
    images: Images,
    views: ViewSet,
    *,
    draws: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    pixel_format: PixelFormat = RGB,
) -> Float[Tensor, "n q d"]:
    """Returns the features of the global crops of several draws of each image, on the CPU.

    The encoder computes in evaluation mode on ``device``. At the end it is back in its mode and on its device.

    Args:
        encoder: Maps images [b, C, size, size] to features [b, d].
        images: All images.
        views: The views; of each draw the global crops are taken.
        draws: Number of draws of each image; q is as many times the number of global crops.
        seed: Seed of the views.
        device: Where the encoder computes.
        workers: Number of processes that decode image files; None takes one for each core, at most 8.
        pixel_format: The channels and the range of the images' numbers.

    Raises:
        ValueError: if an image cannot be read.
    """
    device, count = torch.device(device), len(views.global_crops)
    load_kernels(views, pixel_format, make=float64_device(device).type == "cpu")
    options: dict[str, Any] = {"seed": seed, "steps": range(draws), "workers": workers, "device": device}
    options["pixel_format"] = pixel_format
    batches = training_batches(
        images, views, batch_size=len(images), micro_batch_size=min(BATCH_SIZE, len(images)), **options
    )
    was_training, previous_device = encoder.training, next(encoder.parameters()).device
    place_network(encoder.eval(), device)
    dtype = next(encoder.parameters()).dtype
    keys: list[list[np.ndarray]] = [[] for _ in range(draws)]
    features: list[list[Tensor]] = [[] for _ in range(draws)]
    try:
        for batch in batches:
            if batch.unreadable:
                raise next(iter(batch.unreadable.values()))
            crops = make_views(batch.images, views, seed=seed, epoch=batch.epoch, index=batch.index)[:count]
            of_views = [encoder(to_network(crop, device, dtype)).float().cpu() for crop in crops]
            keys[batch.epoch].append(batch.index)
            features[batch.epoch].append(torch.stack(of_views, 1))
    finally:
        encoder.train(was_training).to(previous_device)
    # Each draw has an order of its own, in which no key is twice.
    orders = [torch.from_numpy(np.argsort(np.concatenate(of_draw), kind="stable")) for of_draw in keys]
    return torch.cat([torch.cat(parts)[order] for parts, order in zip(features, orders, strict=True)], 1)
