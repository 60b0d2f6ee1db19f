"""CorInfoMax's settings and recipes."""

from dataclasses import dataclass

from infomax.data.views import CIFAR10_MEAN, CIFAR10_STD, Preprocessing, ViewSet, byol
from infomax.recipes.cpu import digits_recipe, small_recipe
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class CorInfoMaxSettings(MethodSettings):
    name = "corinfomax"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 64
    """Width of the projector's output."""
    projector_norm: bool = False
    """Whether the projector has BatchNorm."""
    attraction: float = 250.0
    """alpha, the weight of the distance between the views."""
    forgetting: float = 0.01
    """lambda, the share of the old covariance that is kept at each step, in [0, 1)."""
    epsilon: float = 1e-8
    """Added to the covariance's diagonal."""

    def build(self, encoder):
        from infomax.methods.corinfomax import CorInfoMax

        return CorInfoMax(encoder, **vars(self))


def digits() -> Recipe:
    """Ours, for the demo."""
    settings = CorInfoMaxSettings(hidden=256, dimension=64)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def small() -> Recipe:
    """Ours, for photographs on a CPU."""
    settings = CorInfoMaxSettings(hidden=512)
    return small_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def cifar10() -> Recipe:
    """Table 1, CIFAR-10: ResNet-18. Paper: 93.18 % linear top-1."""
    return Recipe(
        name="cifar10",
        method=CorInfoMaxSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar"),
        views=ViewSet(full=byol(32), mean=CIFAR10_MEAN, std=CIFAR10_STD),
        preprocessing=Preprocessing(resize=36, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD),
        optimizer=_optimizer(learning_rate=0.5, end=1e-6),
        batch_size=512,
        epochs=1000,
    )


def imagenet100() -> Recipe:
    """Table 1, ImageNet-100: ResNet-18, 224 pixels. Paper: 80.48 % linear top-1."""
    return Recipe(
        name="imagenet100",
        method=CorInfoMaxSettings(hidden=4096, dimension=128, attraction=500.0),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet"),
        views=ViewSet(full=byol(224)),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=_optimizer(learning_rate=1.0, end=0.005),
        batch_size=1024,
        epochs=400,
    )


def _optimizer(learning_rate: float, end: float) -> OptimizerSettings:
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


SETTINGS = CorInfoMaxSettings
RECIPES = (digits, small, cifar10, imagenet100)
PHOTOGRAPHS = imagenet100  # the default for large images on a GPU
