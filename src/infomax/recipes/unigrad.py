"""Holds the settings and recipes of UniGrad; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.data.augmentation.views import ViewSet, moco
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class UniGradSettings(MethodSettings):
    """A frozen dataclass that holds the settings of UniGrad."""

    name = "unigrad"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 2048
    """Width of the projector's output."""
    weight: float = 100.0
    """Weight of the term that keeps embeddings apart."""
    correlation_momentum: float = 0.99
    """Share of the old correlation matrix at a step."""
    momentum: float = 0.996
    """Momentum of the EMA teacher at the start; it rises to 1."""

    def build(self, encoder):
        from infomax.methods.unigrad import UniGrad

        return UniGrad(encoder, **vars(self))


RECIPES = Experiments("unigrad")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, unigrad-weight."""
    settings = UniGradSettings(hidden=256, dimension=128, weight=10.0, correlation_momentum=0.9, momentum=0.9)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings, unigrad-weight."""
    settings = UniGradSettings(hidden=512, dimension=256, weight=5.0, momentum=0.9)
    return small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add("imagenet", 8.35)
def imagenet() -> Recipe:
    """The official run of 100 epochs with two crops, which its paper gives 70.3 % in linear top-1. Cost: 8.35 EFLOP.
    Decisions: unigrad-imagenet, unigrad-value."""
    rate = 0.05 * 1024 / 256
    sgd = OptimizerSettings(
        name="sgd",
        learning_rate=rate,
        weight_decay=1e-4,
        decay_all=True,
        warmup_epochs=5,
        warmup_start=rate / 1000,
        end=rate / 1000,
    )
    return imagenet_recipe(UniGradSettings(), sgd, ViewSet(global_crops=moco(224)), batch_size=1024, epochs=100)


METHOD = MethodSpec(settings=UniGradSettings, recipes=RECIPES, default_for_large_images="imagenet")
