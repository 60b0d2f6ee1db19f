"""Chooses the settings of a training that starts from the weights of another encoder.

The defaults are in this file alone. A user's own settings come after them.
"""

from dataclasses import dataclass, replace

from infomax.recipes.experiment import TYPICAL_IMAGES, Experiment
from infomax.recipes.schema import Recipe


@dataclass(frozen=True)
class AdaptingDefaults:
    """A frozen dataclass that holds what a training from initial weights does by default with the encoder."""

    backbone_rate: float = 1.0
    """Factor of the encoder's learning rate."""
    freeze: int = 0
    """Number of stages of the encoder that are not trained."""
    images_seen: int = 100_000
    """Number of images that the training sees in all, each as often as there are epochs, if no paper says the
    epochs."""


OWN_DEFAULTS = {"carl": AdaptingDefaults(backbone_rate=0.1, freeze=2, images_seen=20_000)}
"""The defaults of methods that have some of their own, as measured (docs/measurements/adapting.md): at the whole rate,
or in more epochs, CARL loses what the initial encoder had."""


def adapting_defaults(method: str) -> AdaptingDefaults:
    """Returns the defaults of a training by this method from initial weights."""
    return OWN_DEFAULTS.get(method, AdaptingDefaults())


def adapting_epochs(experiment: Experiment, images: int | None) -> int | None:
    """Returns the epochs of a training from initial weights, of which a user has said nothing.

    Args:
        experiment: The recipe with what a paper did with it.
        images: Number of images in the data set; None if it is not known.

    Returns:
        The epochs, at least one; None for a recipe that says its own.

    Example:
        >>> from infomax.recipes.adapting import adapting_epochs
        >>> from infomax.recipes.registry import get_experiment
        >>> adapting_epochs(get_experiment("small", "mveb"), images=5_000)
        20
    """
    if experiment.images_seen is None:
        return None
    method = experiment.name.partition("/")[0]
    return max(1, round(adapting_defaults(method).images_seen / (images or TYPICAL_IMAGES)))


def with_adapting_defaults(recipe: Recipe) -> Recipe:
    """Returns a recipe with the defaults of a training from initial weights.

    Args:
        recipe: The recipe, before a user's changes.
    """
    defaults = adapting_defaults(recipe.method.name)
    optimizer = replace(recipe.optimizer, backbone_rate=defaults.backbone_rate)
    return replace(recipe, encoder=replace(recipe.encoder, freeze=defaults.freeze), optimizer=optimizer)


def describe_adapting(recipe: Recipe) -> str:
    """Returns one line on the settings of a training from initial weights, and how to change them.

    Args:
        recipe: The recipe with a user's changes.
    """
    rate, frozen = recipe.optimizer.backbone_rate, recipe.encoder.freeze
    own_rate = "the" if rate == 1 else f"{rate:g} times the"
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return (
        f"with --init, the encoder has {own_rate} learning rate of the method's heads, {frozen or 'no'} "
        f"stage{'s are' if frozen > 1 else ' is'} frozen, and it is trained for {epochs}; --backbone-rate, --freeze "
        "and --epochs change that"
    )
