"""Builds what a recipe describes: the untrained method, the optimizer, and the learning rate of each step."""

from dataclasses import asdict

import torch

from infomax.methods.base import Method, Progress
from infomax.models.encoders import build_encoder
from infomax.nn.optimizers import Lars, parameter_groups
from infomax.nn.schedules import warmup_cosine_by_epoch, warmup_cosine_by_step
from infomax.recipes.schema import OptimizerSettings, Recipe

AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


def build_method(recipe: Recipe) -> Method:
    """Builds the untrained method of a recipe; the recipe's seed decides the weights."""
    encoder = build_encoder(**asdict(recipe.encoder), seed=recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed + 1)  # not the numbers that the encoder was drawn with
        method = recipe.method.build(encoder)
    method.joint_forward, method.global_crop_count = recipe.joint_forward, len(recipe.views.global_crops)
    return method.double() if recipe.precision == "64" else method


def build_optimizer(method: Method, settings: OptimizerSettings, *, fused: bool = False) -> torch.optim.Optimizer:
    """Builds the optimizer of a recipe, over the trainable parameters of a method.

    Args:
        method: The method to train.
        settings: The optimizer's settings.
        fused: Whether Adam updates all parameters by one kernel, which is for GPUs. SGD and LARS take a few kernels
            there: a fused SGD needs a momentum of each parameter from its first step on, but frozen ones have none.
    """
    groups = parameter_groups(method, settings.weight_decay, decay_all=settings.decay_all)
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.name == "lars":
        return Lars(groups, lr=rate, momentum=momentum)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum)
    optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return optimizer_class(groups, lr=rate, fused=fused)


def learning_rate(settings: OptimizerSettings, progress: Progress, *, epochs: int) -> float:
    """Returns the learning rate of the next step (docs/decisions.md, schedules).

    Args:
        settings: The optimizer's settings.
        progress: The progress before the step.
        epochs: Epochs of the whole run.
    """
    common = {"peak": settings.learning_rate, "start": settings.warmup_start, "end": settings.end}
    if settings.per_epoch:
        warmup = settings.warmup_epochs
        return warmup_cosine_by_epoch(progress.epoch, epochs=epochs, warmup_epochs=warmup, **common)
    warmup = settings.warmup_epochs * progress.total_steps // epochs
    return warmup_cosine_by_step(progress.step, steps=progress.total_steps, warmup_steps=warmup, **common)
