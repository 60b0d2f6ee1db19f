"""Builds our own recipes for a CPU: the small encoder, and views that suit digits or small photographs."""

from dataclasses import replace

from infomax.data.augmentation.views import Preprocessing, View, ViewSet, mira_cifar
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


def digits_recipe(method: MethodSettings, optimizer: OptimizerSettings, *, epochs: int = 80) -> Recipe:
    """Returns a recipe for the embedded digits.

    There are no flips, which would turn one digit into another, and no changes of colour, as digits have none.

    Args:
        method: Settings of the method.
        optimizer: Settings of the optimiser.
        epochs: Passes over the images.
    """
    view = View(
        size=12,
        scale=(0.4, 1.0),
        ratio=(0.6, 1.67),
        flip=0.0,
        saturation=0.0,
        hue=0.0,
        grayscale=0.0,
        blur=0.5,
        blur_sigma=(0.1, 1.5),
    )
    half = (0.5, 0.5, 0.5)
    return Recipe(
        name="digits",
        method=method,
        encoder=EncoderSettings(backbone="small", stem="imagenet"),
        views=ViewSet(global_crops=(view, view), mean=half, std=half),
        preprocessing=Preprocessing(resize=12, size=12, mean=half, std=half),
        optimizer=optimizer,
        batch_size=128,
        epochs=epochs,
    )


IMAGES_SEEN = 600_000
"""Number of images that a training by :func:`small_recipe` sees in all, each as often as there are epochs."""


SMALL_OPTIMIZER = OptimizerSettings(name="adamw", learning_rate=0.002, weight_decay=1e-4)
"""Optimiser of the recipes by :func:`small_recipe`, if it is not another (docs/decisions.md, cpu-recipes)."""
LOW_RATE_ADAMW = replace(SMALL_OPTIMIZER, learning_rate=0.0007)
"""Optimiser of those that are better with it, in long trainings too (docs/decisions.md, searched-settings)."""


def small_recipe(method: MethodSettings, optimizer: OptimizerSettings, *, epochs: int, batch_size: int = 128) -> Recipe:
    """Returns a recipe for photographs at 32 pixels, which trains in minutes.

    Args:
        method: Settings of the method.
        optimizer: Settings of the optimiser.
        epochs: Passes over the images; :data:`IMAGES_SEEN` over their number, if the user does not choose.
        batch_size: Images of a step.
    """
    return Recipe(
        name="small",
        method=method,
        encoder=EncoderSettings(backbone="small", stem="imagenet"),
        views=ViewSet(global_crops=mira_cifar(32)),
        preprocessing=Preprocessing(resize=32, size=32),
        optimizer=optimizer,
        batch_size=batch_size,
        epochs=epochs,
    )
