"""Lists all methods and finds their recipes by name."""

import re
from dataclasses import dataclass
from typing import Any

from infomax.recipes import (
    barlow,
    byol,
    carl,
    corinfomax,
    deepcluster,
    densecl,
    dino,
    emp_ssl,
    lejepa,
    mira,
    mmcr,
    moco,
    mocov3,
    mveb,
    mvib,
    nnclr,
    pcl,
    ressl,
    self_classifier,
    simclr,
    simsiam,
    spectral,
    swav,
    twist,
    unigrad,
    vicreg,
    visreg,
    wmse,
)
from infomax.recipes.experiment import Experiment
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import Recipe, from_json
from infomax.runtime.checks import choose
from infomax.runtime.near_names import NAMES_OF_PARTS, OTHER_METHODS, nearest
from infomax.runtime.plugins import registry

ENTRY_POINTS = "infomax.methods"
"""Group of entry points by which another package adds a method; each names a :class:`MethodSpec`."""


METHODS = registry(
    MethodSpec,
    "method",
    [
        mira.METHOD,
        corinfomax.METHOD,
        carl.METHOD,
        mveb.METHOD,
        # The baselines, which have no paper among the four, in the order of their names.
        barlow.METHOD,
        byol.METHOD,
        deepcluster.METHOD,
        densecl.METHOD,
        dino.METHOD,
        emp_ssl.METHOD,
        lejepa.METHOD,
        mmcr.METHOD,
        moco.METHOD,
        mocov3.METHOD,
        mvib.METHOD,
        nnclr.METHOD,
        pcl.METHOD,
        ressl.METHOD,
        self_classifier.METHOD,
        simclr.METHOD,
        simsiam.METHOD,
        spectral.METHOD,
        swav.METHOD,
        twist.METHOD,
        unigrad.METHOD,
        vicreg.METHOD,
        visreg.METHOD,
        wmse.METHOD,
    ],
    ENTRY_POINTS,
)
"""All methods by name."""
DEFAULT_METHOD = mveb.METHOD.name
"""The method of a training that names none: the best of the four on photographs, as measured
(docs/measurements/photographs.md); it also has no prototypes, whose number would have to suit the images."""


def choose_method(name: str, recipe: str | None = None) -> str:
    """Returns the name of a method if there is such a method.

    Args:
        name: What the user gave.
        recipe: Full name of the recipe that names the method; None if ``--method`` does.

    Raises:
        ValueError: if there is none; the message lists the methods, and says so of a known method of others.
    """
    if name not in METHODS:
        problem = f"there is no recipe {recipe}" if recipe else f"--method {name}"
        usual_name = re.sub(r"[ _]", "-", name.lower())
        if OTHER_METHODS.fullmatch(usual_name):
            raise ValueError(f"{problem}: {name} is not one of infomax's methods, which are {', '.join(METHODS)}")
        if usual_name in NAMES_OF_PARTS:
            raise ValueError(f"{problem}: {name} is no method's name; did you mean {NAMES_OF_PARTS[usual_name]}?")
    return choose(f"the method of the recipe {recipe}" if recipe else "--method", name, METHODS)


def default_recipe_name(method: str, *, data: str, side: int, gpu: bool) -> str:
    """Returns the name of the recipe that a method has for these images on this machine.

    Args:
        method: Name of the method.
        data: Name of the data set.
        side: Shorter side of a typical image, in pixels.
        gpu: Whether the run is for a GPU.

    Raises:
        ValueError: if there is no such method.
    """
    return METHODS[choose_method(method)].default_recipe(data=data, side=side, gpu=gpu)


def methods_with_papers() -> list[str]:
    """Returns the names of the methods whose papers' tables are known."""
    return [name for name, spec in METHODS.items() if spec.paper]


def baselines() -> list[str]:
    """Returns the names of the methods that the four papers compare theirs with."""
    return [name for name, spec in METHODS.items() if not spec.paper]


def method_groups() -> dict[str, list[str]]:
    """Returns the words that stand for several methods, each with their names."""
    return {"papers": methods_with_papers(), "baselines": baselines(), "all": [*methods_with_papers(), *baselines()]}


def named_methods() -> str:
    """Returns the names of all methods for ``--help``, the baselines apart from the four papers' methods."""
    of_papers, others = "|".join(methods_with_papers()), ", ".join(baselines())
    return f"{of_papers}, or a baseline: {others}" if others else of_papers


def experiments() -> dict[str, Experiment]:
    """Returns all recipes of all methods by their full names, as ``mira/cifar10``."""
    return {experiment.name: experiment for spec in METHODS.values() for experiment in spec.recipes.values()}


def get_experiment(name: str, method: str | None = None) -> Experiment:
    """Returns the recipe of this name with what a paper did with it.

    Args:
        name: ``METHOD/NAME``; or ``NAME`` alone, of ``method``, or, without ``method``, of the default method, or the
            first one that has a recipe of this name.
        method: Name of the method that the recipe must belong to.

    Raises:
        ValueError: if there is no such recipe, naming the nearest one, or if ``name`` and ``method`` contradict each
            other.
    """
    owner, slash, bare = name.rpartition("/")
    if slash:
        choose_method(owner, name)
        if method not in (None, owner):
            raise ValueError(f"--recipe {name} is not of --method {method}")
    elif method is None:
        owners = [spec.name for spec in METHODS.values() if bare in spec.recipes]
        if not owners:
            names = [*experiments(), *METHODS, *(key for spec in METHODS.values() for key in spec.recipes)]
            near = nearest(name, names)
            hint = f"; did you mean {near}?" if near else ""
            of_method = f" {name}" if name in METHODS else ""
            raise ValueError(f"there is no recipe {name!r}; infomax recipes{of_method} lists them{hint}")
        owner = DEFAULT_METHOD if DEFAULT_METHOD in owners else owners[0]
    owner = choose_method(owner or method or DEFAULT_METHOD)
    recipes = METHODS[owner].recipes
    if bare not in recipes:
        hint = f"; did you mean {near}?" if (near := nearest(bare, recipes)) else ""
        raise ValueError(f"there is no recipe {bare!r} for {owner}; infomax recipes {owner} lists them{hint}")
    return recipes[bare]


def get_recipe(method: str, name: str) -> Recipe:
    """Returns the recipe of this name for this method."""
    return get_experiment(name, method).recipe()


def recipe_from_json(plain: Any, *, key: str = "") -> Recipe:
    """Returns the recipe that :func:`infomax.recipes.schema.to_json` wrote.

    Args:
        plain: The recipe as values of JSON.
        key: The key of the recipe, with a file's name before it, for messages.

    Raises:
        ValueError: naming the setting, if it is missing, unknown, of another type, not possible, or of a method that is
            not installed.
    """
    return from_json(plain, {name: spec.settings for name, spec in METHODS.items()}, key=key)


@dataclass(frozen=True)
class RecipeChoice:
    """A frozen dataclass that holds which method and recipe a user named, as far as they did."""

    method: str | None
    recipe: str | None
    """The recipe's name without its method."""
    data: str | None
    """The data set to train on if the user names none: that of the recipe; None if it has none."""


def parse_recipe_choice(recipe: str | None, method: str | None) -> RecipeChoice:
    """Splits the name of a recipe into method and bare name, and looks up the data set that it is for.

    Raises:
        ValueError: if there is no such recipe or method, or they do not belong together.
    """
    if recipe is None:
        return RecipeChoice(None if method is None else choose_method(method), None, None)
    experiment = get_experiment(recipe, method)
    return RecipeChoice(experiment.method, experiment.function.__name__, experiment.data)
