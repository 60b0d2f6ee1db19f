"""Changes a user makes to a recipe: options, and ``--set key=value`` for every other setting."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from infomax.data.augmentation.views import view_set
from infomax.recipes.registry import METHODS
from infomax.recipes.schema import Recipe, from_json, to_json
from infomax.runtime.checks import choose


def customise(
    recipe: Recipe,
    *,
    backbone: str | None = None,
    views: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """``recipe`` with a user's choices; ``overrides`` are ``key=value`` with dots, as in ``method.beta=0.5``.

    A warm-up that ``epochs`` leave no room for is shortened to a tenth of them, unless it is set too.
    """
    if views is not None or image_size is not None:
        recipe = _resize(recipe, views, recipe.views.global_crops[0].size if image_size is None else image_size)
    short = {
        "encoder.backbone": backbone,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
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
    old = recipe.views.global_crops[0].size
    if name is None:
        full = tuple(replace(view, size=size) for view in recipe.views.global_crops)
        local = tuple(replace(view, size=max(1, round(view.size * size / old))) for view in recipe.views.local_crops)
    else:
        full, local = view_set(name, size)
    resize = round(recipe.preprocessing.resize * size / recipe.preprocessing.size)
    return replace(
        recipe,
        views=replace(recipe.views, global_crops=full, local_crops=local),
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
