"""Holds the settings and recipes of VISReg; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class VisRegSettings(MethodSettings):
    """A frozen dataclass that holds the settings of VISReg."""

    name = "visreg"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 256
    """Width of the projector's output."""
    weight: float = 0.9
    """Share of the regulariser in the loss; the distance of the views has the rest."""
    slices: int = 4096
    """Number of random directions of a step."""
    scale: float = 1.0
    """Weight of the deviations in the regulariser."""
    shape: float = 1.0
    """Weight of the sorted projections in the regulariser."""
    centre: float = 1.0
    """Weight of the means in the regulariser."""

    def build(self, encoder):
        from infomax.methods.visreg import VisReg

        return VisReg(encoder, **vars(self))


RECIPES = Experiments("visreg")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings."""
    settings = VisRegSettings(hidden=256, dimension=64, weight=0.8, slices=512)
    return digits_recipe(settings, OptimizerSettings(name="adamw", learning_rate=0.006, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    settings = VisRegSettings(hidden=512, dimension=128, slices=512, weight=0.8)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


METHOD = MethodSpec(settings=VisRegSettings, recipes=RECIPES, default_for_large_images="small")
