"""Recipes by method and name, and how a user's own choices change one."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from infomax.arguments import choose
from infomax.data.views import view_set
from infomax.recipes import carl, corinfomax, mira, mveb
from infomax.recipes.experiments import Experiment
from infomax.recipes.schema import Recipe, from_json, to_json

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
    return "cifar10" if side <= 64 else METHODS[method].PHOTOGRAPHS


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


def customise(
    recipe: Recipe,
    *,
    backbone: str | None = None,
    views: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    device_batch: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """``recipe`` with a user's choices; ``overrides`` are ``key=value`` with dots, as in ``method.beta=0.5``.

    A warm-up that ``epochs`` leave no room for is shortened to a tenth of them, unless it is set too.
    """
    if views is not None or image_size is not None:
        recipe = _resize(recipe, views, recipe.views.full[0].size if image_size is None else image_size)
    short = {
        "encoder.backbone": backbone,
        "epochs": epochs,
        "batch_size": batch_size,
        "device_batch": device_batch,
        "optimizer.learning_rate": learning_rate,
        "seed": seed,
        "precision": precision,
    }
    given = {key: value for key, value in short.items() if value is not None}
    wanted = [(key, str(value), f"--{key.split('.')[-1].replace('_', '-')}") for key, value in given.items()]
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: want key=value, as in method.beta=0.5")
        wanted.append((key, text, f"--set {key}"))
    # All at once: settings that depend on each other may come in any order.
    plain = json.loads(json.dumps(to_json(recipe)))
    for key, text, what in wanted:
        _assign(recipe, plain, key.split("."), text, what)
    optimizer, keys = plain["optimizer"], [key for key, _, _ in wanted]
    if "epochs" in keys and "optimizer.warmup_epochs" not in keys and plain["epochs"] <= optimizer["warmup_epochs"]:
        optimizer["warmup_epochs"] = max(0, plain["epochs"] // 10)  # a short look at a long recipe
    return from_json(plain, {name: module.SETTINGS for name, module in METHODS.items()})


def _resize(recipe: Recipe, name: str | None, size: int) -> Recipe:
    if size < 8:
        raise ValueError(f"--image-size must be at least 8 pixels, but is {size}")
    old = recipe.views.full[0].size
    if name is None:
        full = tuple(replace(view, size=size) for view in recipe.views.full)
        local = tuple(replace(view, size=max(1, round(view.size * size / old))) for view in recipe.views.local)
    else:
        full, local = view_set(name, size)
    resize = round(recipe.preprocessing.resize * size / recipe.preprocessing.size)
    return replace(
        recipe,
        views=replace(recipe.views, full=full, local=local),
        preprocessing=replace(recipe.preprocessing, resize=resize, size=size),
    )


def _assign(node: Any, plain: Any, path: list[str], text: str, what: str) -> None:
    """Set the value at ``path`` of ``plain``, the JSON of ``node``, to what ``text`` says."""
    head, *rest = path
    if isinstance(node, tuple):
        position = int(choose(what, head, map(str, range(len(node)))))
        _assign(node[position], plain[position], rest, text, what) if rest else _parse(Any, node[position], text, what)
        return
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        raise ValueError(f"{what}: {head!r} is below a single value")
    names = [field.name for field in dataclasses.fields(node)]
    choose(f"{what}: the setting", head, names[1:] if isinstance(node, Recipe) else names)  # all but its name
    if rest:
        _assign(getattr(node, head), plain[head], rest, text, what)
    else:
        plain[head] = _parse(get_type_hints(type(node))[head], getattr(node, head), text, what)


def _parse(hint: Any, old: Any, text: str, what: str) -> Any:
    """``text`` as a value of the type ``hint``."""
    if get_origin(hint) is Literal:
        return choose(what, text, get_args(hint))
    if get_origin(hint) is UnionType:
        if text.lower() == "none":
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    if isinstance(old, tuple) and old and not dataclasses.is_dataclass(old[0]):
        parts = text.strip("()[] ").split(",")
        if len(parts) != len(old):
            raise ValueError(f"{what} must be {len(old)} values with commas between them, but is {text!r}")
        return tuple(_parse(type(was), was, part.strip(), what) for was, part in zip(old, parts, strict=True))
    if hint is bool:
        return choose(what, text.lower(), ("true", "false")) == "true"
    if hint in (int, float, str):
        try:
            return hint(text)
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise ValueError(f"{what} must be {kind}, but is {text!r}") from None
    inner = [field.name for field in dataclasses.fields(old)] if dataclasses.is_dataclass(old) else ["0", "1"]
    raise ValueError(f"{what} is a group; set one of {', '.join(f'{what.split()[-1]}.{name}' for name in inner)}")
