"""Holds the settings and recipes of MIRA; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace
from typing import Any

from infomax.data.augmentation.views import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_MEAN,
    CIFAR100_STD,
    Preprocessing,
    ViewSet,
    dino,
    mira_cifar,
)
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MiraSettings(MethodSettings):
    """A frozen dataclass that holds the settings of MIRA."""

    name = "mira"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 256
    """Width of the projector's output."""
    prototypes: int = 3000
    """Number of clusters."""
    student_temperature: float = 0.1
    """Temperature of the student's cluster logits."""
    teacher_temperature: float = 0.225
    """Temperature of the teacher's cluster logits, which the targets are made of."""
    beta: float = 2 / 3
    """Weight of the mutual information in the targets at the end of the run, in [0, 1)."""
    beta_start: float = 0.7
    """Weight of the mutual information in the targets at the start of the run, in [0, 1)."""
    iterations: int | None = 30
    """Fixed-point iterations that make the targets; None goes to their limit, in fewer, accelerated ones."""
    momentum: float | None = 0.99
    """Momentum of the EMA teacher at the start; None trains without a teacher."""
    freeze_prototypes_epochs: int = 1
    """Epochs at the start in which the prototypes stay as they were drawn."""
    equipartition: bool = False
    """Whether the targets use all clusters evenly, as SwAV's do (footnote 4)."""

    def build(self, encoder):
        from infomax.methods.mira import Mira

        return Mira(encoder, **vars(self))


RECIPES = Experiments("mira")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the demo: the small encoder learns from the embedded digits. Decisions: cpu-recipes."""
    widths = {"hidden": 256, "dimension": 64, "prototypes": 100}
    settings = MiraSettings(**widths, teacher_temperature=0.15, iterations=None, momentum=0.9)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    widths = {"hidden": 512, "dimension": 128, "prototypes": 300}
    settings = MiraSettings(**widths, teacher_temperature=0.1, iterations=None, momentum=0.9)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("cifar10", 0.567, reported_in("mira-7", "CIFAR-10 Top-1", "CIFAR-10 Top-5"))
def cifar10() -> Recipe:
    """Table 7, CIFAR-10. Paper: 93.02 % linear top-1. Cost: 0.567 EFLOP. Decisions: mira-stem, mira-cifar, mira-sgd."""
    return _cifar(CIFAR10_MEAN, CIFAR10_STD)


@RECIPES.add("cifar100", 0.567, reported_in("mira-7", "CIFAR-100 Top-1", "CIFAR-100 Top-5"))
def cifar100() -> Recipe:
    """Table 7, CIFAR-100. Paper: 70.65 % linear top-1. Cost: 0.567 EFLOP. Decisions: mira-stem, mira-cifar,
    mira-sgd."""
    return _cifar(CIFAR100_MEAN, CIFAR100_STD)


@RECIPES.add("imagenet100", 1.45, reported_in("mira-7", "ImageNet-100 Top-1", "ImageNet-100 Top-5"))
def imagenet100() -> Recipe:
    """Table 7, ImageNet-100. Paper: 81 % linear top-1. Cost: 1.45 EFLOP. Decisions: mira-imagenet100."""
    return replace(
        _imagenet(400, multi_crop=False),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet"),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.6, weight_decay=1e-4, warmup_epochs=10),
        batch_size=512,
    )


@RECIPES.add(
    "imagenet",
    8.32,
    reported_in("mira-1", "100", multi_crop=False),
    reported_in("mira-8", batch_size=4096, moving_average=True),
    reported_in("mira-9", "100", multi_crop=False),
    reported_in("mira-14", prototypes=3000),
    reported_in("mira-15", "30it", epochs=100),
)
def imagenet_100() -> Recipe:
    """Table 1, two crops, 100 epochs; also Tables 8, 9, 14 and 15. Paper: 69.4 % linear top-1. Cost: 8.32 EFLOP.
    Decisions: mira-imagenet."""
    return _imagenet(100, multi_crop=False)


@RECIPES.add(
    "imagenet",
    16.6,
    reported_in("mira-1", "200", multi_crop=False),
    reported_in("mira-6", multi_crop=False, moving_average=True),
    reported_in("mira-9", "200", multi_crop=False),
)
def imagenet_200() -> Recipe:
    """Table 1, two crops, 200 epochs; also Tables 6 and 9. Paper: 72.3 % linear top-1. Cost: 16.6 EFLOP. Decisions:
    mira-imagenet."""
    return _imagenet(200, multi_crop=False)


@RECIPES.add(
    "imagenet",
    33.3,
    reported_in("mira-1", "400", multi_crop=False),
    reported_in("mira-9", "400", multi_crop=False),
    reported_in("mira-15", "30it", epochs=400),
)
def imagenet_400() -> Recipe:
    """Table 1, two crops, 400 epochs; also Tables 9 and 15. Paper: 73.3 % linear top-1. Cost: 33.3 EFLOP. Decisions:
    mira-imagenet."""
    return _imagenet(400, multi_crop=False)


@RECIPES.add(
    "imagenet", 66.5, reported_in("mira-1", "800", multi_crop=False), reported_in("mira-9", "800", multi_crop=False)
)
def imagenet_800() -> Recipe:
    """Table 1, two crops, 800 epochs; also Table 9. Paper: 74.1 % linear top-1. Cost: 66.5 EFLOP. Decisions:
    mira-imagenet."""
    return _imagenet(800, multi_crop=False, momentum=0.996)


@RECIPES.add(
    "imagenet", 11.8, reported_in("mira-1", "100", multi_crop=True), reported_in("mira-9", "100", multi_crop=True)
)
def imagenet_multicrop_100() -> Recipe:
    """Table 1, with multi-crop, 100 epochs; also Table 9. Paper: 73.6 % linear top-1. Cost: 11.8 EFLOP. Decisions:
    mira-imagenet."""
    return _imagenet(100, multi_crop=True)


@RECIPES.add(
    "imagenet",
    23.6,
    reported_in("mira-1", "200", multi_crop=True),
    reported_in("mira-6", multi_crop=True, moving_average=True),
    reported_in("mira-9", "200", multi_crop=True),
)
def imagenet_multicrop_200() -> Recipe:
    """Table 1, with multi-crop, 200 epochs; also Tables 6 and 9. Paper: 74.9 % linear top-1. Cost: 23.6 EFLOP.
    Decisions: mira-imagenet."""
    return _imagenet(200, multi_crop=True)


@RECIPES.add(
    "imagenet",
    47.1,
    reported_in("mira-1", "400", multi_crop=True),
    reported_in("mira-9", "400", multi_crop=True),
    *(reported_in(f"mira-{number}") for number in (2, 3, 4, 5, 10, 11, 13)),
    reported_in("mira-12", epochs=400),
)
def imagenet_multicrop_400() -> Recipe:
    """The paper's main run: Table 1, with multi-crop, 400 epochs; also Tables 2 to 5 and 9 to 13. Paper: 75.6 % linear
    top-1. Cost: 47.1 EFLOP. Decisions: mira-imagenet."""
    return _imagenet(400, multi_crop=True)


@RECIPES.add("imagenet", 94.3, reported_in("mira-12", epochs=800))
def imagenet_multicrop_800() -> Recipe:
    """Table 12, with multi-crop, 800 epochs. Paper: 75.7 % linear top-1. Cost: 94.3 EFLOP. Decisions:
    mira-multicrop-800, mira-imagenet."""
    return _imagenet(800, multi_crop=True, momentum=0.996)


@RECIPES.add("imagenet", 6.22, reported_in("mira-8", batch_size=4096, moving_average=False))
def imagenet_100_no_teacher() -> Recipe:
    """Table 8, batch 4096 without a moving average. Paper: 68.7 % linear top-1. Cost: 6.22 EFLOP. Decisions:
    mira-imagenet."""
    return _imagenet(100, multi_crop=False, momentum=None)


@RECIPES.add("imagenet", 12.4, reported_in("mira-6", multi_crop=False, moving_average=False))
def imagenet_200_no_teacher() -> Recipe:
    """Table 6, neither multi-crop nor moving average. Paper: 70.4 % linear top-1. Cost: 12.4 EFLOP. Decisions:
    mira-imagenet."""
    return _imagenet(200, multi_crop=False, momentum=None)


@RECIPES.add("imagenet", 8.34, reported_in("mira-8", batch_size=512, moving_average=True))
def imagenet_100_batch_512() -> Recipe:
    """Table 8, batch 512. Paper: 68.3 % linear top-1. Cost: 8.34 EFLOP. Decisions: mira-small-batch."""
    return _small_batch()


@RECIPES.add("imagenet", 6.24, reported_in("mira-8", batch_size=512, moving_average=False))
def imagenet_100_batch_512_no_teacher() -> Recipe:
    """Table 8, batch 512 without a moving average. Paper: 66.3 % linear top-1. Cost: 6.24 EFLOP. Decisions:
    mira-small-batch."""
    return _small_batch(momentum=None)


@RECIPES.add("imagenet", 8.32, reported_in("mira-14", prototypes=300))
def imagenet_100_prototypes_300() -> Recipe:
    """Table 14, 300 prototypes. Paper: 67.7 % linear top-1. Cost: 8.32 EFLOP. Decisions: mira-imagenet."""
    return _imagenet(100, multi_crop=False, prototypes=300)


@RECIPES.add("imagenet", 8.32, reported_in("mira-14", prototypes=1000))
def imagenet_100_prototypes_1000() -> Recipe:
    """Table 14, 1000 prototypes. Paper: 69 % linear top-1. Cost: 8.32 EFLOP. Decisions: mira-imagenet."""
    return _imagenet(100, multi_crop=False, prototypes=1000)


@RECIPES.add("imagenet", 8.32, reported_in("mira-14", prototypes=10000))
def imagenet_100_prototypes_10000() -> Recipe:
    """Table 14, 10000 prototypes. Paper: 69.5 % linear top-1. Cost: 8.32 EFLOP. Decisions: mira-imagenet."""
    return _imagenet(100, multi_crop=False, prototypes=10000)


@RECIPES.add("imagenet", 8.33, reported_in("mira-14", prototypes=30000))
def imagenet_100_prototypes_30000() -> Recipe:
    """Table 14, 30000 prototypes. Paper: 69.5 % linear top-1. Cost: 8.33 EFLOP. Decisions: mira-imagenet."""
    return _imagenet(100, multi_crop=False, prototypes=30000)


@RECIPES.add("imagenet", 8.32, reported_in("mira-15", "1it", epochs=100))
def imagenet_100_iterations_1() -> Recipe:
    """Table 15, 1 iteration, 100 epochs. Paper: 69.5 % linear top-1. Cost: 8.32 EFLOP. Decisions: mira-iterations,
    mira-imagenet."""
    return _imagenet(100, multi_crop=False, iterations=1)


@RECIPES.add("imagenet", 8.32, reported_in("mira-15", "3it", epochs=100))
def imagenet_100_iterations_3() -> Recipe:
    """Table 15, 3 iterations, 100 epochs. Paper: 69.5 % linear top-1. Cost: 8.32 EFLOP. Decisions: mira-iterations,
    mira-imagenet."""
    return _imagenet(100, multi_crop=False, iterations=3)


@RECIPES.add("imagenet", 33.3, reported_in("mira-15", "1it", epochs=400))
def imagenet_400_iterations_1() -> Recipe:
    """Table 15, 1 iteration, 400 epochs. Paper: 72.7 % linear top-1. Cost: 33.3 EFLOP. Decisions: mira-iterations,
    mira-imagenet."""
    return _imagenet(400, multi_crop=False, iterations=1)


@RECIPES.add("imagenet", 33.3, reported_in("mira-15", "3it", epochs=400))
def imagenet_400_iterations_3() -> Recipe:
    """Table 15, 3 iterations, 400 epochs. Paper: 72.6 % linear top-1. Cost: 33.3 EFLOP. Decisions: mira-iterations,
    mira-imagenet."""
    return _imagenet(400, multi_crop=False, iterations=3)


def _cifar(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Recipe:
    """Returns a recipe with a ResNet-18 and two views of 32 pixels, by SGD."""
    return Recipe(
        method=MiraSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar", stem_padding=2),
        views=ViewSet(global_crops=mira_cifar(32), mean=mean, std=std),
        preprocessing=Preprocessing(resize=32, size=32, mean=mean, std=std),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.3, weight_decay=1e-4, warmup_epochs=10),
        batch_size=256,
        epochs=1000,
    )


def _imagenet(epochs: int, *, multi_crop: bool, **settings: Any) -> Recipe:
    """Returns a recipe with a ResNet-50 and a batch of 4096, by LARS."""
    warmup = 5 if epochs <= 200 else 10
    lars = OptimizerSettings(name="lars", learning_rate=4.8, weight_decay=1e-6, warmup_epochs=warmup, warmup_start=0.3)
    global_crops, local_crops = dino(224, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    return Recipe(
        method=MiraSettings(**settings),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=ViewSet(global_crops=global_crops, local_crops=local_crops if multi_crop else ()),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=lars,
        batch_size=4096,
        epochs=epochs,
        precision="bf16",
    )


def _small_batch(**settings: Any) -> Recipe:
    """Returns a recipe with a ResNet-50 and a batch of 512, by SGD."""
    return replace(
        _imagenet(100, multi_crop=False, **settings),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.6, weight_decay=1e-4, warmup_epochs=5),
        batch_size=512,
    )


METHOD = MethodSpec(
    settings=MiraSettings,
    recipes=RECIPES,
    default_for_large_images="imagenet100",
    paper="MIRA",
    conditions={
        "dimension": "dimension",
        "prototypes": "prototypes",
        "iterations": "iterations",
        "momentum": "moving_average",
    },
)
