"""Builds what a recipe describes: the untrained method, the optimizer, and the learning rate of each step."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from infomax.methods.base import Method, Progress
from infomax.models.backbone_names import library_of
from infomax.models.encoders import Encoder, build_encoder
from infomax.models.stages import backbone_stages, freeze_stages, rate_factors
from infomax.models.state_dicts import load_all_weights
from infomax.nn.optimizers import Larc, Lars, parameter_groups, with_constant_rate, without_compiler
from infomax.nn.schedules import warmup_cosine_by_epoch, warmup_cosine_by_step
from infomax.recipes.schema import OptimizerSettings, Recipe

FLOAT_BYTES, GIGABYTE, MILLION = 4, 1e9, 1e6
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


def build_method(recipe: Recipe, initial: Mapping[str, Tensor] | None = None, *, images: int | None = None) -> Method:
    """Builds the method of a recipe before its training; the recipe's seed decides the weights.

    Args:
        recipe: The recipe.
        initial: Weights of the encoder by name, from which the training starts; a teacher starts as their copy. None
            leaves them random, as for a method whose weights are loaded afterwards.
        images: Number of training images, for a method that remembers them; None makes no room for any.

    Raises:
        ValueError: if the initial weights do not fit the encoder, the message names them; or if the method's settings
            do not fit so few images.
    """
    encoder = build_encoder(**recipe.encoder.architecture(), seed=recipe.seed)
    if initial is not None:
        load_all_weights(encoder.backbone, initial, recipe.encoder.backbone)
    freeze_stages(encoder, recipe.encoder.freeze, title=recipe.encoder.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed + 1)  # not the numbers that the encoder was drawn with
        method = recipe.method.build(encoder)
    method.joint_forward, method.global_crop_count = recipe.joint_forward, len(recipe.views.global_crops)
    method.seed = recipe.seed
    if images is not None and method.remembers_images:
        method.prepare(images)
    return method.double() if recipe.precision == "64" else method


def build_without_memory(recipe: Recipe, images: int | None = None) -> Method:
    """Builds the method of a recipe without its numbers, to try its settings and to know its sizes.

    Args:
        recipe: The recipe.
        images: Number of training images, as for :func:`build_method`.

    Raises:
        ValueError: if the method does not accept its settings, or has more numbers than any machine counts.
    """
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # the run itself will warn
        try:
            return build_method(recipe, images=images)
        except (RuntimeError, OverflowError, TypeError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{recipe.method.name} cannot be built with these settings: {reason}") from error


def check_view_sizes(recipe: Recipe, method: Method) -> None:
    """Checks that method and backbone take views of the recipe's sizes, by passes without numbers.

    Of backbones, those of other libraries alone are tried.

    Args:
        recipe: The recipe.
        method: Its method, of :func:`build_without_memory`.

    Raises:
        ValueError: naming the size, if one of them does not, or gives no vector for an image.
    """
    crops = (*recipe.views.global_crops, *recipe.views.local_crops)
    sizes = dict.fromkeys(view.size for view in crops)
    if library_of(recipe.encoder.backbone) is not None:
        _check_backbone_takes(recipe, method, [*((size, True) for size in sizes), (recipe.preprocessing.size, False)])
    for size in sizes:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            method.check_view(_without_numbers(recipe, size))


def _without_numbers(recipe: Recipe, size: int) -> Tensor:
    """Returns two images of a size as the recipe's encoder takes them, on the device ``meta``."""
    dtype = torch.float64 if recipe.precision == "64" else torch.float32
    return torch.empty(2, recipe.encoder.channels, size, size, dtype=dtype, device="meta")


def _check_backbone_takes(recipe: Recipe, method: Method, passes: Iterable[tuple[int, bool]]) -> None:
    """Checks that a backbone takes images of some sizes; each comes with whether it is in training."""
    for size, training in passes:
        images = _without_numbers(recipe, size)
        try:
            with torch.no_grad(), torch.device("meta"), warnings.catch_warnings(action="ignore"):
                features = method.encoder.train(training)(images)
        except Exception as error:  # a model of another library may raise anything
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{recipe.encoder.backbone} takes no images of {size} pixels ({reason}); --image-size changes the "
                "size of the global crops, and --views the others"
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise ValueError(f"{recipe.encoder.backbone} gives no vector for an image in training, and cannot be used")


def check_memory(recipe: Recipe, method: Method, *, images: int, memory: int) -> None:
    """Checks that the least that a step needs fits into memory: weights, their gradients, buffers and the views.

    Activations, which are not counted, take more than all of these; ``infomax plan`` counts them too.

    Args:
        recipe: The recipe.
        method: Its method, of :func:`build_without_memory`.
        images: Number of images that go through the networks at once.
        memory: Bytes that there are.

    Raises:
        ValueError: with the numbers, if it does not fit.
    """
    parameters = {name: p.numel() * p.element_size() for name, p in method.named_parameters()}
    trained = sum(parameters[name] for name, p in method.named_parameters() if p.requires_grad)
    buffers = {name: b.numel() * b.element_size() for name, b in method.named_buffers()}
    crops = (*recipe.views.global_crops, *recipe.views.local_crops)
    views = images * recipe.encoder.channels * FLOAT_BYTES * sum(view.size**2 for view in crops)
    if (needed := sum(parameters.values()) + trained + sum(buffers.values()) + views) <= memory:
        return
    tensors = parameters | buffers
    largest = max(tensors, key=tensors.__getitem__)
    weights = needed - views
    if views > weights:
        described = f"{views / GIGABYTE:,.1f} GB of views of {max(view.size for view in crops):,} pixels"
        advice = "choose a smaller --image-size, or fewer images at once (--micro-batch-size)"
    else:
        described = f"{weights / GIGABYTE:,.1f} GB of weights, of which {largest} {tensors[largest] / GIGABYTE:,.1f} GB"
        advice = "choose smaller settings"
    raise ValueError(
        f"a step takes at least {needed / GIGABYTE:,.1f} GB, {described}, but there are {memory / GIGABYTE:,.1f} GB; "
        f"{advice}"
    )


def build_optimizer(method: Method, settings: OptimizerSettings, *, fused: bool = False) -> torch.optim.Optimizer:
    """Builds the optimizer of a recipe, over the trainable parameters of a method.

    Args:
        method: The method to train.
        settings: The optimizer's settings.
        fused: Whether Adam updates all parameters by one kernel, which is for GPUs. SGD and LARS take a few kernels
            there: a fused SGD needs a momentum of each parameter from its first step on, but frozen ones have none.
    """
    factors: dict[Tensor, float] | None = None
    if (settings.backbone_rate, settings.layer_decay) != (1, 1):
        rates = {"backbone_rate": settings.backbone_rate, "layer_decay": settings.layer_decay}
        encoders = [module for module in method.modules() if isinstance(module, Encoder)]  # of each branch
        factors = {p: factor for encoder in encoders for p, factor in rate_factors(encoder, **rates).items()}
    if settings.vector_rate != 1:
        vectors = {p: settings.vector_rate for p in method.parameters() if p.ndim <= 1}
        factors = {p: (factors or {}).get(p, 1.0) * vectors.get(p, 1.0) for p in method.parameters()}
    groups = parameter_groups(method, settings.weight_decay, decay_all=settings.decay_all, rate_factors=factors)
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.constant_predictor:
        groups = with_constant_rate(groups, [*_predictor(method).parameters()], rate)
    if settings.name == "lars":
        return without_compiler(Lars)(groups, lr=rate, momentum=momentum, trust=settings.trust)
    if settings.name == "larc":
        scaling = {"trust": settings.trust, "clip": settings.clip_steps, "scale_vectors": settings.decay_all}
        return without_compiler(Larc)(groups, lr=rate, momentum=momentum, **scaling)
    if settings.name == "sgd":
        return without_compiler(torch.optim.SGD)(groups, lr=rate, momentum=momentum)
    optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return without_compiler(optimizer_class)(groups, lr=rate, fused=fused)


def _predictor(method: Method) -> nn.Module:
    predictor = getattr(method, "predictor", None)
    if not isinstance(predictor, nn.Module):
        raise ValueError("optimizer.constant_predictor needs a method that has a predictor")
    return predictor


def describe_trained(recipe: Recipe) -> str | None:
    """Returns one line on how much of the encoder is trained, and how fast; None if it is trained as the rest is.

    Raises:
        ValueError: as :func:`build_without_memory`.
    """
    settings, optimizer = recipe.encoder, recipe.optimizer
    if not settings.freeze and (optimizer.backbone_rate, optimizer.layer_decay) == (1, 1):
        return None
    backbone = build_without_memory(recipe).encoder.backbone
    stages = backbone_stages(backbone)
    weights = sum(p.numel() for p in backbone.parameters()) / MILLION
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad) / MILLION
    parts = []
    if settings.freeze:
        first, last = stages[0].name, stages[settings.freeze - 1].name
        frozen = f"stages {first} to {last} are frozen" if settings.freeze > 1 else f"stage {first} is frozen"
        parts.append(frozen + " with random weights" * (settings.init is None))
    if settings.freeze == len(stages):
        return f"trains none of the {weights:.3g} million weights of the encoder, only the heads: {parts[0]}"
    if optimizer.backbone_rate != 1:
        parts.append(f"rates are {optimizer.backbone_rate:g} times")
    if optimizer.layer_decay != 1:
        parts.append(f"rates are {optimizer.layer_decay:g} times those of the next stage")
    return f"trains {trained:.3g} of {weights:.3g} million weights of the encoder: {', '.join(parts)}"


def shorten_warmup(settings: OptimizerSettings, epochs: int) -> OptimizerSettings:
    """Returns the settings with a warm-up of a tenth of the epochs, if the epochs leave no room for the whole one."""
    if epochs > settings.warmup_epochs:
        return settings
    return replace(settings, warmup_epochs=max(0, epochs // 10))


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
