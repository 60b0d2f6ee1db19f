"""Holds the settings and recipes of DeepCluster-v2; a recipe's docstring has the fields that :class:`Experiment`
lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import ViewSet, simclr, swav
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_imagenet100, solo_lars, solo_strong
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class DeepClusterSettings(MethodSettings):
    """A frozen dataclass that holds the settings of DeepCluster-v2."""

    name = "deepcluster"

    hidden: int = 2048
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    heads: int = 3
    """Number of clusterings, each with centroids of its own."""
    prototypes: int = 3000
    """Number of clusters of each clustering; at most the number of images."""
    temperature: float = 0.1
    """Temperature of the loss."""
    iterations: int = 10
    """Iterations of k-means before each epoch."""

    def build(self, encoder):
        from infomax.methods.deepcluster import DeepCluster

        return DeepCluster(encoder, **vars(self))


RECIPES = Experiments("deepcluster")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = DeepClusterSettings(hidden=256, dimension=64, prototypes=100)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    return small_recipe(DeepClusterSettings(hidden=512, dimension=128, prototypes=100), SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.422,
    reported_in("mira-7", "CIFAR-10 Top-1", "CIFAR-10 Top-5", row="DeepCluster v2"),
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5", row="DeepCluster v2"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in MIRA's Table 7 and CorInfoMax's Table 10, CIFAR-10. Paper: 88.85 % linear top-1. Cost: 0.422
    EFLOP. Decisions: solo-cifar, solo-views, deepcluster-memory, deepcluster-solo."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.422,
    reported_in("mira-7", "CIFAR-100 Top-1", "CIFAR-100 Top-5", row="DeepCluster v2"),
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5", row="DeepCluster v2"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in MIRA's Table 7 and CorInfoMax's Table 10, CIFAR-100. Paper: 63.61 % linear top-1. Cost:
    0.422 EFLOP. Decisions: solo-cifar, solo-views, deepcluster-memory, deepcluster-solo."""
    return _cifar("cifar100")


@RECIPES.add(
    "imagenet100",
    1.08,
    reported_in("mira-7", "ImageNet-100 Top-1", "ImageNet-100 Top-5", row="DeepCluster v2"),
    reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5", row="DeepCluster v2"),
)
def imagenet100() -> Recipe:
    """solo-learn's run, in MIRA's Table 7 and CorInfoMax's Table 10, ImageNet-100. Paper: 75.36 % linear top-1. Cost:
    1.08 EFLOP. Decisions: solo-imagenet100, solo-views, deepcluster-memory, deepcluster-solo."""
    return solo_imagenet100(DeepClusterSettings(), _solo_larc(), simclr(224))


@RECIPES.add("imagenet", 24.9, reported_in("mira-1", "400", row="DeepCluster v2", multi_crop=False))
def imagenet_400() -> Recipe:
    """The official run of 400 epochs with two crops, in MIRA's Table 1. Paper: 70.2 % linear top-1. Cost: 24.9 EFLOP.
    Decisions: deepcluster-memory, deepcluster-imagenet."""
    view = replace(swav(224)[0][0], scale=(0.08, 1.0))
    return _imagenet(ViewSet(global_crops=(view, view)), epochs=400)


@RECIPES.add(
    "imagenet",
    77.3,
    reported_in("mira-1", "800", row="DeepCluster v2", multi_crop=True),
    *(reported_in(table, row="DeepCluster v2") for table in ("mira-2", "mira-3", "mira-5")),
)
def imagenet_multicrop_800() -> Recipe:
    """The official run of 800 epochs with multi-crop, in MIRA's Table 1, Table 2, Table 3 and Table 5. Paper: 75.2 %
    linear top-1. Cost: 77.3 EFLOP. Decisions: deepcluster-memory, deepcluster-imagenet, baseline-encoders."""
    global_crops, local_crops = swav(224)
    return _imagenet(ViewSet(global_crops=global_crops, local_crops=local_crops), epochs=800)


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    return solo_cifar(DeepClusterSettings(), replace(_solo_larc(), decay_all=True), solo_strong(), data=data)


def _solo_larc() -> OptimizerSettings:
    return replace(solo_lars(0.6, 1e-6), end=0.0006)


def _imagenet(views: ViewSet, *, epochs: int) -> Recipe:
    """Returns the official recipe, whose optimiser is SwAV's."""
    larc = OptimizerSettings(
        name="larc",
        learning_rate=4.8,
        weight_decay=1e-6,
        decay_all=True,
        warmup_epochs=10,
        warmup_start=0.3,
        end=0.0048,
    )
    return imagenet_recipe(DeepClusterSettings(), larc, views, batch_size=4096, epochs=epochs)


METHOD = MethodSpec(settings=DeepClusterSettings, recipes=RECIPES, default_for_large_images="imagenet_400")
