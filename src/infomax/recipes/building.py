"""What a recipe stands for: its untrained method, its optimiser, and the learning rate at each step."""

from dataclasses import asdict

import torch

from infomax.methods.base import Method, Progress
from infomax.models.encoders import build_encoder
from infomax.nn.optimizers import Lars, parameter_groups
from infomax.nn.schedules import warmup_cosine_by_epoch, warmup_cosine_by_step
from infomax.recipes.schema import OptimizerSettings, Recipe

AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


def build_method(recipe: Recipe) -> Method:
    """The untrained method of a recipe; its seed decides the weights."""
    encoder = build_encoder(**asdict(recipe.encoder), seed=recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed + 1)  # not the encoder's numbers again
        method = recipe.method.build(encoder)
    method.joint_forward, method.global_crop_count = recipe.joint_forward, len(recipe.views.global_crops)
    return method.double() if recipe.precision == "64" else method


def build_optimizer(method: Method, settings: OptimizerSettings, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a recipe, over the trainable parameters of a method.

    Args:
        fused: Whether Adam updates all parameters by one kernel, which is for GPUs; SGD and LARS have a few there. That
            of SGD would need an average of each parameter from its first step on, but frozen ones have none.
    """
    groups = parameter_groups(method, settings.weight_decay, decay_all=settings.decay_all)
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.name == "lars":
        return Lars(groups, lr=rate, momentum=momentum)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return kind(groups, lr=rate, fused=fused)


def learning_rate(settings: OptimizerSettings, progress: Progress, *, epochs: int) -> float:
    """Of the step that ``progress`` stands before."""
    common = {"peak": settings.learning_rate, "start": settings.warmup_start, "end": settings.end}
    if settings.per_epoch:
        warmup = settings.warmup_epochs
        return warmup_cosine_by_epoch(progress.epoch, epochs=epochs, warmup_epochs=warmup, **common)
    warmup = settings.warmup_epochs * progress.total_steps // epochs
    return warmup_cosine_by_step(progress.step, steps=progress.total_steps, warmup_steps=warmup, **common)
