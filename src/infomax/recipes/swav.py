"""Holds the settings and recipes of SwAV; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import ViewSet, simclr, swav
from infomax.recipes import mira
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_imagenet100, solo_lars, solo_strong
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class SwavSettings(MethodSettings):
    """A frozen dataclass that holds the settings of SwAV."""

    name = "swav"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    hidden_layers: int = 1
    """Number of hidden layers of the projector."""
    dimension: int = 128
    """Width of the projector's output."""
    prototypes: int = 3000
    """Number of prototypes."""
    temperature: float = 0.1
    """Temperature of the prediction."""
    epsilon: float = 0.05
    """Weight of the entropy in the assignments."""
    iterations: int = 3
    """Iterations of Sinkhorn-Knopp that make the assignments."""
    queue: int = 0
    """Earlier images that are assigned with the batch; 0 for none."""
    queue_from_epoch: int = 15
    """First epoch, counted from 0, in which the queue is used."""
    freeze_prototypes_steps: int = 313
    """Steps at the start in which the prototypes stay as they were drawn."""

    def build(self, encoder):
        from infomax.methods.swav import Swav

        return Swav(encoder, **vars(self))


RECIPES = Experiments("swav")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    widths = {"hidden": 256, "dimension": 64, "prototypes": 100}
    return digits_recipe(SwavSettings(**widths, epsilon=0.03, freeze_prototypes_steps=11), SMALL_OPTIMIZER)


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = SwavSettings(hidden=512, dimension=128, prototypes=300, epsilon=0.03)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add(
    "cifar10",
    0.423,
    reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
    reported_in("mira-7", "CIFAR-10 Top-1", "CIFAR-10 Top-5"),
)
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and MIRA's Table 7, CIFAR-10. Paper: 89.17 % linear top-1. Cost: 0.423
    EFLOP. Decisions: solo-cifar, solo-views, swav-solo, swav-mean."""
    return _cifar("cifar10")


@RECIPES.add(
    "cifar100",
    0.423,
    reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
    reported_in("mira-7", "CIFAR-100 Top-1", "CIFAR-100 Top-5"),
)
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10 and MIRA's Table 7, CIFAR-100. Paper: 64.88 % linear top-1. Cost:
    0.423 EFLOP. Decisions: solo-cifar, solo-views, swav-solo, swav-mean."""
    return _cifar("cifar100")


@RECIPES.add("imagenet100", 1.08, reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"))
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, ImageNet-100. Paper: 74.28 % linear top-1. Cost: 1.08 EFLOP.
    Decisions: solo-imagenet100, solo-views, swav-solo, swav-mean."""
    return solo_imagenet100(_solo_settings(126_689), _solo_larc(), simclr(224))


@RECIPES.add("imagenet", 24.9)
def imagenet_400() -> Recipe:
    """The official run of two crops, 400 epochs: 70.1 % in its repository, in no table. Cost: 24.9 EFLOP. Decisions:
    swav-imagenet, swav-mean."""
    return _two_crops(400)


@RECIPES.add(
    "imagenet", 6.22, reported_in("mira-1", "100", multi_crop=False), reported_in("mira-8", "Top-1", batch_size=4096)
)
def imagenet_100_three_layers() -> Recipe:
    """100 epochs of two crops as SimSiam's authors trained it, in MIRA's Table 1 and Table 8. Paper: 66.5 % linear
    top-1. Cost: 6.22 EFLOP. Decisions: simsiam-baselines, swav-imagenet, swav-mean."""
    return _two_crops(100, hidden_layers=2)


@RECIPES.add("imagenet", 12.4, reported_in("mira-1", "200", multi_crop=False), reported_in("mira-6"))
def imagenet_200_three_layers() -> Recipe:
    """200 epochs of two crops as SimSiam's authors trained it, in MIRA's Table 1 and Table 6. Paper: 69.1 % linear
    top-1. Cost: 12.4 EFLOP. Decisions: simsiam-baselines, swav-imagenet, swav-mean."""
    return _two_crops(200, hidden_layers=2)


@RECIPES.add("imagenet", 24.9, reported_in("mira-1", "400", multi_crop=False))
def imagenet_400_three_layers() -> Recipe:
    """400 epochs of two crops as SimSiam's authors trained it, in MIRA's Table 1. Paper: 70.7 % linear top-1. Cost:
    24.9 EFLOP. Decisions: simsiam-baselines, swav-imagenet, swav-mean."""
    return _two_crops(400, hidden_layers=2)


@RECIPES.add("imagenet", 49.8, reported_in("mira-1", "800", multi_crop=False), reported_in("mveb-7", "ResNet-50 (23M)"))
def imagenet_800_three_layers() -> Recipe:
    """800 epochs of two crops as SimSiam's authors trained it, in MIRA's Table 1 and MVEB's Table 7. Paper: 71.8 %
    linear top-1. Cost: 49.8 EFLOP. Decisions: simsiam-baselines, swav-imagenet, swav-mean."""
    return _two_crops(800, hidden_layers=2)


@RECIPES.add("imagenet", 6.23, reported_in("mira-8", batch_size=512))
def imagenet_100_batch_512() -> Recipe:
    """100 epochs with batch 512 as MIRA's authors trained it, in MIRA's Table 8. Paper: 62.3 % linear top-1. Cost: 6.23
    EFLOP. Decisions: swav-small-batch, mira-small-batch, swav-mean."""
    settings = SwavSettings(freeze_prototypes_steps=1_281_167 // 512)  # the first epoch
    return replace(mira.imagenet_100_batch_512_no_teacher(), method=settings)


@RECIPES.add("imagenet", 9.66, reported_in("mira-1", "100", multi_crop=True))
def imagenet_multicrop_100() -> Recipe:
    """The official run of 100 epochs, in MIRA's Table 1. Paper: 72.1 % linear top-1. Cost: 9.66 EFLOP. Decisions:
    swav-imagenet, swav-mean."""
    return _imagenet(100)


@RECIPES.add("imagenet", 19.3, reported_in("mira-1", "200", multi_crop=True))
def imagenet_multicrop_200() -> Recipe:
    """The official run of 200 epochs, in MIRA's Table 1. Paper: 73.9 % linear top-1. Cost: 19.3 EFLOP. Decisions:
    swav-imagenet, swav-mean."""
    return _imagenet(200)


@RECIPES.add("imagenet", 38.6, reported_in("mira-1", "400", multi_crop=True))
def imagenet_multicrop_400() -> Recipe:
    """The official run of 400 epochs, in MIRA's Table 1. Paper: 74.6 % linear top-1. Cost: 38.6 EFLOP. Decisions:
    swav-imagenet, swav-mean."""
    return _imagenet(400)


@RECIPES.add(
    "imagenet",
    77.3,
    reported_in("mira-1", "800", multi_crop=True),
    *map(reported_in, ("mira-2", "mira-3", "mira-4", "mira-5", "mveb-1")),
)
def imagenet_multicrop_800() -> Recipe:
    """The official run of 800 epochs, in MIRA's Table 1, Table 2, Table 3, Table 4 and Table 5 and in MVEB's Table 1.
    Paper: 75.3 % linear top-1. Cost: 77.3 EFLOP. Decisions: swav-imagenet, swav-mean, baseline-encoders."""
    return _imagenet(800)


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    optimizer = replace(_solo_larc(), decay_all=True)
    return solo_cifar(_solo_settings(50_000), optimizer, solo_strong(), data=data)


def _solo_settings(images: int) -> SwavSettings:
    """Returns solo-learn's settings for a data set; the prototypes rest for two epochs of 256 images a step."""
    return SwavSettings(queue=3840, queue_from_epoch=50, freeze_prototypes_steps=2 * (images // 256))


def _solo_larc() -> OptimizerSettings:
    return replace(solo_lars(0.6, 1e-6), end=0.0006)


def _two_crops(epochs: int, *, hidden_layers: int = 1) -> Recipe:
    """Returns the official recipe of two crops and a batch of 4096."""
    recipe = _imagenet(epochs)
    first, second = (replace(view, scale=(0.08, 1.0)) for view in recipe.views.global_crops)
    settings = SwavSettings(hidden_layers=hidden_layers)
    return replace(recipe, method=settings, views=ViewSet(global_crops=(first, second)))


def _imagenet(epochs: int) -> Recipe:
    """Returns the official recipe with multi-crop and a batch of 4096."""
    larc = OptimizerSettings(
        name="larc",
        learning_rate=4.8,
        end=0.0048,
        weight_decay=1e-6,
        decay_all=True,
        warmup_epochs=10,
        warmup_start=0.3,
    )
    global_crops, local_crops = swav(224)
    views = ViewSet(global_crops=global_crops, local_crops=local_crops)
    return imagenet_recipe(SwavSettings(), larc, views, batch_size=4096, epochs=epochs)


METHOD = MethodSpec(settings=SwavSettings, recipes=RECIPES, default_for_large_images="imagenet_multicrop_400")
