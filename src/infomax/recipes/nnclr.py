"""Holds the settings and recipes of NNCLR; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.data.augmentation.views import byol as byol_views
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import solo_asymmetric, solo_cifar, solo_imagenet100, solo_lars
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class NnclrSettings(MethodSettings):
    """A frozen dataclass that holds the settings of NNCLR."""

    name = "nnclr"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 256
    """Width of the outputs of projector and predictor."""
    predictor_hidden: int = 4096
    """Width of the predictor's hidden layer."""
    temperature: float = 0.1
    """Temperature of the loss."""
    queue_size: int = 98304
    """Number of embeddings of earlier batches in which neighbours are looked for."""

    def build(self, encoder):
        from infomax.methods.nnclr import Nnclr

        return Nnclr(encoder, **vars(self))


RECIPES = Experiments("nnclr")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = NnclrSettings(hidden=256, dimension=64, predictor_hidden=256, temperature=0.2, queue_size=1024)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = NnclrSettings(hidden=512, dimension=128, predictor_hidden=512, temperature=0.2, queue_size=8192)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("cifar10", 0.429, reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"))
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-10. Paper: 91.88 % linear top-1. Cost: 0.429 EFLOP. Decisions:
    solo-cifar, solo-views, nnclr-loss."""
    return solo_cifar(_solo(), solo_lars(0.4, 1e-5), solo_asymmetric(), data="cifar10")


@RECIPES.add("cifar100", 0.429, reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"))
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-100. Paper: 69.62 % linear top-1. Cost: 0.429 EFLOP. Decisions:
    solo-cifar, solo-views, nnclr-loss."""
    return solo_cifar(_solo(), solo_lars(0.4, 1e-5), solo_asymmetric(), data="cifar100")


@RECIPES.add("imagenet100", 1.09, reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"))
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, ImageNet-100. Paper: 80.16 % linear top-1. Cost: 1.09 EFLOP.
    Decisions: solo-views, nnclr-loss."""
    return solo_imagenet100(_solo(), solo_lars(0.4, 1e-5), byol_views(224))


def _solo() -> NnclrSettings:
    """Returns the settings of solo-learn's runs."""
    return NnclrSettings(temperature=0.2, queue_size=65536)


METHOD = MethodSpec(settings=NnclrSettings, recipes=RECIPES, default_for_large_images="imagenet100")
