"""Holds the settings and recipes of CARL; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_MEAN,
    CIFAR100_STD,
    STL10_MEAN,
    STL10_STD,
    Preprocessing,
    ViewSet,
    simclr,
)
from infomax.recipes.cpu import IMAGES_SEEN, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class CarlSettings(MethodSettings):
    """A frozen dataclass that holds the settings of CARL."""

    name = "carl"

    hidden: int = 512
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    prototypes: int = 100
    """Number of clusters."""
    kl_start: float = 4.0
    """Weight of the uniformity loss at the start."""
    kl_end: float = 1.5
    """Weight of the uniformity loss from ``kl_epochs`` on."""
    kl_epochs: int = 100
    """Epochs over which the weight falls."""
    kl_decay: str = "linear"
    """Along what the weight falls: linear, exponential or cosine."""

    def build(self, encoder):
        from infomax.methods.carl import Carl

        return Carl(encoder, **vars(self))


RECIPES = Experiments("carl")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the demo: the small encoder learns from the embedded digits. Decisions: cpu-recipes."""
    settings = CarlSettings(hidden=256, dimension=64, prototypes=50, kl_epochs=20)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = CarlSettings(kl_epochs=max(1, epochs // 2))
    sgd = OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4)
    return small_recipe(settings, sgd, epochs=epochs, batch_size=256)


@RECIPES.add("cifar10", 0.00438, reported_in("carl-1", "CIFAR-10 200"))
def cifar10() -> Recipe:
    """Table 1, CIFAR-10, 200 epochs. Paper: no number that can be read. Cost: 0.00438 EFLOP. Decisions: carl-table,
    carl-unstated, carl-projector, carl-views."""
    return _cifar(CIFAR10_MEAN, CIFAR10_STD, prototypes=100)


@RECIPES.add("cifar100", 0.00439, reported_in("carl-1", "CIFAR-100 200"))
def cifar100() -> Recipe:
    """Table 1, CIFAR-100, 200 epochs. Paper: 46.23 % linear top-1, uncertain. Cost: 0.00439 EFLOP. Decisions:
    carl-table, carl-unstated, carl-projector, carl-views."""
    return _cifar(CIFAR100_MEAN, CIFAR100_STD, prototypes=1000)


@RECIPES.add("cifar10", 0.00328)
def cifar10_150() -> Recipe:
    """Figure 3, CIFAR-10, 150 epochs, to be varied in method.prototypes. Paper: no number that can be read. Cost:
    0.00328 EFLOP. Decisions: carl-figures, carl-unstated, carl-projector, carl-views."""
    return replace(cifar10(), epochs=150)


@RECIPES.add("cifar100", 0.00329)
def cifar100_150() -> Recipe:
    """Figure 3, CIFAR-100, 150 epochs, to be varied in method.prototypes. Paper: no number that can be read. Cost:
    0.00329 EFLOP. Decisions: carl-figures, carl-unstated, carl-projector, carl-views."""
    return replace(cifar100(), epochs=150)


@RECIPES.add("stl10", 0.0782, reported_in("carl-1", "STL-10 200"))
def stl10() -> Recipe:
    """Table 1, STL-10, 200 epochs, 96 pixels, and Figure 2, the weight that falls from 2 to 1. Paper: no number that
    can be read. Cost: 0.0782 EFLOP. Decisions: carl-table, carl-unstated, carl-projector, carl-views."""
    return _stl10(start=2.0, end=1.0)


@RECIPES.add("stl10", 0.0782)
def stl10_constant_1() -> Recipe:
    """Figure 2, STL-10, a constant weight of 1. Paper: no number that can be read. Cost: 0.0782 EFLOP. Decisions:
    carl-figures, carl-unstated, carl-projector, carl-views."""
    return _stl10(start=1.0, end=1.0)


@RECIPES.add("stl10", 0.0782)
def stl10_constant_2() -> Recipe:
    """Figure 2, STL-10, a constant weight of 2. Paper: no number that can be read. Cost: 0.0782 EFLOP. Decisions:
    carl-figures, carl-unstated, carl-projector, carl-views."""
    return _stl10(start=2.0, end=2.0)


def _cifar(mean: tuple[float, float, float], std: tuple[float, float, float], *, prototypes: int) -> Recipe:
    """Returns a recipe with a ResNet-18 for a CIFAR data set with these means and deviations."""
    return Recipe(
        method=CarlSettings(prototypes=prototypes),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet", zero_init_residual=False),
        views=ViewSet(global_crops=simclr(32), mean=mean, std=std),
        preprocessing=Preprocessing(resize=32, size=32, mean=mean, std=std),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.03, weight_decay=1e-4, decay_all=True),
        batch_size=256,
        epochs=200,
    )


def _stl10(*, start: float, end: float) -> Recipe:
    """Returns a recipe for STL-10 with a weight of the uniformity loss that goes from ``start`` to ``end``."""
    return replace(
        _cifar(CIFAR10_MEAN, CIFAR10_STD, prototypes=100),
        method=CarlSettings(kl_start=start, kl_end=end),
        views=ViewSet(global_crops=simclr(96), mean=STL10_MEAN, std=STL10_STD),
        preprocessing=Preprocessing(resize=96, size=96, mean=STL10_MEAN, std=STL10_STD),
    )


METHOD = MethodSpec(
    settings=CarlSettings,
    recipes=RECIPES,
    default_for_large_images="stl10",
    paper="CARL",
    conditions={name: name for name in ("dimension", "prototypes", "kl_start", "kl_end", "kl_epochs")},
)
