"""Holds the settings and recipes of W-MSE; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import simclr
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import solo_cifar, solo_imagenet100
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class WmseSettings(MethodSettings):
    """A frozen dataclass that holds the settings of W-MSE."""

    name = "wmse"

    hidden: int = 1024
    """Width of the projector's hidden layer."""
    dimension: int = 64
    """Width of the projector's output."""
    size: int = 128
    """Number of images that are whitened together; the batch should be a multiple of it."""
    epsilon: float = 0.0
    """Share of the identity in the covariance that embeddings are whitened by."""

    def build(self, encoder):
        from infomax.methods.wmse import Wmse

        return Wmse(encoder, **vars(self))


RECIPES = Experiments("wmse")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings."""
    settings = WmseSettings(hidden=256, dimension=32)
    return digits_recipe(settings, OptimizerSettings(name="adamw", learning_rate=0.002, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    return small_recipe(WmseSettings(hidden=512), SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("cifar10", 0.421, reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5", row="W-MSE"))
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-10. Paper: 88.67 % linear top-1. Cost: 0.421 EFLOP. Decisions:
    solo-cifar, wmse-runs."""
    return _cifar("cifar10")


@RECIPES.add("cifar100", 0.421, reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5", row="W-MSE"))
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-100. Paper: 61.33 % linear top-1. Cost: 0.421 EFLOP. Decisions:
    solo-cifar, wmse-runs."""
    return _cifar("cifar100")


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5", row="W-MSE"),
    reported_in("corinfomax-1", "IN-100 ResNet-18", row="W-MSE 2"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, ImageNet-100. Paper: 69.06 % linear top-1. Cost: 1.08
    EFLOP. Decisions: solo-imagenet100, wmse-runs."""
    adam = OptimizerSettings(name="adam", learning_rate=2e-3, weight_decay=1e-6, warmup_epochs=2)
    view = replace(simclr(224)[0], blur=0.2)
    return solo_imagenet100(WmseSettings(), adam, (view, view))


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    adam = OptimizerSettings(name="adam", learning_rate=2e-3, weight_decay=1e-6, warmup_epochs=10)
    view = replace(simclr(32)[0], scale=(0.2, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    return solo_cifar(WmseSettings(), adam, (view, view), data=data)


METHOD = MethodSpec(settings=WmseSettings, recipes=RECIPES, default_for_large_images="cifar10")
