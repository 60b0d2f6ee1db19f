"""Holds the settings and recipes of MoCo v3; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import View, ViewSet, byol
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_imagenet100, solo_lars
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MocoV3Settings(MethodSettings):
    """A frozen dataclass that holds the settings of MoCo v3."""

    name = "mocov3"

    hidden: int = 4096
    """Width of the hidden layers of projector and predictor."""
    dimension: int = 256
    """Width of the outputs of projector and predictor."""
    projector_layers: int = 2
    """Linear layers of the projector; 3 for a vision transformer."""
    predictor_norm: bool = False
    """Whether the predictor ends with BatchNorm, as for a vision transformer."""
    temperature: float = 1.0
    """Temperature of the loss."""
    momentum: float = 0.99
    """Momentum of the EMA teacher at the start; a cosine raises it to 1."""

    def build(self, encoder):
        from infomax.methods.moco import MocoV3

        return MocoV3(encoder, **vars(self))


RECIPES = Experiments("mocov3")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = MocoV3Settings(hidden=256, dimension=64, temperature=0.2)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    settings = MocoV3Settings(hidden=512, dimension=128, temperature=0.1)
    return small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add("cifar10", 0.565)
def cifar10() -> Recipe:
    """solo-learn's run for CIFAR-10, for which it reports 93.1 %. Cost: 0.565 EFLOP. Decisions: solo-cifar,
    solo-views, mocov3-solo."""
    return _cifar("cifar10")


@RECIPES.add("cifar100", 0.565)
def cifar100() -> Recipe:
    """solo-learn's run for CIFAR-100, for which it reports 68.83 %. Cost: 0.565 EFLOP. Decisions: solo-cifar,
    solo-views, mocov3-solo."""
    return _cifar("cifar100")


@RECIPES.add("imagenet100", 1.45)
def imagenet100() -> Recipe:
    """solo-learn's run for ImageNet-100, for which it reports 80.36 %. Cost: 1.45 EFLOP. Decisions: solo-views,
    mocov3-solo."""
    return solo_imagenet100(MocoV3Settings(temperature=0.2), solo_lars(0.3, 1e-6), _wide(byol(224)))


@RECIPES.add("imagenet", 8.32, reported_in("mira-1", "100", row="MoCo v3"))
def imagenet_100() -> Recipe:
    """The paper's run of 100 epochs, in MIRA's Table 1. Paper: 68.9 % linear top-1. Cost: 8.32 EFLOP. Decisions:
    mocov3-imagenet."""
    return _imagenet(100, rate=0.6)


@RECIPES.add("imagenet", 25)
def imagenet_300() -> Recipe:
    """The official code's run of 300 epochs, for which it reports 72.8 %. Cost: 25 EFLOP. Decisions:
    mocov3-imagenet."""
    return _imagenet(300, rate=0.3)


@RECIPES.add(
    "imagenet",
    66.6,
    reported_in("mira-1", "800", row="MoCo v3"),
    reported_in("mveb-7", "ResNet-50 (23M)", row="MoCo v3"),
)
def imagenet_800() -> Recipe:
    """The paper's run of 800 epochs, in MIRA's Table 1 and MVEB's Table 7. Paper: 73.8 % linear top-1. Cost: 66.6
    EFLOP. Decisions: mocov3-imagenet, mocov3-800."""
    return _imagenet(800, rate=0.3, decay=1.5e-6, momentum=0.996)


@RECIPES.add("imagenet", 83.2, reported_in("mira-2", row="MoCo v3"))
def imagenet_1000() -> Recipe:
    """The official code's run of 1000 epochs, in MIRA's Table 2. Paper: 74.6 % linear top-1. Cost: 83.2 EFLOP.
    Decisions: mocov3-imagenet."""
    return _imagenet(1000, rate=0.3, decay=1.5e-6, momentum=0.996)


@RECIPES.add("imagenet", 28.4, reported_in("mveb-7", "ViT-s (21M)", row="MoCo v3"))
def imagenet_vit() -> Recipe:
    """The paper's run of ViT-S/16, in MVEB's Table 7. Paper: 72.5 % linear top-1. Cost: 28.4 EFLOP. Decisions:
    mocov3-imagenet, mocov3-vit."""
    settings = MocoV3Settings(projector_layers=3, predictor_norm=True, temperature=0.2)
    adamw = OptimizerSettings(
        name="adamw", learning_rate=1.5e-4 * 4096 / 256, weight_decay=0.1, decay_all=True, warmup_epochs=40
    )
    views = ViewSet(global_crops=_bilinear(byol(224)))
    recipe = imagenet_recipe(settings, adamw, views, batch_size=4096, epochs=300)
    return replace(recipe, encoder=EncoderSettings(backbone="vit_small", stem="imagenet"))


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    first, second = _wide(byol(32))
    views = replace(first, saturation=0.4), replace(second, saturation=0.4)
    return solo_cifar(MocoV3Settings(temperature=0.2), solo_lars(0.3, 1e-6), views, data=data)


def _imagenet(epochs: int, *, rate: float, decay: float = 1e-6, momentum: float = 0.99) -> Recipe:
    """Returns a recipe of the official code for ResNet-50.

    Args:
        epochs: Passes over the images.
        rate: Learning rate for 256 images.
        decay: Weight decay.
        momentum: EMA momentum of the teacher at the start.
    """
    lars = OptimizerSettings(name="lars", learning_rate=rate * 4096 / 256, weight_decay=decay, warmup_epochs=10)
    crops = _wide(_bilinear(byol(224)))
    settings = MocoV3Settings(momentum=momentum)
    return imagenet_recipe(settings, lars, ViewSet(global_crops=crops), batch_size=4096, epochs=epochs)


def _wide(views: tuple[View, View]) -> tuple[View, View]:
    """Returns views whose crops take a fifth of the area or more."""
    first, second = views
    return replace(first, scale=(0.2, 1.0)), replace(second, scale=(0.2, 1.0))


def _bilinear(views: tuple[View, View]) -> tuple[View, View]:
    """Returns views that are interpolated as torchvision does unless told otherwise."""
    first, second = views
    return replace(first, bicubic=False), replace(second, bicubic=False)


METHOD = MethodSpec(settings=MocoV3Settings, recipes=RECIPES, default_for_large_images="imagenet_100")
