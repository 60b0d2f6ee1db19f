"""MVEB's settings and recipes."""

from dataclasses import dataclass

from infomax.data.views import Preprocessing, View, ViewSet, dino, moco
from infomax.recipes.cpu import digits_recipe, small_recipe
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MvebSettings(MethodSettings):
    name = "mveb"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 2048
    """Width of the projector's output."""
    entropy_weight: float = 0.01
    """beta, the weight of the entropy of the embeddings."""
    eta: float = 0.01
    """Ridge of the score estimator."""
    score_scope: str = "global"
    """The samples that a score is estimated from: global, chunk:n or local."""
    momentum: float | None = 0.996
    """Of the target branch at the start; None shares the online weights."""

    def build(self, encoder):
        from infomax.methods.mveb import Mveb

        return Mveb(encoder, **vars(self))


def digits() -> Recipe:
    """Ours, for the demo."""
    settings = MvebSettings(hidden=256, dimension=64, momentum=None)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def small() -> Recipe:
    """Ours, for photographs on a CPU."""
    settings = MvebSettings(hidden=512, dimension=128, momentum=None)
    return small_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def cifar10() -> Recipe:
    """Sec. 7.6: ResNet-18 with Adam. Paper: 90.42 % linear top-1. Projector and target are not stated there."""
    half = (0.5, 0.5, 0.5)
    view = View(size=32, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    return Recipe(
        name="cifar10",
        method=MvebSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar"),
        views=ViewSet(full=(view, view), mean=half, std=half),
        preprocessing=Preprocessing(resize=32, size=32, mean=half, std=half),
        optimizer=OptimizerSettings(name="adam", learning_rate=3e-4),
        batch_size=256,
        epochs=200,
    )


def imagenet() -> Recipe:
    """Table 1: ResNet-50, 2 x 224 + 6 x 96 crops, for many GPUs. Paper: 76.9 % linear top-1, 93.3 % top-5.

    The score is estimated from 128 images at a time, as on each of the authors' 32 GPUs (decisions, mveb-scope).
    """
    full, local = dino(224, full_scale=(0.4, 1.0), local_scale=(0.05, 0.4))
    return Recipe(
        name="imagenet",
        method=MvebSettings(score_scope="chunk:128"),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=ViewSet(full=full, local=local),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=OptimizerSettings(
            name="lars",
            learning_rate=0.4 * 4096 / 256,
            weight_decay=1e-6,
            warmup_epochs=10,
            end=0.4 * 4096 / 256 / 1000,
        ),
        batch_size=4096,
        epochs=800,
        precision="bf16",
    )


def imagenet_batch256() -> Recipe:
    """Table 6, batch 256: ResNet-50, two crops of 224 pixels, shared weights. Paper: 68.5 % linear top-1."""
    return Recipe(
        name="imagenet_batch256",
        method=MvebSettings(hidden=8192, dimension=8192, momentum=None),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=ViewSet(full=moco(224)),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=OptimizerSettings(name="sgd", learning_rate=0.05, weight_decay=1e-4, warmup_epochs=5, end=5e-5),
        batch_size=256,
        epochs=100,
        precision="bf16",
    )


SETTINGS = MvebSettings
RECIPES = (digits, small, cifar10, imagenet, imagenet_batch256)
PHOTOGRAPHS = imagenet_batch256  # the default for large images on a GPU
