"""Holds the settings and recipes of TWIST; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.data.augmentation.views import ViewSet, byol, dino
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class TwistSettings(MethodSettings):
    """A frozen dataclass that holds the settings of TWIST."""

    name = "twist"

    hidden: int = 4096
    """Width of the projector's two hidden layers."""
    classes: int = 32768
    """Number of classes."""
    sharpness: float = 1.0
    """Weight of the entropy of each image's distribution."""
    diversity: float = 1.0
    """Weight of the entropy of the mean distribution."""
    temperature: float = 1.0
    """Temperature of the distributions in both entropies."""

    def build(self, encoder):
        from infomax.methods.twist import Twist

        return Twist(encoder, **vars(self))


RECIPES = Experiments("twist")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = TwistSettings(hidden=256, classes=100)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.05, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    return small_recipe(TwistSettings(hidden=512, classes=300, diversity=2.0), LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add("imagenet", 6.46, reported_in("mira-1", "100", multi_crop=False))
def imagenet_100() -> Recipe:
    """Two crops, 100 epochs, in MIRA's Table 1. Paper: 70.4 % linear top-1. Cost: 6.46 EFLOP. Decisions:
    twist-imagenet, twist-exact."""
    return _imagenet(100)


@RECIPES.add("imagenet", 12.9, reported_in("mira-1", "200", multi_crop=False))
def imagenet_200() -> Recipe:
    """Two crops, 200 epochs, in MIRA's Table 1. Paper: 70.9 % linear top-1. Cost: 12.9 EFLOP. Decisions:
    twist-imagenet, twist-exact."""
    return _imagenet(200)


@RECIPES.add("imagenet", 25.8, reported_in("mira-1", "400", multi_crop=False))
def imagenet_400() -> Recipe:
    """Two crops, 400 epochs, in MIRA's Table 1. Paper: 71.8 % linear top-1. Cost: 25.8 EFLOP. Decisions:
    twist-imagenet, twist-exact."""
    return _imagenet(400)


@RECIPES.add("imagenet", 51.7, reported_in("mira-1", "800", multi_crop=False))
def imagenet_800() -> Recipe:
    """The official run of two crops, 800 epochs, in MIRA's Table 1. Paper: 72.6 % linear top-1. Cost: 51.7 EFLOP.
    Decisions: twist-imagenet, twist-exact."""
    return _imagenet(800)


@RECIPES.add("imagenet", 13.5, reported_in("mira-1", "100", multi_crop=True))
def imagenet_multicrop_100() -> Recipe:
    """Multi-crop, 100 epochs, in MIRA's Table 1. Paper: 72.9 % linear top-1. Cost: 13.5 EFLOP. Decisions:
    twist-imagenet, twist-exact."""
    return _imagenet_multicrop(100)


@RECIPES.add("imagenet", 27, reported_in("mira-1", "200", multi_crop=True))
def imagenet_multicrop_200() -> Recipe:
    """Multi-crop, 200 epochs, in MIRA's Table 1. Paper: 73.7 % linear top-1. Cost: 27 EFLOP. Decisions:
    twist-imagenet, twist-exact."""
    return _imagenet_multicrop(200)


@RECIPES.add("imagenet", 54.1, reported_in("mira-1", "400", multi_crop=True))
def imagenet_multicrop_400() -> Recipe:
    """Multi-crop, 400 epochs, in MIRA's Table 1. Paper: 74.4 % linear top-1. Cost: 54.1 EFLOP. Decisions:
    twist-imagenet, twist-exact."""
    return _imagenet_multicrop(400)


@RECIPES.add(
    "imagenet",
    108,
    reported_in("mira-1", "800", multi_crop=True),
    reported_in("mira-2", row="TWIST without self-labelling"),
)
def imagenet_multicrop_800() -> Recipe:
    """Multi-crop, 800 epochs, in MIRA's Table 1 and its Table 2. Paper: 74.1 % linear top-1. Cost: 108 EFLOP.
    Decisions: twist-imagenet, twist-exact."""
    return _imagenet_multicrop(800)


def _lars() -> OptimizerSettings:
    return OptimizerSettings(name="lars", learning_rate=0.5 * 2048 / 256, weight_decay=1.5e-6, warmup_epochs=10)


def _imagenet(epochs: int) -> Recipe:
    """Returns the official recipe with two crops."""
    views = ViewSet(global_crops=byol(224))
    return imagenet_recipe(TwistSettings(), _lars(), views, batch_size=2048, epochs=epochs)


def _imagenet_multicrop(epochs: int) -> Recipe:
    """Returns the official recipe with 12 local crops, which has fewer classes."""
    crops = dino(224, global_scale=(0.4, 1.0), local_scale=(0.05, 0.4), crops=12)
    views = ViewSet(global_crops=crops[0], local_crops=crops[1])
    return imagenet_recipe(TwistSettings(classes=4096), _lars(), views, batch_size=2048, epochs=epochs)


METHOD = MethodSpec(settings=TwistSettings, recipes=RECIPES, default_for_large_images="imagenet_800")
