"""Says under which conditions of the published tables a recipe trains."""

from collections import Counter

from infomax.data.augmentation.views import ViewSet
from infomax.papers.published import Conditions
from infomax.recipes.registry import METHODS
from infomax.recipes.schema import Recipe

SETTINGS = {
    "encoder.backbone": "backbone",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "optimizer.learning_rate": "learning_rate",
}
"""Conditions by the keys of the settings that all methods have; a method's own are in its ``MethodSpec``."""
BACKBONES = {"vit_small": "vit-s"}
"""Backbones that the tables call by another name."""


def recipe_conditions(recipe: Recipe) -> Conditions:
    """Returns the conditions of a training that was finished; those that the method does not know are None."""
    values = {condition: getattr(recipe.method, name) for name, condition in _method_conditions(recipe).items()}
    if "moving_average" in values:
        values["moving_average"] = values["moving_average"] is not None
    return Conditions(
        backbone=BACKBONES.get(recipe.encoder.backbone, recipe.encoder.backbone),
        epochs=recipe.epochs,
        schedule_epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.optimizer.learning_rate,
        multi_crop=bool(recipe.views.local_crops),
        crops=_crops(recipe.views),
        **values,
    )


def condition_of(recipe: Recipe, key: str) -> str | None:
    """Returns the condition that tells the value of a setting, or None if none does.

    Args:
        recipe: A recipe of the method.
        key: The setting, as ``--set`` names it.
    """
    if key.startswith("views.") and key.endswith(".size"):
        return "crops"
    if key == "views.local_crops":
        return "multi_crop"
    of_the_method = {f"method.{name}": condition for name, condition in _method_conditions(recipe).items()}
    condition = (SETTINGS | of_the_method).get(key)
    # That there is a moving average does not tell with which momentum.
    return None if condition == "moving_average" and recipe_conditions(recipe).moving_average else condition


def method_of(recipe: Recipe) -> str:
    """Returns the name that the tables have for the recipe's method, or the method's own name if none has it."""
    return METHODS[recipe.method.name].paper or recipe.method.name


def settings_of_paper(paper: str) -> frozenset[str]:
    """Returns the conditions that are settings of a paper's own method, or its learning rate."""
    (spec,) = (spec for spec in METHODS.values() if spec.paper == paper)
    return frozenset({"learning_rate", *spec.conditions.values()})


def _method_conditions(recipe: Recipe) -> dict[str, str]:
    return METHODS[recipe.method.name].conditions


def _crops(views: ViewSet) -> str:
    """Returns the numbers and sides of the crops, as ``2x224+6x96``."""
    crops = Counter((kind, view.size) for kind in ("global_crops", "local_crops") for view in getattr(views, kind))
    return "+".join(f"{count}x{size}" for (_, size), count in crops.items())
