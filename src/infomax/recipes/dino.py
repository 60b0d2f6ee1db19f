"""Holds the settings and recipes of DINO; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass

from infomax.data.augmentation.views import ViewSet, byol
from infomax.data.augmentation.views import dino as dino_views
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_asymmetric, solo_cifar, solo_imagenet100, solo_lars
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class DinoSettings(MethodSettings):
    """A frozen dataclass that holds the settings of DINO."""

    name = "dino"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers of the projector."""
    dimension: int = 256
    """Width of the projector's output."""
    prototypes: int = 65536
    """Number of prototypes."""
    projector_norm: bool = False
    """Whether the projector's hidden layers have BatchNorm."""
    student_temperature: float = 0.1
    """Temperature of the student."""
    temperature_start: float = 0.04
    """Temperature of the teacher in the first epoch."""
    temperature_end: float = 0.07
    """Temperature of the teacher after its warm-up."""
    temperature_epochs: int = 30
    """Epochs of the warm-up of the teacher's temperature."""
    centre_momentum: float = 0.9
    """Momentum of the centre of the teacher's scores."""
    momentum: float = 0.996
    """Momentum of the EMA teacher at the start."""
    freeze_prototypes_epochs: int = 1
    """Epochs at the start in which the prototypes stay as they were drawn."""

    def build(self, encoder):
        from infomax.methods.dino import Dino

        return Dino(encoder, **vars(self))


RECIPES = Experiments("dino")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = DinoSettings(hidden=256, dimension=64, prototypes=100, momentum=0.9, projector_norm=True)
    return digits_recipe(settings, SMALL_OPTIMIZER)


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    settings = DinoSettings(hidden=512, dimension=128, prototypes=300, momentum=0.9, projector_norm=True)
    return small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.567,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
    reported_in("mira-7", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and MIRA's Table 7, CIFAR-10. Paper: 89.52 % linear top-1. Cost: 0.567
    EFLOP. Decisions: solo-cifar, solo-views, dino-solo."""
    return solo_cifar(_solo_settings(), solo_lars(0.3, 1e-6), solo_asymmetric(), data="cifar10")


@RECIPES.add(
    "cifar100",
    0.567,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
    reported_in("mira-7", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and MIRA's Table 7, CIFAR-100. Paper: 66.76 % linear top-1. Cost:
    0.567 EFLOP. Decisions: solo-cifar, solo-views, dino-solo."""
    return solo_cifar(_solo_settings(), solo_lars(0.3, 1e-6), solo_asymmetric(), data="cifar100")


@RECIPES.add(
    "imagenet100",
    1.45,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
    reported_in("mira-7", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and MIRA's Table 7, ImageNet-100. Paper: 74.92 % linear top-1. Cost:
    1.45 EFLOP. Decisions: solo-imagenet100, solo-views, dino-solo."""
    return solo_imagenet100(_solo_settings(), solo_lars(0.3, 1e-6), byol(224))


@RECIPES.add("imagenet", 95.1, *map(reported_in, ("mira-2", "mira-3", "mveb-1", "mveb-3")))
def imagenet_multicrop_800() -> Recipe:
    """The official run of a ResNet-50 for 800 epochs, in MIRA's Table 2 and Table 3 and in MVEB's Table 1 and Table 3.
    Paper: 75.3 % linear top-1. Cost: 95.1 EFLOP. Decisions: dino-imagenet, baseline-encoders."""
    settings = DinoSettings(hidden=4096, hidden_layers=1, prototypes=60000, projector_norm=True, temperature_epochs=50)
    rate = 0.3 * 4096 / 256
    lars = OptimizerSettings(name="lars", learning_rate=rate, end=0.0048, weight_decay=1e-6, warmup_epochs=10)
    crops = dino_views(224, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    views = ViewSet(global_crops=crops[0], local_crops=crops[1])
    return imagenet_recipe(settings, lars, views, batch_size=4096, epochs=800)


def _solo_settings() -> DinoSettings:
    """Returns solo-learn's settings, whose teacher moves more slowly, as its batch is small."""
    return DinoSettings(prototypes=4096, momentum=0.9995, temperature_epochs=50)


METHOD = MethodSpec(settings=DinoSettings, recipes=RECIPES, default_for_large_images="imagenet_multicrop_800")
