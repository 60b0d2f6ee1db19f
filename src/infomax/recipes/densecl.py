"""Holds the settings and recipes of DenseCL; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import ViewSet
from infomax.data.augmentation.views import moco as moco_views
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.moco import MocoSettings
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class DenseClSettings(MocoSettings):
    """A frozen dataclass that holds the settings of DenseCL: those of MoCo v2, for both branches, and a weight."""

    name = "densecl"

    dense_weight: float = 0.5
    """Weight of the loss that compares the cells of feature maps; MoCo's has the rest of 1."""

    def build(self, encoder):  # pyrefly: ignore[bad-override]
        from infomax.methods.densecl import DenseCl

        return DenseCl(encoder, **vars(self))


RECIPES = Experiments("densecl")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder, whose maps have 2x2 cells. Decisions: cpu-recipes,
    moco-small."""
    settings = _small(hidden=256, dimension=64, queue_size=1024)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels, with maps of 4x4 cells.
    Decisions: cpu-recipes, searched-settings, moco-small."""
    sgd = replace(SMALL_OPTIMIZER, name="sgd", learning_rate=0.1)
    return small_recipe(_small(hidden=512, dimension=128, queue_size=4096), sgd, epochs=epochs)


@RECIPES.add("imagenet", 9.21, reported_in("mveb-5", row="DenseCL"))
def imagenet_200() -> Recipe:
    """The paper's run of 200 epochs, in MVEB's Table 5. Cost: 9.21 EFLOP. Decisions: moco-imagenet, baseline-encoders,
    densecl-imagenet."""
    sgd = OptimizerSettings(name="sgd", learning_rate=0.03, weight_decay=1e-4, decay_all=True, per_epoch=True)
    views = ViewSet(global_crops=moco_views(224))
    return imagenet_recipe(DenseClSettings(), sgd, views, batch_size=256, epochs=200)


def _small(*, hidden: int, dimension: int, queue_size: int) -> DenseClSettings:
    """Returns the settings of our own recipes, of short runs (docs/decisions.md, moco-small)."""
    return DenseClSettings(
        hidden=hidden,
        dimension=dimension,
        queue_size=queue_size,
        projector_norm=True,
        momentum=0.9,
        momentum_end=0.99,
        symmetric=True,
    )


METHOD = MethodSpec(settings=DenseClSettings, recipes=RECIPES, default_for_large_images="imagenet_200")
