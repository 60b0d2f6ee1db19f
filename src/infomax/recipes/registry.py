"""Recipes by method and name, and how a user's own choices change one."""

from difflib import get_close_matches

from infomax.recipes import carl, corinfomax, mira, mveb
from infomax.recipes.experiment import Experiment
from infomax.recipes.schema import Recipe
from infomax.runtime.checks import choose

METHODS = {module.SETTINGS.name: module for module in (mira, corinfomax, carl, mveb)}


def default_recipe_name(method: str, *, data: str, side: int, gpu: bool) -> str:
    """The recipe for these images on this machine, where the user named none.

    Args:
        side: Of a typical image, in pixels; the shorter one.
    """
    if data == "digits":
        return "digits"
    if not gpu:
        return "small"
    return "cifar10" if side <= 64 else METHODS[method].DEFAULT_FOR_LARGE_IMAGES


def experiments() -> dict[str, Experiment]:
    """All recipes of all methods, as ``mira/cifar10``."""
    return {one.name: one for module in METHODS.values() for one in module.RECIPES.values()}


def get_experiment(name: str, method: str | None = None) -> Experiment:
    """The recipe of this name with what a paper did with it.

    Args:
        name: ``METHOD/NAME``; or ``NAME`` alone, of ``method``, or where that is not given of MIRA or else of the one
            that has a recipe of this name.

    Raises:
        ValueError: naming what is near, if there is none, or if ``name`` and ``method`` contradict each other.
    """
    own, slash, bare = name.rpartition("/")
    if slash:
        choose(f"the method of the recipe {name}", own, METHODS)
        if method not in (None, own):
            raise ValueError(f"--recipe {name} is not of --method {method}")
    elif method is None:
        owners = [key for key, module in METHODS.items() if bare in module.RECIPES]
        if not owners:
            everything = [*experiments(), *(key for module in METHODS.values() for key in module.RECIPES)]
            near = get_close_matches(name, everything, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no recipe {name!r}; infomax recipes lists them{hint}")
        own = "mira" if "mira" in owners else owners[0]
    owner = choose("--method", own or method, METHODS)
    return METHODS[owner].RECIPES[choose(f"the recipe for {owner}", bare, METHODS[owner].RECIPES)]


def resolved(recipe: str | None, method: str | None) -> tuple[str | None, str | None, str]:
    """A recipe's name alone, its method, and the data set that it is for, of what a user said; None where nothing."""
    if recipe is None:
        return None, method, "digits"
    one = get_experiment(recipe, method)
    return one.function.__name__, one.method, one.data or "digits"


def get_recipe(method: str, name: str) -> Recipe:
    """The recipe of this name for this method."""
    return get_experiment(name, method).recipe()
