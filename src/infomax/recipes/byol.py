"""Holds the settings and recipes of BYOL; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.data.augmentation.views import ViewSet
from infomax.data.augmentation.views import byol as byol_views
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import carl_setting, solo_asymmetric, solo_cifar, solo_imagenet100, solo_lars
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class ByolSettings(MethodSettings):
    """A frozen dataclass that holds the settings of BYOL."""

    name = "byol"

    hidden: int = 4096
    """Width of the projector's hidden layer."""
    dimension: int = 256
    """Width of the outputs of projector and predictor."""
    predictor_hidden: int = 4096
    """Width of the predictor's hidden layer."""
    momentum: float = 0.996
    """Momentum of the EMA teacher at the start; a cosine raises it to 1."""

    def build(self, encoder):
        from infomax.methods.byol import Byol

        return Byol(encoder, **vars(self))


RECIPES = Experiments("byol")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = ByolSettings(hidden=256, dimension=64, predictor_hidden=256, momentum=0.9)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = ByolSettings(hidden=512, dimension=128, predictor_hidden=512, momentum=0.99)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.565,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
    reported_in("corinfomax-1", "CIFAR-10"),
    reported_in("mira-7", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1 and in MIRA's Table 7, CIFAR-10. Paper: 92.58 % linear
    top-1. Cost: 0.565 EFLOP. Decisions: solo-cifar, solo-views, byol-sum."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.565,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
    reported_in("corinfomax-1", "CIFAR-100"),
    reported_in("mira-7", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1 and in MIRA's Table 7, CIFAR-100. Paper: 70.46 % linear
    top-1. Cost: 0.565 EFLOP. Decisions: solo-cifar, solo-views, byol-sum."""
    return _cifar("cifar100")


@RECIPES.add(
    "imagenet100",
    1.45,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
    reported_in("corinfomax-1", "IN-100 ResNet-18"),
    reported_in("mira-7", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1 and in MIRA's Table 7, ImageNet-100. Paper: 80.32 % linear
    top-1. Cost: 1.45 EFLOP. Decisions: solo-imagenet100, solo-views, byol-sum."""
    settings = ByolSettings(predictor_hidden=8192, momentum=0.99)
    return solo_imagenet100(settings, solo_lars(0.5, 1e-5), byol_views(224))


@RECIPES.add(
    "imagenet",
    83.2,
    reported_in("mveb-1"),
    reported_in("mveb-7", "ResNet-50 (23M)"),
    *map(reported_in, ("mira-2", "mira-3", "mira-4", "mira-5", "mveb-3", "mveb-4-linear", "mveb-4-finetune")),
)
def imagenet() -> Recipe:
    """The paper's run of 1000 epochs, in MVEB's Table 1, Table 3, Table 4 and Table 7 and in MIRA's Table 2, Table 3,
    Table 4 and Table 5. Paper: 74.3 % linear top-1. Cost: 83.2 EFLOP. Decisions: byol-imagenet, byol-sum,
    baseline-encoders."""
    return _imagenet(1000, rate=0.2, weight_decay=1.5e-6, momentum=0.996)


@RECIPES.add("imagenet", 8.32, reported_in("mira-1", "100"), reported_in("corinfomax-1", "IN-1K"))
def imagenet_100() -> Recipe:
    """100 epochs by the official code's settings, in MIRA's Table 1, and in CorInfoMax's Table 1 with another result.
    Paper: 66.5 % linear top-1. Cost: 8.32 EFLOP. Decisions: byol-epochs, simsiam-baselines, byol-imagenet, byol-sum."""
    return _imagenet(100, rate=0.45, weight_decay=1e-6, momentum=0.99)


@RECIPES.add("imagenet", 16.6, reported_in("mira-1", "200"))
def imagenet_200() -> Recipe:
    """200 epochs by the official code's settings for 300, in MIRA's Table 1. Paper: 70.6 % linear top-1. Cost: 16.6
    EFLOP. Decisions: byol-epochs, simsiam-baselines, byol-imagenet, byol-sum."""
    return _imagenet(200, rate=0.3, weight_decay=1e-6, momentum=0.99)


@RECIPES.add("imagenet", 33.3, reported_in("mira-1", "400"))
def imagenet_400() -> Recipe:
    """400 epochs by the official code's settings for 1000, in MIRA's Table 1. Paper: 73.2 % linear top-1. Cost: 33.3
    EFLOP. Decisions: byol-epochs, simsiam-baselines, byol-imagenet, byol-sum."""
    return _imagenet(400, rate=0.2, weight_decay=1.5e-6, momentum=0.996)


@RECIPES.add("imagenet", 66.6, reported_in("mira-1", "800"))
def imagenet_800() -> Recipe:
    """800 epochs by the official code's settings for 1000, in MIRA's Table 1. Paper: 74.3 % linear top-1. Cost: 66.6
    EFLOP. Decisions: byol-epochs, simsiam-baselines, byol-imagenet, byol-sum."""
    return _imagenet(800, rate=0.2, weight_decay=1.5e-6, momentum=0.996)


@RECIPES.add("cifar10", 0.00588, reported_in("carl-1", "CIFAR-10 200"))
def cifar10_carl() -> Recipe:
    """CARL's Table 1, CIFAR-10, 200 epochs. Paper: no number that can be read. Cost: 0.00588 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views, byol-sum."""
    return carl_setting(_carl(), "cifar10")


@RECIPES.add("cifar100", 0.00588, reported_in("carl-1", "CIFAR-100 200"))
def cifar100_carl() -> Recipe:
    """CARL's Table 1, CIFAR-100, 200 epochs. Paper: 45.68 % linear top-1. Cost: 0.00588 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views, byol-sum."""
    return carl_setting(_carl(), "cifar100")


@RECIPES.add("stl10", 0.105, reported_in("carl-1", "STL-10 200"))
def stl10_carl() -> Recipe:
    """CARL's Table 1, STL-10, 200 epochs, 96 pixels. Paper: no number that can be read. Cost: 0.105 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views, byol-sum."""
    return carl_setting(_carl(), "stl10")


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    return solo_cifar(ByolSettings(momentum=0.99), solo_lars(1.0, 1e-5), solo_asymmetric(), data=data)


def _carl() -> ByolSettings:
    """Returns settings with the projector of CARL's recipes, and a predictor like it."""
    return ByolSettings(hidden=512, dimension=128, predictor_hidden=512)


def _imagenet(epochs: int, *, rate: float, weight_decay: float, momentum: float) -> Recipe:
    """Returns a recipe with a ResNet-50, a batch of 4096, LARS, and the learning rate ``rate`` for 256 images."""
    lars = OptimizerSettings(name="lars", learning_rate=rate * 4096 / 256, weight_decay=weight_decay, warmup_epochs=10)
    views = ViewSet(global_crops=byol_views(224))
    return imagenet_recipe(ByolSettings(momentum=momentum), lars, views, batch_size=4096, epochs=epochs)


METHOD = MethodSpec(settings=ByolSettings, recipes=RECIPES, default_for_large_images="imagenet100")
