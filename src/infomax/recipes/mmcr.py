"""Holds the settings and recipes of MMCR; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MmcrSettings(MethodSettings):
    """A frozen dataclass that holds the settings of MMCR."""

    name = "mmcr"

    hidden: int = 8192
    """Width of the projector's hidden layers."""
    dimension: int = 512
    """Width of the projector's output."""
    weight: float = 0.0
    """Weight of the nuclear norm of each image's own views."""

    def build(self, encoder):
        from infomax.methods.mmcr import Mmcr

        return Mmcr(encoder, **vars(self))


RECIPES = Experiments("mmcr")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings."""
    settings = MmcrSettings(hidden=256, dimension=64)
    return digits_recipe(settings, OptimizerSettings(name="adamw", learning_rate=0.006, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = MmcrSettings(hidden=512, dimension=128)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


METHOD = MethodSpec(settings=MmcrSettings, recipes=RECIPES, default_for_large_images="small")
