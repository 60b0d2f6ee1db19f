"""Holds the settings and recipes of SimCLR; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import ViewSet, simclr
from infomax.recipes import mveb
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_lars, solo_strong
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class SimClrSettings(MethodSettings):
    """A frozen dataclass that holds the settings of SimCLR."""

    name = "simclr"

    hidden: int = 2048
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    hidden_norm: bool = True
    """Whether the projector's hidden layer has BatchNorm."""
    output_norm: bool = True
    """Whether the projector ends with BatchNorm."""
    temperature: float = 0.1
    """Temperature of the loss."""

    def build(self, encoder):
        from infomax.methods.simclr import SimClr

        return SimClr(encoder, **vars(self))


RECIPES = Experiments("simclr")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = SimClrSettings(hidden=256, dimension=64, output_norm=False, temperature=0.2)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = SimClrSettings(hidden=512, dimension=128, output_norm=False, temperature=0.2)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.422,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-10. Paper: 90.74 % linear top-1. Cost: 0.422 EFLOP. Decisions:
    solo-cifar, simclr-mean."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.422,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-100. Paper: 65.78 % linear top-1. Cost: 0.422 EFLOP. Decisions:
    solo-cifar, simclr-mean."""
    return _cifar("cifar100")


@RECIPES.add("cifar10", 0.0665, reported_in("mveb-text-7.6"))
def cifar10_200() -> Recipe:
    """MVEB's Sec. 7.6, CIFAR-10, from Haoqing Wang's code. Paper: 85.76 % linear top-1. Cost: 0.0665 EFLOP. Decisions:
    mveb-cifar."""
    settings = SimClrSettings(hidden=512, hidden_norm=False, output_norm=False, temperature=0.5)
    return replace(mveb.cifar10(), method=settings)


@RECIPES.add("imagenet", 62.2, reported_in("mveb-1"))
def imagenet() -> Recipe:
    """The paper's run of 1000 epochs, in MVEB's Table 1. Paper: 69.3 % linear top-1. Cost: 62.2 EFLOP. Decisions:
    simclr-imagenet, simclr-mean."""
    rate = 0.3 * 4096 / 256
    lars = OptimizerSettings(name="lars", learning_rate=rate, weight_decay=1e-6, warmup_epochs=10)
    return imagenet_recipe(SimClrSettings(), lars, ViewSet(global_crops=simclr(224)), batch_size=4096, epochs=1000)


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    settings = SimClrSettings(hidden=2048, dimension=256, output_norm=False, temperature=0.2)
    return solo_cifar(settings, solo_lars(0.4, 1e-4), solo_strong(), data=data)


METHOD = MethodSpec(settings=SimClrSettings, recipes=RECIPES, default_for_large_images="imagenet")
