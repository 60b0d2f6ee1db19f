"""Holds the settings and recipes of VICReg; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import View, ViewSet, byol
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_imagenet100, solo_lars
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class VicRegSettings(MethodSettings):
    """A frozen dataclass that holds the settings of VICReg."""

    name = "vicreg"

    hidden: int = 8192
    """Width of the projector's hidden layers."""
    dimension: int = 8192
    """Width of the projector's output."""
    invariance: float = 25.0
    """Weight of the distance of the views, lambda."""
    variance: float = 25.0
    """Weight of the variance term, mu."""
    covariance: float = 1.0
    """Weight of the covariance term, nu."""

    def build(self, encoder):
        from infomax.methods.vicreg import VicReg

        return VicReg(encoder, **vars(self))


RECIPES = Experiments("vicreg")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = VicRegSettings(hidden=256, dimension=256)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    return small_recipe(VicRegSettings(hidden=512, dimension=512, invariance=12.5), LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.428,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
    reported_in("corinfomax-1", "CIFAR-10"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, CIFAR-10. Paper: 92.07 % linear top-1. Cost: 0.428 EFLOP.
    Decisions: solo-cifar, solo-views, vicreg-means."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.428,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
    reported_in("corinfomax-1", "CIFAR-100"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, CIFAR-100. Paper: 68.54 % linear top-1. Cost: 0.428
    EFLOP. Decisions: solo-cifar, solo-views, vicreg-means."""
    return _cifar("cifar100")


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
    reported_in("corinfomax-1", "IN-100 ResNet-18"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, ImageNet-100. Paper: 79.4 % linear top-1. Cost: 1.08
    EFLOP. Decisions: solo-imagenet100, solo-views, vicreg-means."""
    view = replace(_solo_view(224), blur=0.5)
    return solo_imagenet100(_solo(), solo_lars(0.3, 1e-4), (view, view))


@RECIPES.add("imagenet", 65.2, reported_in("mveb-1"), reported_in("mira-2"), reported_in("mveb-3"))
def imagenet() -> Recipe:
    """The paper's run of 1000 epochs, in MVEB's Table 1 and Table 3 and in MIRA's Table 2. Paper: 73.2 % linear top-1.
    Cost: 65.2 EFLOP. Decisions: vicreg-imagenet, vicreg-means, baseline-encoders."""
    return _imagenet(1000)


@RECIPES.add(
    "imagenet", 6.52, reported_in("mveb-6", "2048"), reported_in("corinfomax-1", "IN-1K"), reported_in("corinfomax-2")
)
def imagenet_100() -> Recipe:
    """100 epochs with batch 2048, in MVEB's Table 6 and in CorInfoMax's Table 1 and Table 2. Paper: 68.6 % linear
    top-1. Cost: 6.52 EFLOP. Decisions: vicreg-batches, vicreg-imagenet, vicreg-means."""
    return _imagenet(100, rate=0.3)


@RECIPES.add("imagenet", 6.52, reported_in("mveb-6", "128"))
def imagenet_100_batch_128() -> Recipe:
    """The paper's run of 100 epochs with batch 128, in MVEB's Table 6. Paper: 67.3 % linear top-1. Cost: 6.52 EFLOP.
    Decisions: vicreg-batches, vicreg-imagenet, vicreg-means."""
    return _imagenet(100, batch_size=128, rate=0.8)


@RECIPES.add("imagenet", 6.52, reported_in("mveb-6", "256"))
def imagenet_100_batch_256() -> Recipe:
    """The paper's run of 100 epochs with batch 256, in MVEB's Table 6. Paper: 67.9 % linear top-1. Cost: 6.52 EFLOP.
    Decisions: vicreg-batches, vicreg-imagenet, vicreg-means."""
    return _imagenet(100, batch_size=256, rate=0.5)


@RECIPES.add("imagenet", 6.52, reported_in("mveb-6", "512"))
def imagenet_100_batch_512() -> Recipe:
    """The paper's run of 100 epochs with batch 512, in MVEB's Table 6. Paper: 68.2 % linear top-1. Cost: 6.52 EFLOP.
    Decisions: vicreg-batches, vicreg-imagenet, vicreg-means."""
    return _imagenet(100, batch_size=512, rate=0.4)


@RECIPES.add("imagenet", 6.52, reported_in("mveb-6", "1024"))
def imagenet_100_batch_1024() -> Recipe:
    """The paper's run of 100 epochs with batch 1024, in MVEB's Table 6. Paper: 68.3 % linear top-1. Cost: 6.52 EFLOP.
    Decisions: vicreg-batches, vicreg-imagenet, vicreg-means."""
    return _imagenet(100, batch_size=1024, rate=0.3)


@RECIPES.add("imagenet", 6.51, reported_in("mveb-6", "4096"))
def imagenet_100_batch_4096() -> Recipe:
    """The paper's run of 100 epochs with batch 4096, in MVEB's Table 6. Paper: 67.8 % linear top-1. Cost: 6.51 EFLOP.
    Decisions: vicreg-batches, vicreg-imagenet, vicreg-means."""
    return _imagenet(100, batch_size=4096, rate=0.3)


def _solo() -> VicRegSettings:
    """Returns the settings of solo-learn, whose variance term is twice ours at its weight of 25."""
    return VicRegSettings(hidden=2048, dimension=2048, variance=50.0)


def _solo_view(size: int) -> View:
    """Returns solo-learn's view for VICReg without its blur; both views are alike."""
    return View(size=size, scale=(0.2, 1.0), solarize=0.1)


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    return solo_cifar(_solo(), solo_lars(0.3, 1e-4), (_solo_view(32), _solo_view(32)), data=data)


def _imagenet(epochs: int, *, batch_size: int = 2048, rate: float = 0.2) -> Recipe:
    """Returns a recipe with a ResNet-50, LARS, and the learning rate ``rate`` for 256 images."""
    peak = rate * batch_size / 256
    lars = OptimizerSettings(name="lars", learning_rate=peak, weight_decay=1e-6, warmup_epochs=10, end=peak / 1000)
    views = ViewSet(global_crops=byol(224))
    return imagenet_recipe(VicRegSettings(), lars, views, batch_size=batch_size, epochs=epochs)


METHOD = MethodSpec(settings=VicRegSettings, recipes=RECIPES, default_for_large_images="imagenet100")
