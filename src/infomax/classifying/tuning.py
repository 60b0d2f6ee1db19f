"""Fine-tunes the encoder together with the classifier, from the linear classifier on its features on."""

import math
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infomax.classifying.labelled import Labelled
from infomax.classifying.solve import Solution, assign_folds, solve
from infomax.data.splits import LabelledImages
from infomax.evaluation.finetune import FineTuneSpecification
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.resumable_work import ResumableWork, hash_labelled_images
from infomax.evaluation.tuning import Classifier, Compute, FineTuner, FineTuning
from infomax.models.encoders import Encoder, fingerprint
from infomax.runtime.collectives import world_size
from infomax.runtime.text import note

SETTING = FineTuning(
    name="classify",
    epochs=20,
    batch_size=64,
    backbone_rate=0.01,
    head_rate=0.01,
    schedule="cosine-by-step",
    nesterov=True,
)
"""How the encoder is fine-tuned, but for the number of epochs."""
LEAST_STEPS = 500
"""Steps that there are at least, if the user does not give the number of epochs."""


def split_rows(labelled: Labelled, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the images to train on, and of those that are held out: a fifth of each class.

    Raises:
        ValueError: if no image can be held out.
    """
    is_held_out = assign_folds(labelled.labels, seed) == 0
    if not is_held_out.any():
        raise ValueError(
            "--finetune takes classes of two images and more, a fifth of which is held out; without it, one is enough"
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def default_epochs(images: int) -> int:
    """Returns the number of epochs of a fine-tuning on so many images, if the user does not give it."""
    steps_of_epoch = max(1, images // min(SETTING.batch_size, images))
    return max(SETTING.epochs or 0, math.ceil(LEAST_STEPS / steps_of_epoch))


def fine_tune(
    encoder: Encoder,
    labelled: Labelled,
    features: Float[Tensor, "n d"],
    *,
    epochs: int | None,
    penalty: float | None,
    seed: int,
    evaluation: EvaluationOptions,
) -> tuple[Classifier, Solution, ResumableWork]:
    """Fine-tunes an encoder and a linear layer, which starts as the linear classifier on the encoder's features.

    Args:
        encoder: The encoder, which does not change.
        labelled: The images to train on.
        features: Their features.
        epochs: Passes over them; None takes 20, or more if that is less than 500 steps.
        penalty: Penalty of the linear classifier; None chooses one.
        seed: Seed of the images' order and crops.
        evaluation: Device, workers and cache.

    Returns:
        The encoder with its layer, on the CPU; the linear classifier that it started from; and the checkpoints, which
        can be discarded when the result is kept.

    Raises:
        FloatingPointError: if the training diverges.
    """
    labels = torch.from_numpy(labelled.labels)
    start = solve(
        features,
        labels,
        classes=len(labelled.classes),
        penalty=penalty,
        seed=seed,
        device=evaluation.torch_device,
        quiet=True,
    )
    images = LabelledImages(labelled.images, np.arange(len(labels)), labelled.labels)
    setting = replace(SETTING, epochs=default_epochs(len(labels)) if epochs is None else epochs)
    specification = FineTuneSpecification(
        encoder=fingerprint(encoder),
        preprocessing=encoder.preprocessing,
        setting=setting,
        images={"train": hash_labelled_images(images), "start": f"penalty {start.penalty:g}"},
        metric="top1",
        seed=seed,
        precision="32",
        ranks=world_size(),
        infomax=version("infomax"),
    )
    work = ResumableWork(specification, None) if evaluation.no_cache else ResumableWork.in_cache(specification)
    compute = Compute(device=evaluation.network_device, workers=evaluation.workers, quiet=evaluation.quiet)
    tuner = FineTuner(encoder, images, setting, seed=seed, compute=compute, work=work)
    note(f"fine-tunes for {setting.epochs} epochs, {tuner.steps:,} steps of {tuner.batch_size} images")
    if tuner.done == 0:
        with torch.no_grad():
            tuner.model.head.weight.copy_(start.weight)
            tuner.model.head.bias.copy_(start.bias)
    model = tuner.run().eval().cpu()
    model.to(memory_format=torch.contiguous_format)  # pyrefly: ignore[no-matching-overload]
    return model, start, work
