"""Holds the settings and recipes of EMP-SSL; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import View, ViewSet
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class EmpSslSettings(MethodSettings):
    """A frozen dataclass that holds the settings of EMP-SSL."""

    name = "emp_ssl"

    hidden: int = 4096
    """Width of the projector's hidden layers."""
    dimension: int = 1024
    """Width of the projector's output."""
    invariance: float = 200.0
    """Weight of the cosine of each view with the mean of all views."""
    epsilon: float = 0.2
    """Distortion of the total coding rate."""

    def build(self, encoder):
        from infomax.methods.emp_ssl import EmpSsl

        return EmpSsl(encoder, **vars(self))


CROPS = 8  # of each image; our recipes have a quarter of the epochs of others instead, as each image is seen more often
RECIPES = Experiments("emp_ssl")


def patch(size: int) -> View:
    """Returns EMP-SSL's view: a square of a quarter of the image's area (docs/decisions.md, emp-ssl-crops)."""
    return View(
        size=size,
        scale=(0.25, 0.25),
        ratio=(1.0, 1.0),
        bicubic=False,
        saturation=0.4,
        hue=0.2,
        blur=0.1,
        solarize=0.1,
    )


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder, eight crops of each image. Decisions: cpu-recipes,
    emp-ssl-crops."""
    settings = EmpSslSettings(hidden=256, dimension=64)
    # The loss has slopes of hundreds: SGD collapses at the rate of the other recipes. This is the official optimiser.
    larc = OptimizerSettings(name="larc", learning_rate=0.3, weight_decay=1e-4, trust=0.005, clip_steps=True)
    recipe = digits_recipe(settings, larc, epochs=20)
    view = replace(recipe.views.global_crops[0], scale=(0.4, 0.6))
    return replace(recipe, views=replace(recipe.views, global_crops=(view,) * CROPS))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN // 4)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels, from eight crops of each image.
    Decisions: cpu-recipes, emp-ssl-crops."""
    settings = EmpSslSettings(hidden=512, dimension=128)
    recipe = small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)
    return replace(recipe, views=ViewSet(global_crops=(patch(32),) * CROPS))


METHOD = MethodSpec(settings=EmpSslSettings, recipes=RECIPES, default_for_large_images="small")
