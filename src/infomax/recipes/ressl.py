"""Holds the settings and recipes of ReSSL; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace
from typing import Any

from infomax.data.augmentation.views import View, ViewSet
from infomax.data.augmentation.views import moco as moco_views
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.published import solo_cifar, solo_imagenet100, solo_sgd
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class ReSslSettings(MethodSettings):
    """A frozen dataclass that holds the settings of ReSSL."""

    name = "ressl"

    hidden: int = 4096
    """Width of the projector's hidden layer."""
    dimension: int = 512
    """Width of the projector's output."""
    projector_norm: bool = False
    """Whether the projector's hidden layer has BatchNorm, which the paper's has not."""
    student_temperature: float = 0.1
    """Temperature of the student's similarities to the queue."""
    teacher_temperature: float = 0.04
    """Temperature of the teacher's similarities to the queue, which are the targets."""
    queue_size: int = 131072
    """Number of keys of earlier batches that an image is compared with."""
    momentum: float = 0.999
    """Momentum of the EMA teacher at the start."""
    momentum_end: float = 0.999
    """Momentum of the EMA teacher at the end, to which a cosine leads."""

    def build(self, encoder):
        from infomax.methods.ressl import ReSsl

        return ReSsl(encoder, **vars(self))


RECIPES = Experiments("ressl")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings,
    ressl-small."""
    settings = _small(hidden=256, dimension=64, queue_size=1024, teacher_temperature=0.02)
    return _weak_second(digits_recipe(settings, LOW_RATE_ADAMW))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings, ressl-small."""
    settings = _small(hidden=512, dimension=128, queue_size=4096)
    return _weak_second(small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs))


@RECIPES.add("cifar10", 0.287, reported_in("corinfomax-10", "CIFAR-10 Top-1", "CIFAR-10 Top-5"))
def cifar10() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-10. Paper: 90.63 % linear top-1. Cost: 0.287 EFLOP. Decisions:
    solo-cifar, ressl-solo."""
    return _cifar("cifar10")


@RECIPES.add("cifar100", 0.287, reported_in("corinfomax-10", "CIFAR-100 Top-1", "CIFAR-100 Top-5"))
def cifar100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, CIFAR-100. Paper: 65.92 % linear top-1. Cost: 0.287 EFLOP. Decisions:
    solo-cifar, ressl-solo."""
    return _cifar("cifar100")


@RECIPES.add("imagenet100", 0.728, reported_in("corinfomax-10", "ImageNet-100 Top-1", "ImageNet-100 Top-5"))
def imagenet100() -> Recipe:
    """solo-learn's run, in CorInfoMax's Table 10, ImageNet-100. Paper: 78.48 % linear top-1. Cost: 0.728 EFLOP.
    Decisions: ressl-solo."""
    views = _strong_and_weak(View(size=224, saturation=0.4, blur=0.5), grayscale=0.2)
    return solo_imagenet100(_solo(), solo_sgd(0.3, 1e-4), views)


@RECIPES.add("imagenet", 8.44)
def imagenet_200() -> Recipe:
    """The official run of 200 epochs, for which its authors report 69.9 %. Cost: 8.44 EFLOP. Decisions:
    ressl-imagenet."""
    sgd = OptimizerSettings(name="sgd", learning_rate=0.05, weight_decay=1e-4, decay_all=True, warmup_epochs=5)
    views = ViewSet(global_crops=_strong_and_weak(moco_views(224)[0]))
    return imagenet_recipe(ReSslSettings(), sgd, views, batch_size=256, epochs=200)


@RECIPES.add("imagenet", 19.7)
def imagenet_multicrop_200() -> Recipe:
    """The official run of 200 epochs with five crops, for which its authors report 74.7 %. Cost: 19.7 EFLOP. Decisions:
    ressl-views, ressl-imagenet."""
    strong, weak = _strong_and_weak(moco_views(224)[0])
    local_crops = tuple(
        replace(strong, size=size, scale=(low, high))
        for size, low, high in (
            (192, 0.172, 0.86),
            (160, 0.143, 0.715),
            (128, 0.114, 0.571),
            (96, 0.086, 0.429),
        )
    )
    views = ViewSet(global_crops=(strong, weak), local_crops=local_crops)
    recipe = imagenet_200()
    return replace(recipe, views=views, optimizer=replace(recipe.optimizer, decay_all=False))


def _small(**others: Any) -> ReSslSettings:
    """Returns the settings of our own recipes, of short runs."""
    return ReSslSettings(**others, projector_norm=True, momentum=0.9, momentum_end=0.99)


def _solo() -> ReSslSettings:
    """Returns the settings of solo-learn's runs."""
    return ReSslSettings(dimension=256, queue_size=65536, momentum=0.99, momentum_end=1.0)


def _strong_and_weak(strong: View, *, grayscale: float = 0.0) -> tuple[View, View]:
    """Returns a view and its weak form, which is cropped and flipped alone, but gray with a probability."""
    return strong, replace(strong, jitter=0.0, grayscale=grayscale, blur=0.0, solarize=0.0)


def _weak_second(recipe: Recipe) -> Recipe:
    """Returns a recipe whose second view is the weak form of the first."""
    views = _strong_and_weak(recipe.views.global_crops[0])
    return replace(recipe, views=replace(recipe.views, global_crops=views))


def _cifar(data: str) -> Recipe:
    """Returns the recipe of solo-learn for a CIFAR data set."""
    return solo_cifar(_solo(), solo_sgd(0.05, 1e-4), _strong_and_weak(View(size=32), grayscale=0.2), data=data)


METHOD = MethodSpec(settings=ReSslSettings, recipes=RECIPES, default_for_large_images="imagenet_200")
