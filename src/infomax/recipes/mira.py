"""MIRA's settings and recipes."""

from dataclasses import dataclass

from infomax.data.views import CIFAR10_MEAN, CIFAR10_STD, Preprocessing, ViewSet, dino, mira_cifar
from infomax.recipes.cpu import digits_recipe, small_recipe
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MiraSettings(MethodSettings):
    name = "mira"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 256
    """Width of the projector's output."""
    prototypes: int = 3000
    """Number of clusters."""
    student_temperature: float = 0.1
    teacher_temperature: float = 0.225
    beta: float = 2 / 3
    """Weight of the mutual information in the targets, in [0, 1), at the end."""
    beta_start: float = 0.7
    """The same at the start."""
    iterations: int = 30
    """Of the fixed point that makes the targets."""
    momentum: float | None = 0.99
    """Of the teacher at the start; None trains without a teacher."""
    freeze_prototypes_epochs: int = 1
    """Epochs at the start in which the prototypes stay as they were drawn."""

    def build(self, encoder):
        from infomax.methods.mira import Mira

        return Mira(encoder, **vars(self))


def digits() -> Recipe:
    """Ours, for the demo."""
    settings = MiraSettings(hidden=256, dimension=64, prototypes=100, teacher_temperature=0.15, momentum=0.9)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def small() -> Recipe:
    """Ours, for photographs on a CPU."""
    settings = MiraSettings(hidden=512, dimension=128, prototypes=300, teacher_temperature=0.1, momentum=0.9)
    return small_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def cifar10() -> Recipe:
    """Table 7, CIFAR-10: ResNet-18. Paper: 93.02 % linear top-1, by an online probe."""
    return Recipe(
        name="cifar10",
        method=MiraSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar", stem_padding=2),
        views=ViewSet(full=mira_cifar(32), mean=CIFAR10_MEAN, std=CIFAR10_STD),
        preprocessing=Preprocessing(resize=32, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.3, weight_decay=1e-4, warmup_epochs=10),
        batch_size=256,
        epochs=1000,
    )


def imagenet100() -> Recipe:
    """Table 7, ImageNet-100: ResNet-18, two crops of 224 pixels. Paper: 81.00 % linear top-1."""
    full, _ = dino(224, full_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    return Recipe(
        name="imagenet100",
        method=MiraSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet"),
        views=ViewSet(full=full),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.6, weight_decay=1e-4, warmup_epochs=10),
        batch_size=512,
        epochs=400,
        precision="bf16",
    )


SETTINGS = MiraSettings
RECIPES = (digits, small, cifar10, imagenet100)
PHOTOGRAPHS = imagenet100  # the default for large images on a GPU
