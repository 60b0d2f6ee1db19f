"""Builds recipes of the settings that others published of the baselines: solo-learn's for small images, and ImageNet's.

The four papers took most of their numbers of others from solo-learn (MIRA Table 7, CorInfoMax Table 10), or from the
baseline's own paper (MIRA Tables 1 and 2, MVEB Table 1). CARL's authors trained theirs in a setting of their own.
"""

from dataclasses import replace

from infomax.data.augmentation.views import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_MEAN,
    CIFAR100_STD,
    Preprocessing,
    View,
    ViewSet,
    byol,
    simclr,
)
from infomax.recipes import carl
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe

STATISTICS = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "cifar100": (CIFAR100_MEAN, CIFAR100_STD)}


def solo_cifar(
    method: MethodSettings,
    optimizer: OptimizerSettings,
    views: tuple[View, View],
    *,
    data: str = "cifar10",
    epochs: int = 1000,
    batch_size: int = 256,
    zero_init_residual: bool = False,
) -> Recipe:
    """Returns a recipe of solo-learn for CIFAR: ResNet-18 whose stem has a padding of 2, batch 256, 1000 epochs.

    Args:
        method: Settings of the method.
        optimizer: Settings of the optimiser.
        views: The two global crops, of 32 pixels.
        data: ``cifar10`` or ``cifar100``, which decides the mean and the standard deviation.
        epochs: Passes over the images.
        batch_size: Images of a step.
        zero_init_residual: Whether residual branches start at zero, as in SimSiam's script alone.
    """
    mean, std = STATISTICS[data]
    encoder = EncoderSettings(backbone="resnet18", stem="cifar", stem_padding=2, zero_init_residual=zero_init_residual)
    return Recipe(
        method=method,
        encoder=encoder,
        views=ViewSet(global_crops=views, mean=mean, std=std),
        preprocessing=Preprocessing(resize=32, size=32, mean=mean, std=std),
        optimizer=optimizer,
        batch_size=batch_size,
        epochs=epochs,
    )


def solo_asymmetric() -> tuple[View, View]:
    """Returns solo-learn's asymmetric pair of views for CIFAR: BYOL's without blur."""
    first, second = byol(32)
    return replace(first, blur=0.0), replace(second, blur=0.0)


def solo_strong() -> tuple[View, View]:
    """Returns solo-learn's pair of views for CIFAR with strong colours: SimCLR's for ImageNet without blur."""
    view = replace(simclr(224)[0], size=32, blur=0.0)
    return view, view


def carl_setting(method: MethodSettings, data: str) -> Recipe:
    """Returns a recipe with what CARL's paper says of all methods: images, views, encoder, optimiser, batch and epochs.

    Args:
        method: Settings of the method.
        data: ``cifar10``, ``cifar100`` or ``stl10``.
    """
    return replace(carl.RECIPES[data].recipe(), method=method)


def solo_imagenet100(
    method: MethodSettings, optimizer: OptimizerSettings, views: tuple[View, View], *, batch_size: int = 256
) -> Recipe:
    """Returns a recipe of solo-learn for ImageNet-100 at 224 pixels: ResNet-18, batch 256, 400 epochs.

    Args:
        method: Settings of the method.
        optimizer: Settings of the optimiser.
        views: The two global crops, of 224 pixels.
        batch_size: Images of a step.
    """
    return Recipe(
        method=method,
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet"),
        views=ViewSet(global_crops=views),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=optimizer,
        batch_size=batch_size,
        epochs=400,
    )


def solo_symmetric(size: int, blur: float) -> tuple[View, View]:
    """Returns solo-learn's pair of like views for MoCo v2, whose crops are wider than those of its paper.

    Args:
        size: Side of a view in pixels.
        blur: Probability of a Gaussian blur.
    """
    view = View(size=size, saturation=0.4, blur=blur)
    return view, view


def solo_sgd(learning_rate: float, weight_decay: float) -> OptimizerSettings:
    """Returns solo-learn's SGD: biases and BatchNorm have weight decay too, 10 epochs of warm-up."""
    return OptimizerSettings(
        name="sgd", learning_rate=learning_rate, weight_decay=weight_decay, decay_all=True, warmup_epochs=10
    )


def solo_lars(learning_rate: float, weight_decay: float) -> OptimizerSettings:
    """Returns solo-learn's LARS: its trust coefficient is 0.02, no step is longer than SGD's, 10 epochs of warm-up."""
    return OptimizerSettings(
        name="larc",
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        trust=0.02,
        clip_steps=True,
        warmup_epochs=10,
    )


def imagenet(
    method: MethodSettings,
    optimizer: OptimizerSettings,
    views: ViewSet,
    *,
    batch_size: int,
    epochs: int,
) -> Recipe:
    """Returns a recipe for ImageNet at 224 pixels with a ResNet-50 in bfloat16.

    Args:
        method: Settings of the method.
        optimizer: Settings of the optimiser.
        views: The views.
        batch_size: Images of a step.
        epochs: Passes over the images.
    """
    return Recipe(
        method=method,
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=views,
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=optimizer,
        batch_size=batch_size,
        epochs=epochs,
        precision="bf16",
    )
