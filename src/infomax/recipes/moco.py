"""Holds the settings and recipes of MoCo v2; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace
from typing import Any

from infomax.data.augmentation.views import ViewSet
from infomax.data.augmentation.views import infomin as infomin_views
from infomax.data.augmentation.views import moco as moco_views
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import carl_setting, solo_cifar, solo_imagenet100, solo_sgd, solo_symmetric
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MocoSettings(MethodSettings):
    """A frozen dataclass that holds the settings of MoCo v2."""

    name = "moco"

    hidden: int = 2048
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    projector_norm: bool = False
    """Whether the projector's hidden layer has BatchNorm, which the paper's has not."""
    temperature: float = 0.2
    """Temperature of the loss."""
    queue_size: int = 65536
    """Number of keys of earlier batches that a query is compared with."""
    momentum: float = 0.999
    """Momentum of the EMA teacher at the start."""
    momentum_end: float = 0.999
    """Momentum of the EMA teacher at the end, to which a cosine leads."""
    symmetric: bool = False
    """Whether each of two views queries the other, instead of the first one alone."""

    def build(self, encoder):
        from infomax.methods.moco import Moco

        return Moco(encoder, **vars(self))


RECIPES = Experiments("moco")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, moco-small."""
    settings = _small(hidden=256, dimension=64, queue_size=1024)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings, moco-small."""
    settings = _small(hidden=512, dimension=128, queue_size=4096, temperature=0.1)
    return small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.566,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5", row="MoCo v2+"),
    reported_in("corinfomax-1", "CIFAR-10", row="MoCo v2"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, CIFAR-10. Paper: 92.94 % linear top-1. Cost: 0.566 EFLOP.
    Decisions: solo-cifar, solo-views, moco-symmetric."""
    return solo_cifar(_solo(queue_size=32768), solo_sgd(0.3, 1e-4), solo_symmetric(32, blur=0.0), data="cifar10")


@RECIPES.add(
    "cifar100",
    0.566,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5", row="MoCo v2+"),
    reported_in("corinfomax-1", "CIFAR-100", row="MoCo v2"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, CIFAR-100. Paper: 69.89 % linear top-1. Cost: 0.566
    EFLOP. Decisions: solo-cifar, solo-views, moco-symmetric."""
    return solo_cifar(_solo(queue_size=32768), solo_sgd(0.3, 1e-4), solo_symmetric(32, blur=0.0), data="cifar100")


@RECIPES.add(
    "imagenet100",
    1.45,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5", row="MoCo v2+"),
    reported_in("corinfomax-1", "IN-100 ResNet-18", row="MoCo v2"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, ImageNet-100. Paper: 79.28 % linear top-1. Cost: 1.45
    EFLOP. Decisions: solo-views, moco-symmetric."""
    return solo_imagenet100(_solo(queue_size=65536), solo_sgd(0.3, 1e-4), solo_symmetric(224, blur=0.5))


@RECIPES.add("cifar10", 0.00327, reported_in("carl-1", "CIFAR-10 200", row="MoCo v2"))
def cifar10_carl() -> Recipe:
    """CARL's Table 1, CIFAR-10, 200 epochs. Paper: 71.62 % linear top-1, uncertain. Cost: 0.00327 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views."""
    return _carl("cifar10")


@RECIPES.add("cifar100", 0.00327, reported_in("carl-1", "CIFAR-100 200", row="MoCo v2"))
def cifar100_carl() -> Recipe:
    """CARL's Table 1, CIFAR-100, 200 epochs. Paper: 44.35 % linear top-1, uncertain. Cost: 0.00327 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views."""
    return _carl("cifar100")


@RECIPES.add("stl10", 0.0531, reported_in("carl-1", "STL-10 200", row="MoCo v2"))
def stl10_carl() -> Recipe:
    """CARL's Table 1, STL-10, 200 epochs, 96 pixels. Paper: 75.46 % linear top-1, uncertain. Cost: 0.0531 EFLOP.
    Decisions: carl-baselines, carl-table, carl-unstated, carl-views."""
    return _carl("stl10")


@RECIPES.add("imagenet", 8.33, reported_in("corinfomax-1", "IN-1K", row="MoCo v2"))
def imagenet_100_symmetric() -> Recipe:
    """100 epochs as SimSiam's authors trained it, in CorInfoMax's Table 1. Paper: 67.4 % linear top-1. Cost: 8.33
    EFLOP. Decisions: simsiam-baselines, moco-symmetric, moco-imagenet."""
    return replace(_imagenet(100), method=MocoSettings(symmetric=True))


@RECIPES.add("imagenet", 8.33, reported_in("corinfomax-11", row="MoCo v2"))
def imagenet_200() -> Recipe:
    """The paper's run of 200 epochs, for which it prints 67.5 %; in CorInfoMax's Table 11. Cost: 8.33 EFLOP. Decisions:
    moco-imagenet, baseline-encoders."""
    return _imagenet(200)


@RECIPES.add(
    "imagenet",
    33.3,
    *(reported_in(table, row="MoCo v2") for table in ("mveb-1", "mveb-4-linear", "mveb-4-finetune", "mira-5")),
)
def imagenet_800() -> Recipe:
    """The paper's run of 800 epochs, in MVEB's Table 1 and Table 4 and in MIRA's Table 5. Paper: 71.1 % linear top-1.
    Cost: 33.3 EFLOP. Decisions: moco-imagenet, baseline-encoders."""
    return _imagenet(800)


@RECIPES.add("imagenet", 4.17)
def imagenet_infomin_100() -> Recipe:
    """InfoMin's views and temperature without its branch of jigsaw puzzles, with which its code reports 67.4 % after
    100 epochs. Cost: 4.17 EFLOP. Decisions: infomin, randaugment."""
    return _infomin(100)


@RECIPES.add("imagenet", 8.33)
def imagenet_infomin_200() -> Recipe:
    """InfoMin's views and temperature without its branch of jigsaw puzzles, with which its code reports 70.1 % after
    200 epochs. Cost: 8.33 EFLOP. Decisions: infomin, randaugment."""
    return _infomin(200)


@RECIPES.add("imagenet", 33.3)
def imagenet_infomin_800() -> Recipe:
    """InfoMin's views and temperature without its branch of jigsaw puzzles, with which its code reports 73.0 % after
    800 epochs. Cost: 33.3 EFLOP. Decisions: infomin, randaugment."""
    return _infomin(800)


def _small(**widths: Any) -> MocoSettings:
    """Returns the settings of our own recipes, of short runs (docs/decisions.md, moco-small)."""
    return MocoSettings(**widths, projector_norm=True, momentum=0.9, momentum_end=0.99, symmetric=True)


def _solo(queue_size: int) -> MocoSettings:
    """Returns the settings of solo-learn's MoCo v2+."""
    return MocoSettings(dimension=256, queue_size=queue_size, momentum=0.99, momentum_end=0.999, symmetric=True)


def _carl(data: str) -> Recipe:
    """Returns a recipe in CARL's setting; as in the official code, the projector's hidden layer is as wide as features,
    and the rate changes between epochs."""
    recipe = carl_setting(MocoSettings(hidden=512), data)
    return replace(recipe, optimizer=replace(recipe.optimizer, per_epoch=True))


def _imagenet(epochs: int) -> Recipe:
    """Returns the recipe of the official code."""
    sgd = OptimizerSettings(name="sgd", learning_rate=0.03, weight_decay=1e-4, decay_all=True, per_epoch=True)
    return imagenet_recipe(MocoSettings(), sgd, ViewSet(global_crops=moco_views(224)), batch_size=256, epochs=epochs)


def _infomin(epochs: int) -> Recipe:
    """Returns MoCo v2's recipe with the views and the temperature of InfoMin's code."""
    views = ViewSet(global_crops=infomin_views(224))
    return replace(_imagenet(epochs), method=MocoSettings(temperature=0.15), views=views)


METHOD = MethodSpec(settings=MocoSettings, recipes=RECIPES, default_for_large_images="imagenet_200")
