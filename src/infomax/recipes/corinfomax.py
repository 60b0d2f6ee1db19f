"""Holds the settings and recipes of CorInfoMax; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace
from typing import Any

from infomax.data.augmentation.views import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_MEAN,
    CIFAR100_STD,
    Preprocessing,
    ViewSet,
    byol,
)
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class CorInfoMaxSettings(MethodSettings):
    """A frozen dataclass that holds the settings of CorInfoMax."""

    name = "corinfomax"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 64
    """Width of the projector's output."""
    projector_norm: bool = False
    """Whether the projector has BatchNorm."""
    attraction: float = 250.0
    """Weight of the distance between the views, alpha."""
    forgetting: float = 0.01
    """Share of the old covariance that is kept at each step, lambda, in [0, 1)."""
    epsilon: float = 1e-8
    """Number that is added to the covariance's diagonal."""
    objective: str = "taylor"
    """What is maximised: taylor for Eq. 6; ldmi for the mutual information itself, Eq. 1, without attraction."""
    shared_weights: bool = True
    """Whether both branches have one encoder and one projector; else the first branch's encoder is kept."""

    def build(self, encoder):
        from infomax.methods.corinfomax import CorInfoMax

        return CorInfoMax(encoder, **vars(self))


RECIPES = Experiments("corinfomax")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the demo: the small encoder learns from the embedded digits. Decisions: cpu-recipes."""
    settings = CorInfoMaxSettings(hidden=256, dimension=64)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4), epochs=120)


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = CorInfoMaxSettings(hidden=512)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.334,
    reported_in("corinfomax-1", "CIFAR-10"),
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
    reported_in("corinfomax-8", "2048-2048-64"),
)
def cifar10() -> Recipe:
    """Table 1, CIFAR-10; also Tables 8 and 10. Paper: 93.18 % linear top-1. Cost: 0.334 EFLOP. Decisions:
    corinfomax-schedule."""
    return _cifar10()


@RECIPES.add("cifar10", 0.334, reported_in("corinfomax-8", "2048-2048-128"))
def cifar10_dimension_128() -> Recipe:
    """Appendix K, CIFAR-10: the spectrum of a projector with 128 outputs; also Table 8. Paper: no number that can be
    read. Cost: 0.334 EFLOP. Decisions: corinfomax-spectrum, corinfomax-schedule."""
    return _cifar10(dimension=128)


@RECIPES.add(
    "cifar100",
    0.342,
    reported_in("corinfomax-1", "CIFAR-100"),
    reported_in("corinfomax-4", "1000"),
    reported_in("corinfomax-5", "512"),
    reported_in("corinfomax-6", "0.5"),
    reported_in("corinfomax-7", "128"),
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
)
def cifar100() -> Recipe:
    """Table 1, CIFAR-100; also Tables 4 to 7 and 10. Paper: 71.61 % linear top-1. Cost: 0.342 EFLOP. Decisions:
    corinfomax-schedule."""
    return _cifar100()


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-4", "125"))
def cifar100_attraction_125() -> Recipe:
    """Table 4, alpha 125. Paper: 69.04 % linear top-1. Cost: 0.342 EFLOP. Decisions: corinfomax-schedule."""
    return _cifar100(attraction=125.0)


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-4", "250"))
def cifar100_attraction_250() -> Recipe:
    """Table 4, alpha 250. Paper: 71.19 % linear top-1. Cost: 0.342 EFLOP. Decisions: corinfomax-schedule."""
    return _cifar100(attraction=250.0)


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-4", "500"))
def cifar100_attraction_500() -> Recipe:
    """Table 4, alpha 500. Paper: 71.34 % linear top-1. Cost: 0.342 EFLOP. Decisions: corinfomax-schedule."""
    return _cifar100(attraction=500.0)


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-4", "2000"))
def cifar100_attraction_2000() -> Recipe:
    """Table 4, alpha 2000. Paper: 69.96 % linear top-1. Cost: 0.342 EFLOP. Decisions: corinfomax-schedule."""
    return _cifar100(attraction=2000.0)


@RECIPES.add("cifar100", 0.344, reported_in("corinfomax-5", "256"))
def cifar100_batch_256() -> Recipe:
    """Table 5, batch 256. Paper: 70.32 % linear top-1. Cost: 0.344 EFLOP. Decisions: corinfomax-rates,
    corinfomax-schedule."""
    return replace(_cifar100(), batch_size=256)


@RECIPES.add("cifar100", 0.339, reported_in("corinfomax-5", "1024"))
def cifar100_batch_1024() -> Recipe:
    """Table 5, batch 1024. Paper: 69.98 % linear top-1. Cost: 0.339 EFLOP. Decisions: corinfomax-rates,
    corinfomax-schedule."""
    return replace(_cifar100(), batch_size=1024)


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-6", "0.25"))
def cifar100_rate_025() -> Recipe:
    """Table 6, learning rate 0.25. Paper: 71.32 % linear top-1. Cost: 0.342 EFLOP. Decisions: corinfomax-schedule."""
    return replace(_cifar100(), optimizer=_optimizer(learning_rate=0.25, end=1e-6))


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-6", "1.0"))
def cifar100_rate_1() -> Recipe:
    """Table 6, learning rate 1. Paper: 69.95 % linear top-1. Cost: 0.342 EFLOP. Decisions: corinfomax-schedule."""
    return replace(_cifar100(), optimizer=_optimizer(learning_rate=1.0, end=1e-6))


@RECIPES.add("cifar100", 0.342, reported_in("corinfomax-7", "64"))
def cifar100_dimension_64() -> Recipe:
    """Table 7, projector with 64 outputs. Paper: 68.19 % linear top-1. Cost: 0.342 EFLOP. Decisions:
    corinfomax-schedule."""
    return _cifar100(dimension=64)


@RECIPES.add("cifar100", 0.343, reported_in("corinfomax-7", "256"))
def cifar100_dimension_256() -> Recipe:
    """Table 7, projector with 256 outputs. Paper: 71.26 % linear top-1. Cost: 0.343 EFLOP. Decisions:
    corinfomax-schedule."""
    return _cifar100(dimension=256)


@RECIPES.add("tiny-imagenet", 0.34, reported_in("corinfomax-1", "Tiny-IN"))
def tiny_imagenet() -> Recipe:
    """Table 1, Tiny ImageNet: ResNet-50, 64 pixels. Paper: 54.86 % linear top-1. Cost: 0.34 EFLOP. Decisions:
    corinfomax-forgetting, corinfomax-schedule."""
    return Recipe(
        method=_wide(attraction=500.0, forgetting=0.1),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=ViewSet(global_crops=byol(64)),
        preprocessing=Preprocessing(resize=73, size=64),
        optimizer=_optimizer(learning_rate=0.5, end=1e-6),
        batch_size=1024,
        epochs=800,
    )


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("corinfomax-1", "IN-100 ResNet-18"),
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
)
def imagenet100() -> Recipe:
    """Table 1, ImageNet-100, ResNet-18; also Table 10. Paper: 80.48 % linear top-1. Cost: 1.08 EFLOP. Decisions:
    corinfomax-schedule."""
    return Recipe(
        method=_wide(attraction=500.0),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet"),
        views=ViewSet(global_crops=byol(224)),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=_optimizer(learning_rate=1.0, end=0.005),
        batch_size=1024,
        epochs=400,
    )


@RECIPES.add("imagenet100", 1.23, reported_in("corinfomax-1", "IN-100 ResNet-50"))
def imagenet100_resnet50() -> Recipe:
    """Table 1, ImageNet-100, ResNet-50. Paper: 82.64 % linear top-1. Cost: 1.23 EFLOP. Decisions: corinfomax-warmup,
    corinfomax-schedule."""
    return replace(imagenet100(), encoder=EncoderSettings(backbone="resnet50", stem="imagenet"), epochs=200)


@RECIPES.add(
    "imagenet", 6.36, reported_in("corinfomax-1", "IN-1K"), reported_in("corinfomax-2"), reported_in("corinfomax-11")
)
def imagenet() -> Recipe:
    """Table 1, ImageNet; also Tables 2 and 11. Paper: 69.08 % linear top-1. Cost: 6.36 EFLOP. Decisions:
    corinfomax-forgetting, corinfomax-projector, half-precision, corinfomax-schedule."""
    return Recipe(
        method=CorInfoMaxSettings(hidden=8192, dimension=512, projector_norm=True, attraction=2000.0, forgetting=0.1),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=ViewSet(global_crops=byol(224)),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=_optimizer(learning_rate=0.2, end=1e-6),
        batch_size=1536,
        epochs=100,
        precision="bf16",
    )


def _wide(**settings: Any) -> CorInfoMaxSettings:
    """Returns the settings of all data sets but CIFAR-10 and ImageNet."""
    return CorInfoMaxSettings(hidden=4096, dimension=settings.pop("dimension", 128), **settings)


def _cifar10(**settings: Any) -> Recipe:
    """Returns a recipe with a ResNet-18 for CIFAR-10."""
    return Recipe(
        method=CorInfoMaxSettings(**settings),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar"),
        views=ViewSet(global_crops=byol(32), mean=CIFAR10_MEAN, std=CIFAR10_STD),
        preprocessing=Preprocessing(resize=36, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD),
        optimizer=_optimizer(learning_rate=0.5, end=1e-6),
        batch_size=512,
        epochs=1000,
    )


def _cifar100(**settings: Any) -> Recipe:
    """Returns a recipe with a ResNet-18 for CIFAR-100."""
    return replace(
        _cifar10(),
        method=_wide(**{"attraction": 1000.0, **settings}),
        views=ViewSet(global_crops=byol(32), mean=CIFAR100_MEAN, std=CIFAR100_STD),
        preprocessing=Preprocessing(resize=36, size=32, mean=CIFAR100_MEAN, std=CIFAR100_STD),
    )


def _optimizer(learning_rate: float, end: float) -> OptimizerSettings:
    """Returns SGD with a warm-up of 10 epochs and a rate that falls to ``end``."""
    return OptimizerSettings(
        name="sgd",
        learning_rate=learning_rate,
        weight_decay=1e-4,
        decay_all=True,
        warmup_epochs=10,
        warmup_start=0.003,
        end=end,
        per_epoch=True,
    )


METHOD = MethodSpec(
    settings=CorInfoMaxSettings,
    recipes=RECIPES,
    default_for_large_images="imagenet100",
    paper="CorInfoMax",
    conditions={name: name for name in ("dimension", "attraction")},
)
