"""Says what a fine-tuning will do, and about how long it will take, before it starts."""

import time

import torch

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import supervised_crops
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import worker_count
from infomax.data.splits import LabelledImages, counted
from infomax.evaluation.tuning import Compute, FineTuning, class_count
from infomax.models.encoders import Encoder
from infomax.runtime.collectives import rank, world_size
from infomax.runtime.devices import place_network
from infomax.runtime.durations import duration
from infomax.runtime.text import note

PAPERS = {"mira": "MIRA", "corinfomax": "CorInfoMax", "mveb": "MVEB"}
TRAINING_PASSES = 3.0
"""Passes forward that one step of training costs an image: one forward, two backward."""
TIMED_IMAGES = 16


def announce(
    encoder: Encoder, images: LabelledImages, setting: FineTuning, compute: Compute, *, trainings: int = 1
) -> None:
    """Prints what is trained, how often and about how long, on the first rank, unless the evaluation is quiet.

    Args:
        encoder: The encoder, in evaluation mode.
        images: The images to train on.
        setting: How the encoder is fine-tuned.
        compute: What it computes on.
        trainings: Number of trainings that are left, the final one of a search included.
    """
    if compute.quiet or rank() > 0 or not trainings:
        return
    batch = min(setting.batch_size, len(images.index))
    steps = setting.steps or (setting.epochs or 0) * (len(images.index) // batch)
    passes = 1.0 if setting.backbone_rate == 0 else TRAINING_PASSES
    per_image = passes * seconds_per_image(encoder, compute) + seconds_per_view(encoder, images, setting, compute)
    seconds = trainings * steps * batch * per_image / world_size()
    labelled = f"{counted(len(images.index))} with labels of {class_count(images)} classes"
    length = f"about {duration(max(seconds, 1.0), rough=True)} by the speed of the encoder and of its views"
    note(f"fine-tunes on {labelled} by {describe_setting(setting, steps, batch, trainings)}, {length}")


def describe_setting(setting: FineTuning, steps: int, batch: int, trainings: int) -> str:
    """Returns words for a setting: whose it is, its learning rates, its length, and the number of trainings.

    Args:
        setting: How the encoder is fine-tuned.
        steps: Steps of one training.
        batch: Images of a step.
        trainings: Number of trainings.
    """
    if setting.name == "transfer":
        return (
            f"transfer, MVEB's setting for other data sets: pairs of learning rate and weight decay are tried, and the "
            f"best on the validation images trains once more (--budget tries fewer); {steps:,} steps of {batch} images "
            f"each, {trainings} training{'s' * (trainings != 1)}"
        )
    paper, _, share = setting.name.partition("-")
    owner = ""
    if paper in PAPERS:
        owner = f", {PAPERS[paper]}'s for {share} % of ImageNet's labels (--setting names others)"
    rates = f"learning rate {setting.backbone_rate:g} for the encoder and {setting.head_rate:g} for the classifier"
    if setting.backbone_rate == 0:
        rates = f"a frozen encoder, and learning rate {setting.head_rate:g} for the classifier"
    length = f"{steps:,} steps of {batch} images"
    if setting.epochs:
        epochs, steps_each = counted(setting.epochs, "epoch"), counted(steps // setting.epochs, "step")
        length = f"{epochs} (--epochs changes that) of {steps_each} of {batch} images"
    return f"{setting.name}{owner}: {rates}; {length}, {trainings} training{'s' * (trainings != 1)}"


@torch.no_grad()
def seconds_per_image(encoder: Encoder, compute: Compute) -> float:
    """Returns the seconds that one image takes through the encoder, measured by two passes of a few images."""
    side = encoder.preprocessing.size
    images = torch.zeros(TIMED_IMAGES, encoder.settings.channels, side, side, device=compute.device)
    place_network(encoder, compute.device)
    seconds = 0.0
    for _ in range(2):  # the first pass prepares what the second one uses
        start = time.perf_counter()
        encoder(images).sum().item()  # which waits for a GPU
        seconds = time.perf_counter() - start
    return seconds / TIMED_IMAGES


def seconds_per_view(encoder: Encoder, images: LabelledImages, setting: FineTuning, compute: Compute) -> float:
    """Returns the seconds that reading an image and making a view of it takes, measured on two batches of a few images.

    Workers read at the same time, so their number divides the time of reading. The first batch prepares what the second
    one uses.
    """
    selected, views = images.selected_images, supervised_crops(encoder.preprocessing, bicubic=setting.bicubic)
    count = min(TIMED_IMAGES, len(selected))
    batches = training_batches(
        selected,
        views,
        batch_size=count,
        seed=0,
        steps=range(2),
        workers=0,
        device=torch.device(compute.device),
        pixel_format=encoder.preprocessing.pixel_format,
    )
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        batch = next(batches)
        read = time.perf_counter()
        make_views(batch.images, views, seed=0, epoch=0, index=batch.index)[0].sum().item()  # which waits for a GPU
        seconds = time.perf_counter() - read + (read - start) / max(1, worker_count(selected, compute.workers))
    return seconds / count
