"""Holds the settings and recipes of SimCLR; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import ViewSet, simclr
from infomax.recipes import mveb
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import carl_setting, solo_cifar, solo_imagenet100, solo_lars, solo_strong
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class SimClrSettings(MethodSettings):
    """A frozen dataclass that holds the settings of SimCLR."""

    name = "simclr"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    hidden_layers: int = 1
    """Number of hidden layers of the projector."""
    dimension: int = 128
    """Width of the projector's output."""
    hidden_norm: bool = True
    """Whether the projector's hidden layers have BatchNorm."""
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
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings."""
    settings = SimClrSettings(hidden=512, dimension=128, output_norm=False, temperature=0.1)
    return small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs)


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


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"),
    reported_in("corinfomax-1", "IN-100 ResNet-18"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and Table 1, ImageNet-100. Paper: 77.48 % linear top-1. Cost: 1.08
    EFLOP. Decisions: simclr-solo, solo-imagenet100, simclr-mean."""
    settings = SimClrSettings(output_norm=False, temperature=0.2)
    return solo_imagenet100(settings, solo_lars(0.3, 1e-4), simclr(224))


@RECIPES.add("cifar10", 0.00439, reported_in("carl-1", "CIFAR-10 200"))
def cifar10_carl() -> Recipe:
    """CARL's Table 1, CIFAR-10, 200 epochs. Paper: no number that can be read. Cost: 0.00439 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views, simclr-mean."""
    return carl_setting(_carl(temperature=0.5), "cifar10")


@RECIPES.add("cifar100", 0.00439, reported_in("carl-1", "CIFAR-100 200"))
def cifar100_carl() -> Recipe:
    """CARL's Table 1, CIFAR-100, 200 epochs. Paper: 47.29 % linear top-1. Cost: 0.00439 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views, simclr-mean."""
    return carl_setting(_carl(temperature=0.5), "cifar100")


@RECIPES.add("stl10", 0.0782, reported_in("carl-1", "STL-10 200"))
def stl10_carl() -> Recipe:
    """CARL's Table 1, STL-10, 200 epochs, 96 pixels. Paper: no number that can be read. Cost: 0.0782 EFLOP. Decisions:
    carl-baselines, carl-table, carl-unstated, carl-views, simclr-mean."""
    return carl_setting(_carl(temperature=0.1), "stl10")


@RECIPES.add("cifar10", 0.0665, reported_in("mveb-text-7.6"))
def cifar10_200() -> Recipe:
    """MVEB's Sec. 7.6, CIFAR-10, from Haoqing Wang's code. Paper: 85.76 % linear top-1. Cost: 0.0665 EFLOP. Decisions:
    mveb-cifar."""
    settings = SimClrSettings(hidden=512, hidden_norm=False, output_norm=False, temperature=0.5)
    return replace(mveb.cifar10(), method=settings)


@RECIPES.add(
    "imagenet",
    62.2,
    reported_in("mveb-1"),
    reported_in("mveb-7", "ResNet-50 (23M)"),
    *map(reported_in, ("mveb-3", "mveb-4-linear", "mveb-4-finetune", "mira-4")),
)
def imagenet() -> Recipe:
    """The paper's run of 1000 epochs, in MVEB's Table 1, Table 3, Table 4 and Table 7 and in MIRA's Table 4. Paper:
    69.3 % linear top-1. Cost: 62.2 EFLOP. Decisions: simclr-imagenet, simclr-mean, baseline-encoders."""
    return _imagenet(1000)


@RECIPES.add("imagenet", 6.23, reported_in("mveb-6", "256"))
def imagenet_100_batch_256() -> Recipe:
    """The paper's run of 100 epochs with batch 256, in MVEB's Table 6. Paper: 57.5 % linear top-1. Cost: 6.23 EFLOP.
    Decisions: simclr-batches, simclr-imagenet, simclr-mean."""
    return _imagenet(100, batch_size=256)


@RECIPES.add("imagenet", 6.23, reported_in("mveb-6", "512"))
def imagenet_100_batch_512() -> Recipe:
    """The paper's run of 100 epochs with batch 512, in MVEB's Table 6. Paper: 60.7 % linear top-1. Cost: 6.23 EFLOP.
    Decisions: simclr-batches, simclr-imagenet, simclr-mean."""
    return _imagenet(100, batch_size=512)


@RECIPES.add("imagenet", 6.23, reported_in("mveb-6", "1024"))
def imagenet_100_batch_1024() -> Recipe:
    """The paper's run of 100 epochs with batch 1024, in MVEB's Table 6. Paper: 62.8 % linear top-1. Cost: 6.23 EFLOP.
    Decisions: simclr-batches, simclr-imagenet, simclr-mean."""
    return _imagenet(100, batch_size=1024)


@RECIPES.add("imagenet", 6.23, reported_in("mveb-6", "2048"))
def imagenet_100_batch_2048() -> Recipe:
    """The paper's run of 100 epochs with batch 2048, in MVEB's Table 6. Paper: 64 % linear top-1. Cost: 6.23 EFLOP.
    Decisions: simclr-batches, simclr-imagenet, simclr-mean."""
    return _imagenet(100, batch_size=2048)


@RECIPES.add("imagenet", 6.22, reported_in("mveb-6", "4096"))
def imagenet_100_batch_4096() -> Recipe:
    """The paper's run of 100 epochs with batch 4096, in MVEB's Table 6. Paper: 64.6 % linear top-1. Cost: 6.22 EFLOP.
    Decisions: simclr-batches, simclr-imagenet, simclr-mean."""
    return _imagenet(100)


@RECIPES.add("imagenet", 6.22, reported_in("mira-1", "100"), reported_in("corinfomax-1", "IN-1K"))
def imagenet_100_three_layers() -> Recipe:
    """100 epochs as SimSiam's authors trained it, in MIRA's Table 1 and CorInfoMax's Table 1. Paper: 66.5 % linear
    top-1. Cost: 6.22 EFLOP. Decisions: simsiam-baselines, simclr-imagenet, simclr-mean."""
    return _imagenet(100, hidden_layers=2)


@RECIPES.add("imagenet", 12.4, reported_in("mira-1", "200"))
def imagenet_200_three_layers() -> Recipe:
    """200 epochs as SimSiam's authors trained it, in MIRA's Table 1. Paper: 68.3 % linear top-1. Cost: 12.4 EFLOP.
    Decisions: simsiam-baselines, simclr-imagenet, simclr-mean."""
    return _imagenet(200, hidden_layers=2)


@RECIPES.add("imagenet", 24.9, reported_in("mira-1", "400"))
def imagenet_400_three_layers() -> Recipe:
    """400 epochs as SimSiam's authors trained it, in MIRA's Table 1. Paper: 69.8 % linear top-1. Cost: 24.9 EFLOP.
    Decisions: simsiam-baselines, simclr-imagenet, simclr-mean."""
    return _imagenet(400, hidden_layers=2)


@RECIPES.add("imagenet", 49.8, reported_in("mira-1", "800"))
def imagenet_800_three_layers() -> Recipe:
    """800 epochs as SimSiam's authors trained it, in MIRA's Table 1. Paper: 70.4 % linear top-1. Cost: 49.8 EFLOP.
    Decisions: simsiam-baselines, simclr-imagenet, simclr-mean."""
    return _imagenet(800, hidden_layers=2)


def _imagenet(epochs: int, *, batch_size: int = 4096, hidden_layers: int = 1) -> Recipe:
    """Returns a recipe with a ResNet-50, by LARS whose rate is .3 for 256 images and grows with the batch."""
    rate = 0.3 * batch_size / 256
    lars = OptimizerSettings(name="lars", learning_rate=rate, weight_decay=1e-6, warmup_epochs=10)
    settings = SimClrSettings(hidden_layers=hidden_layers)
    return imagenet_recipe(settings, lars, ViewSet(global_crops=simclr(224)), batch_size=batch_size, epochs=epochs)


def _carl(temperature: float) -> SimClrSettings:
    """Returns settings with the projector of CARL's recipes."""
    return SimClrSettings(hidden=512, output_norm=False, temperature=temperature)


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    settings = SimClrSettings(hidden=2048, dimension=256, output_norm=False, temperature=0.2)
    return solo_cifar(settings, solo_lars(0.4, 1e-4), solo_strong(), data=data)


METHOD = MethodSpec(settings=SimClrSettings, recipes=RECIPES, default_for_large_images="imagenet")
