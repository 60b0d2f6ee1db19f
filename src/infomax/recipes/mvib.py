"""Holds the settings and recipes of MVIB; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.recipes import mveb
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MvibSettings(MethodSettings):
    """A frozen dataclass that holds the settings of MVIB."""

    name = "mvib"

    hidden: int = 512
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    projector_norm: bool = True
    """Whether the projector's hidden layer has BatchNorm."""
    weight: float = 1e-3
    """Weight of the divergence of two views' Gaussians."""
    deviation: float | None = None
    """Standard deviation of the Gaussian around the features; None learns that of each feature."""
    temperature: float = 0.5
    """Temperature of the contrast."""

    def build(self, encoder):
        from infomax.methods.mvib import Mvib

        return Mvib(encoder, **vars(self))


RECIPES = Experiments("mvib")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = MvibSettings(hidden=256, dimension=64, deviation=0.1, temperature=0.2)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    return small_recipe(MvibSettings(deviation=0.1, temperature=0.1), LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add("cifar10", 0.0665, reported_in("mveb-text-7.6"))
def cifar10() -> Recipe:
    """MVEB's Sec. 7.6, CIFAR-10, from Haoqing Wang's code. Paper: 86.2 % linear top-1. Cost: 0.0665 EFLOP. Decisions:
    mveb-cifar, mvib-noise."""
    deviation, squares, features = 0.1, 5e-4, 512  # that code weighs the mean squared difference of features
    settings = MvibSettings(weight=2 * deviation**2 * squares / features, projector_norm=False, deviation=deviation)
    return replace(mveb.cifar10(), method=settings)


METHOD = MethodSpec(settings=MvibSettings, recipes=RECIPES, default_for_large_images="small")
