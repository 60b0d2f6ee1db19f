"""Holds the settings and recipes of Barlow Twins; their docstrings have the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.data.augmentation.views import ViewSet
from infomax.data.augmentation.views import byol as byol_views
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_asymmetric, solo_cifar, solo_imagenet100, solo_lars
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class BarlowSettings(MethodSettings):
    """A frozen dataclass that holds the settings of Barlow Twins."""

    name = "barlow"

    hidden: int = 8192
    """Width of the projector's hidden layers."""
    dimension: int = 8192
    """Width of the projector's output."""
    off_diagonal: float = 0.0051
    """Weight of the correlations of different dimensions, lambda."""
    loss_scale: float = 1.0
    """Factor of the loss."""

    def build(self, encoder):
        from infomax.methods.barlow import Barlow

        return Barlow(encoder, **vars(self))


RECIPES = Experiments("barlow")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings."""
    settings = BarlowSettings(hidden=256, dimension=256, off_diagonal=0.0102, loss_scale=0.01)
    return digits_recipe(settings, LOW_RATE_ADAMW)


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    return small_recipe(BarlowSettings(hidden=512, dimension=512, off_diagonal=0.0102), LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.428,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5", row="Barlow Twins"),
    reported_in("corinfomax-1", "CIFAR-10", row="Barlow Twins"),
    reported_in("mira-7", "CIFAR-10 Top-1", "CIFAR-10 Top-5", row="Barlow Twins"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1 and in MIRA's Table 7, CIFAR-10. Paper: 92.1 % linear
    top-1. Cost: 0.428 EFLOP. Decisions: solo-cifar, solo-views, barlow-scale."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.428,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5", row="Barlow Twins"),
    reported_in("corinfomax-1", "CIFAR-100", row="Barlow Twins"),
    reported_in("mira-7", "CIFAR-100 Top-1", "CIFAR-100 Top-5", row="Barlow Twins"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1 and in MIRA's Table 7, CIFAR-100. Paper: 70.9 % linear
    top-1. Cost: 0.428 EFLOP. Decisions: solo-cifar, solo-views, barlow-scale."""
    return _cifar("cifar100")


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5", row="Barlow Twins"),
    reported_in("corinfomax-1", "IN-100 ResNet-18", row="Barlow Twins"),
    reported_in("mira-7", "ImageNet-100 Top-1", "ImageNet-100 Top-5", row="Barlow Twins"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1 and in MIRA's Table 7, ImageNet-100. Paper: 80.38 % linear
    top-1. Cost: 1.08 EFLOP. Decisions: solo-imagenet100, solo-views, barlow-scale."""
    return solo_imagenet100(_solo(), solo_lars(0.3, 1e-4), byol_views(224))


@RECIPES.add(
    "imagenet",
    65,
    reported_in("mveb-1", row="Barlow Twins"),
    *(reported_in(table, row="Barlow Twins") for table in ("mira-2", "mira-3", "mira-4", "mveb-3")),
)
def imagenet() -> Recipe:
    """The paper's run of 1000 epochs, in MVEB's Table 1 and Table 3 and in MIRA's Table 2, Table 3 and Table 4. Paper:
    73.2 % linear top-1. Cost: 65 EFLOP. Decisions: barlow-imagenet, baseline-encoders."""
    rate = 0.2 * 2048 / 256
    lars = OptimizerSettings(
        name="lars",
        learning_rate=rate,
        weight_decay=1e-6,
        warmup_epochs=10,
        end=rate / 1000,
        vector_rate=0.0048 / 0.2,
    )
    views = ViewSet(global_crops=byol_views(224))
    return imagenet_recipe(BarlowSettings(), lars, views, batch_size=2048, epochs=1000)


def _solo() -> BarlowSettings:
    """Returns the settings of solo-learn, which multiplies the loss by 0.1."""
    return BarlowSettings(hidden=2048, dimension=2048, loss_scale=0.1)


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    return solo_cifar(_solo(), solo_lars(0.3, 1e-4), solo_asymmetric(), data=data)


METHOD = MethodSpec(settings=BarlowSettings, recipes=RECIPES, default_for_large_images="imagenet100")
