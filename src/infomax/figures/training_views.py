"""Batches of augmented views, and outputs of a run's networks for them as in a training step. Torch is imported here.

The networks are in training mode, in which a batch has its own statistics of BatchNorm, and nothing is kept of it: that
is what the losses see.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from infomax.data.augmentation.make_views import make_views
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import load_kernels
from infomax.figures.figure import FigureRequest
from infomax.figures.opening import open_images, open_method, training_images
from infomax.methods.base import Method, Views
from infomax.nn.blocks import l2_normalize
from infomax.runs.run_folder import Run

OpenBatch = Callable[[int], list[Tensor]]
"""A function that returns the global crops [B, 3, side, side] of a batch, by its number from 0."""


def open_views(run: Run, request: FigureRequest, batch_size: int) -> OpenBatch:
    """Returns a function that makes batches of a run's views, of the images that it was trained on.

    Args:
        run: The run.
        request: Its seed decides the images of a batch, and their views.
        batch_size: Images of a batch.

    Raises:
        ValueError: if there are not so many images.
    """
    views, device, seed = run.recipe.views, request.device, request.options.seed
    images = training_images(open_images(run, request))
    if len(images) < batch_size:
        raise ValueError(f"--set batch_size={batch_size}: {run.path} has {len(images)} images to train on")
    load_kernels(views, make=device.type == "cpu")

    def compute(number: int) -> list[Tensor]:
        options = {"seed": seed, "workers": request.options.workers, "device": device}
        steps = range(number, number + 1)
        (batch,) = list(training_batches(images, views, batch_size=batch_size, steps=steps, **options))
        crops = make_views(batch.images, views, seed=seed, epoch=batch.epoch, index=batch.index)
        return crops[: len(views.global_crops)]

    return compute


def open_training_method(run: Run, request: FigureRequest) -> Method:
    """Returns the method of a run as it was trained, in training mode, on the figure's device."""
    return open_method(run).train().to(request.device)


@torch.no_grad()
def embed_views(method: Method, crops: list[Tensor]) -> list[Tensor]:
    """Returns the embeddings of length 1 of some views, by the trained projector, in float64 on the CPU."""
    projector: Any = getattr(method, "projector", torch.nn.Identity())
    return [l2_normalize(projector(method.encoder(crop)).double()).cpu() for crop in crops]


@torch.no_grad()
def teacher_logits(method: Any, crop: Tensor) -> Tensor:
    """Returns the logits [B, K] of one view, as they enter the assignment, of a method whose logits are cosines."""
    (logits,) = method.target(Views([crop], [])) or method.online(Views([crop], []))
    return logits[:, : method.prototypes.weight.shape[0]].cpu()  # SwAV's queue has further columns
