"""Holds the settings and recipes of SimSiam; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import View, ViewSet, moco, simclr
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_imagenet100
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class SimSiamSettings(MethodSettings):
    """A frozen dataclass that holds the settings of SimSiam."""

    name = "simsiam"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 2048
    """Width of the outputs of projector and predictor."""
    predictor_hidden: int = 512
    """Width of the predictor's hidden layer."""

    def build(self, encoder):
        from infomax.methods.simsiam import SimSiam

        return SimSiam(encoder, **vars(self))


RECIPES = Experiments("simsiam")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = SimSiamSettings(hidden=256, dimension=256, predictor_hidden=64)
    sgd = OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4, constant_predictor=True)
    return digits_recipe(settings, sgd)


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    settings = SimSiamSettings(hidden=512, dimension=512, predictor_hidden=128)
    sgd = replace(SMALL_OPTIMIZER, name="sgd", learning_rate=0.1, constant_predictor=True)
    return small_recipe(settings, sgd, epochs=epochs)


@RECIPES.add("cifar10", 0.428, reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"))
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-10. Paper: 90.51 % linear top-1. Cost: 0.428 EFLOP. Decisions:
    solo-cifar, solo-views."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.428,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
    reported_in("corinfomax-1", "CIFAR-100"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, CIFAR-100. Paper: 66.04 % linear top-1. Cost: 0.428
    EFLOP. Decisions: solo-cifar, solo-views."""
    return _cifar("cifar100")


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
    reported_in("corinfomax-1", "IN-100 ResNet-18"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, ImageNet-100. Paper: 78.72 % linear top-1. Cost: 1.08
    EFLOP. Decisions: solo-imagenet100, solo-views."""
    view = View(size=224, saturation=0.4, blur=0.5)
    return solo_imagenet100(SimSiamSettings(), _solo_sgd(), (view, view))


@RECIPES.add(
    "imagenet",
    50,
    reported_in("mveb-1"),
    reported_in("mira-1", "800"),
    reported_in("mira-2"),
)
def imagenet() -> Recipe:
    """The paper's run of 800 epochs, in MVEB's Table 1 and in MIRA's Table 1 and Table 2. Paper: 71.3 % linear top-1.
    Cost: 50 EFLOP. Decisions: simsiam-imagenet."""
    return _imagenet(800)


@RECIPES.add("imagenet", 25, reported_in("mira-1", "400"))
def imagenet_400() -> Recipe:
    """The paper's run of 400 epochs, in MIRA's Table 1. Paper: 70.8 % linear top-1. Cost: 25 EFLOP. Decisions:
    simsiam-imagenet."""
    return _imagenet(400)


@RECIPES.add("imagenet", 12.5, reported_in("mira-1", "200"))
def imagenet_200() -> Recipe:
    """The paper's run of 200 epochs, in MIRA's Table 1. Paper: 70 % linear top-1. Cost: 12.5 EFLOP. Decisions:
    simsiam-imagenet."""
    return _imagenet(200)


@RECIPES.add("imagenet", 6.25, reported_in("mveb-6", "128"))
def imagenet_100_batch_128() -> Recipe:
    """The paper's run of 100 epochs with batch 128, in MVEB's Table 6. Paper: 67.3 % linear top-1. Cost: 6.25 EFLOP.
    Decisions: simsiam-imagenet."""
    return _imagenet(100, batch_size=128)


@RECIPES.add(
    "imagenet",
    6.24,
    reported_in("mveb-6", "256"),
    reported_in("mira-1", "100"),
    reported_in("corinfomax-1", "IN-1K"),
)
def imagenet_100() -> Recipe:
    """The paper's run of 100 epochs with batch 256, in MVEB's Table 6, MIRA's Table 1 and CorInfoMax's Table 1. Paper:
    68.1 % linear top-1. Cost: 6.24 EFLOP. Decisions: simsiam-imagenet."""
    return _imagenet(100)


@RECIPES.add("imagenet", 6.24, reported_in("mveb-6", "512"))
def imagenet_100_batch_512() -> Recipe:
    """The paper's run of 100 epochs with batch 512, the official code's, in MVEB's Table 6. Paper: 68.1 % linear top-1.
    Cost: 6.24 EFLOP. Decisions: simsiam-imagenet."""
    return _imagenet(100, batch_size=512)


@RECIPES.add("imagenet", 6.24, reported_in("mveb-6", "1024"))
def imagenet_100_batch_1024() -> Recipe:
    """The paper's run of 100 epochs with batch 1024, in MVEB's Table 6. Paper: 68 % linear top-1. Cost: 6.24 EFLOP.
    Decisions: simsiam-warmup, simsiam-imagenet."""
    return _imagenet(100, batch_size=1024)


@RECIPES.add("imagenet", 6.24, reported_in("mveb-6", "2048"))
def imagenet_100_batch_2048() -> Recipe:
    """The paper's run of 100 epochs with batch 2048, in MVEB's Table 6. Paper: 67.9 % linear top-1. Cost: 6.24 EFLOP.
    Decisions: simsiam-warmup, simsiam-imagenet."""
    return _imagenet(100, batch_size=2048)


@RECIPES.add("imagenet", 6.23, reported_in("mveb-6", "4096"))
def imagenet_100_batch_4096() -> Recipe:
    """The paper's run of 100 epochs with batch 4096, in MVEB's Table 6. Paper: 64 % linear top-1. Cost: 6.23 EFLOP.
    Decisions: simsiam-warmup, simsiam-imagenet."""
    return _imagenet(100, batch_size=4096)


def _solo_sgd() -> OptimizerSettings:
    """Returns solo-learn's SGD, which decays biases and normalisation layers too."""
    return OptimizerSettings(
        name="sgd", learning_rate=0.5, weight_decay=1e-5, decay_all=True, warmup_epochs=10, constant_predictor=True
    )


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    return solo_cifar(SimSiamSettings(), _solo_sgd(), simclr(32), data=data, zero_init_residual=True)


def _imagenet(epochs: int, *, batch_size: int = 256) -> Recipe:
    """Returns a recipe with a ResNet-50, by SGD whose rate grows with the batch."""
    warmed_up = batch_size >= 1024
    sgd = OptimizerSettings(
        name="sgd",
        learning_rate=0.05 * batch_size / 256,
        weight_decay=1e-4,
        decay_all=True,
        warmup_epochs=10 if warmed_up else 0,
        per_epoch=not warmed_up,
        constant_predictor=True,
    )
    views = ViewSet(global_crops=moco(224))
    return imagenet_recipe(SimSiamSettings(), sgd, views, batch_size=batch_size, epochs=epochs)


METHOD = MethodSpec(settings=SimSiamSettings, recipes=RECIPES, default_for_large_images="imagenet100")
