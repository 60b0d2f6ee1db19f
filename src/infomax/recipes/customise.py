"""Applies a user's changes to a recipe: options of the command, and ``--set key=value`` for every other setting."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from infomax.data.augmentation.views import PROBABILITIES, Preprocessing, View, ViewSet, view_set
from infomax.models.backbone_names import check_backbone, check_encoder_name, library_of
from infomax.recipes.experiment import Experiment
from infomax.recipes.registry import METHODS, get_experiment, recipe_from_json
from infomax.recipes.schema import MAX_EPOCHS, EncoderSettings, Recipe, flat_settings, to_json
from infomax.runtime.checks import choose
from infomax.runtime.json_values import WORDS, parse_value, shorten
from infomax.runtime.near_names import nearest, nearest_option

ANY_IMAGES = 1000  # by whose number a recipe is tried before the images are counted
LONGEST_KEY = 100  # characters, in a message
SMALLEST_SIZE = 8  # pixels
# ``views.NAME`` sets these for all views; their sizes differ, and --image-size keeps their proportion.
SETTINGS_OF_ALL_VIEWS = [field.name for field in dataclasses.fields(View) if field.name != "size"]


def customise_experiment(experiment: Experiment, *, images: int | None, **changes: Any) -> Recipe:
    """Returns an experiment's recipe for a data set, with a user's changes.

    Settings that follow from the number of epochs, as the schedule of a weight, follow from the number that the user
    chose.

    Args:
        experiment: The recipe with what a paper did with it.
        images: Number of images in the data set; None if it is not known.
        changes: The arguments of :func:`customise`.

    Raises:
        ValueError: as :func:`customise`.
    """
    return customise(experiment.recipe(images=images, epochs=chosen_epochs(changes)), **changes)


def chosen_epochs(changes: Mapping[str, Any]) -> int | None:
    """Returns the number of epochs among a user's changes, as an option or as ``--set epochs=N``.

    Args:
        changes: The arguments of :func:`customise`.

    Returns:
        The number; None if there is none that a recipe can have, which :func:`customise` refuses.
    """
    assignments = (assignment.partition("=") for assignment in changes.get("overrides", ()))
    texts = [str(changes.get("epochs")), *(text for key, _, text in assignments if key == "epochs")]
    numbers = [int(text) for text in texts if text.isdecimal() and 0 < int(text) <= MAX_EPOCHS]
    return numbers[-1] if numbers else None


def customise(
    recipe: Recipe,
    *,
    backbone: str | None = None,
    init: str | None = None,
    views: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    learning_rate: float | None = None,
    freeze: int | None = None,
    backbone_rate: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Returns the recipe with a user's changes; settings whose argument is None stay as they are.

    A warm-up that ``epochs`` leave no room for is shortened to a tenth of them, unless it is set too.

    Args:
        recipe: The recipe to change.
        backbone: The encoder's network, as ``resnet18``.
        init: Name of the encoder whose weights the training starts from. Its architecture and preprocessing are not
            looked up here: :func:`start_from` sets them before.
        views: Name of a set of views, as ``byol`` or ``dino:2+6``.
        image_size: Side of the global crops, in pixels; local crops and the preprocessing change in proportion.
        epochs: Passes over the images.
        batch_size: Images of a step, over all devices.
        micro_batch_size: Images that go through the networks at once on each device.
        learning_rate: Peak learning rate.
        freeze: Number of the encoder's stages, from the input on, that are not trained.
        backbone_rate: Factor of the encoder's learning rate.
        seed: Seed of the weights, the order of the images and the views.
        precision: Precision of the networks: ``64``, ``32``, ``bf16`` or ``16``.
        overrides: Further changes as ``key=value``, with dots in the key, as ``method.beta=0.5``. ``views.NAME`` sets
            all views.

    Raises:
        ValueError: if there is no such setting, or its value is not possible.
    """
    if views is not None or image_size is not None:
        recipe = _resize(recipe, views, recipe.views.global_crops[0].size if image_size is None else image_size)
    if backbone is not None:
        check_backbone("--backbone", backbone)
    options = {
        "encoder.backbone": backbone,
        "encoder.init": init,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "optimizer.learning_rate": learning_rate,
        "encoder.freeze": freeze,
        "optimizer.backbone_rate": backbone_rate,
        "seed": seed,
        "precision": precision,
    }
    changes = [
        (key, str(value), f"--{key.split('.')[-1].replace('_', '-')}")
        for key, value in options.items()
        if value is not None
    ]
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {shorten(assignment)}: want key=value, as in method.beta=0.5")
        if key.startswith("encoder.init"):
            raise ValueError(f"--set {key[:LONGEST_KEY]}: --init NAME says which weights the training starts from")
        if key.startswith(("encoder.channels", "preprocessing.pixel_format")):
            raise ValueError(f"--set {key[:LONGEST_KEY]}: --channels and --value-range say what the images are")
        changes.append((key, text, f"--set {key[:LONGEST_KEY]}"))
    # The recipe is built once, after all changes: settings that depend on each other may come in any order.
    plain = json.loads(json.dumps(to_json(recipe)))
    if backbone is not None and library_of(backbone):
        plain["encoder"] |= {"stem": "imagenet", "stem_padding": 1}  # the recipe's stem is for our own networks
    for key, text, option in changes:
        _assign(recipe, plain, key.split("."), text, option)
    optimizer, keys = plain["optimizer"], [key for key, _, _ in changes]
    if "epochs" in keys and "optimizer.warmup_epochs" not in keys and plain["epochs"] <= optimizer["warmup_epochs"]:
        optimizer["warmup_epochs"] = max(
            0, plain["epochs"] // 10
        )  # so that a long recipe can be tried for a few epochs
    try:
        return recipe_from_json(plain)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")  # the name of a setting, without its group
        if len(options_of_name := [option for key, _, option in changes if key.rpartition(".")[2] == name]) == 1:
            raise ValueError(f"{options_of_name[0]} {rest}") from error
        raise


def check_changes(method: str, recipe: str | None, changes: Mapping[str, Any]) -> None:
    """Checks a user's changes before the images are open, which decide on the recipe if the user does not.

    What depends on the images or on initial weights is left for later: means and spreads, which have a number for each
    channel, and with ``init`` the settings of its encoder.

    Args:
        method: Name of the method.
        recipe: Name of its recipe; None if it is to be chosen.
        changes: The arguments of :func:`customise`.

    Raises:
        ValueError: if none of the recipes that may be chosen can be changed so.
    """
    settings = {"overrides", "backbone", "freeze"} if changes.get("init") is not None else set()
    known: dict[str, Any] = {name: x for name, x in changes.items() if name not in {*settings, "init"}}
    overrides = [x for x in known.pop("overrides", ()) if x.partition("=")[0].rpartition(".")[2] not in ("mean", "std")]
    if changes.get("init") is not None:
        check_encoder_name(changes["init"])
    names = [recipe] if recipe is not None else sorted(METHODS[method].recipes, key=lambda name: name != "small")
    errors = []
    for name in names:
        try:
            customise_experiment(get_experiment(name, method), images=ANY_IMAGES, overrides=overrides, **known)
        except ValueError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def start_from(recipe: Recipe, encoder: EncoderSettings, preprocessing: Preprocessing) -> Recipe:
    """Returns the recipe for a training that starts from the weights of an encoder.

    Views and evaluation get the encoder's size, mean and standard deviation. The user's own changes come afterwards.

    Args:
        recipe: The recipe to change.
        encoder: The encoder's architecture, name and fingerprint.
        preprocessing: The preprocessing that the encoder was trained for.
    """
    views = _resize(recipe, None, max(preprocessing.size, SMALLEST_SIZE)).views
    return replace(
        recipe,
        encoder=encoder,
        views=replace(views, mean=preprocessing.mean, std=preprocessing.std),
        preprocessing=preprocessing,
    )


def _resize(recipe: Recipe, name: str | None, size: int) -> Recipe:
    """Returns the recipe with views of another size, in pixels, and of another set if a name is given."""
    if size < SMALLEST_SIZE:
        raise ValueError(f"--image-size must be at least {SMALLEST_SIZE} pixels, but is {size}")
    old = recipe.views.global_crops[0].size
    if name is None:
        global_crops = tuple(replace(view, size=size) for view in recipe.views.global_crops)
        local_crops = tuple(
            replace(view, size=max(1, round(view.size * size / old))) for view in recipe.views.local_crops
        )
    else:
        global_crops, local_crops = view_set(name, size)
    resize = round(recipe.preprocessing.resize * size / recipe.preprocessing.size)
    return replace(
        recipe,
        views=replace(recipe.views, global_crops=global_crops, local_crops=local_crops),
        preprocessing=replace(recipe.preprocessing, resize=resize, size=size),
    )


def _assign(node: Any, plain: Any, path: list[str], text: str, option: str) -> None:
    """Sets one value of a recipe's JSON.

    Args:
        node: The recipe, or the part of it that ``path`` starts from.
        plain: The JSON of ``node``, which is changed.
        path: The key, split at its dots.
        text: The value as the user wrote it.
        option: The option that set it, for messages.
    """
    head, *rest = path
    if isinstance(node, tuple):
        position = int(choose(option, head, map(str, range(len(node)))))
        if rest:
            _assign(node[position], plain[position], rest, text, option)
        else:
            _parse(Any, node[position], text, option)  # raises, because an element is a group of settings
        return
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        raise ValueError(f"{option}: {head!r} is below a single value")
    names = [field.name for field in dataclasses.fields(node)]
    if isinstance(node, ViewSet):
        if head in SETTINGS_OF_ALL_VIEWS:
            for name in ("global_crops", "local_crops"):
                for view, plain_view in zip(getattr(node, name), plain[name], strict=True):
                    _assign(view, plain_view, path, text, option)
            return
        names += SETTINGS_OF_ALL_VIEWS
    if isinstance(node, View) and head in PROBABILITIES:
        text = {"true": "1", "false": "0"}.get(text.lower(), text)
    if isinstance(node, Recipe):
        names.remove("name")
        if head not in (*names, "name") and (key := _key_of(node, head)) is not None:
            raise ValueError(f"{option}: there is no setting {shorten(head)}; did you mean {key}?")
    if head not in names and (meant := _usual_name(head, names)) is not None:
        raise ValueError(f"{option}: there is no setting {shorten(head)}; did you mean {meant}?")
    choose(f"{option}: the setting", head, names)
    if rest:
        _assign(getattr(node, head), plain[head], rest, text, option)
    else:
        plain[head] = _parse(get_type_hints(type(node))[head], getattr(node, head), text, option)


def _usual_name(name: str, names: Sequence[str]) -> str | None:
    """Returns the setting of a group that a user names as is usual elsewhere, as ``wd``; None if it is spelled alike.

    Args:
        name: A name that is no setting of the group.
        names: The settings of the group.
    """
    if nearest(name, names) is not None:
        return None
    dashed = {setting.replace("_", "-"): setting for setting in names}
    near = nearest_option(name, [*dashed, "set"]) or ""
    if near.startswith("set "):  # of "set optimizer.weight_decay=X" the last name
        near = near.partition("=")[0].rpartition(".")[2].replace("_", "-")
    return dashed.get(near)


def _key_of(recipe: Recipe, name: str) -> str | None:
    """Returns the key of the setting that a user names without its group, or by a name that is usual elsewhere.

    Args:
        recipe: The recipe.
        name: A name that is no setting or group of the recipe, as ``weight_decay`` or ``lr``.
    """
    keys = {key.rpartition(".")[2].replace("_", "-"): key for key in reversed(flat_settings(recipe))}
    name = name.lower().replace("_", "-")
    near = name if name in keys else nearest_option(name, [*keys, "set"])
    if near is not None and near.startswith("set "):
        return near.removeprefix("set ").partition("=")[0]
    return keys.get(near or "")


def _parse(hint: Any, old: Any, text: str, option: str) -> Any:
    """Returns the value that a text stands for.

    Args:
        hint: The type of the setting.
        old: The present value, which says how many values a tuple has.
        text: The value as the user wrote it.
        option: The option that set it, for messages.
    """
    if get_origin(hint) is Literal:
        return choose(option, text, get_args(hint))
    if get_origin(hint) in (UnionType, Union):
        if text.lower() == "none":
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
        return _parse(hint, old, text, option)
    if isinstance(old, tuple) and old and not dataclasses.is_dataclass(old[0]):
        parts = text.strip("()[] ").split(",")
        if len(parts) != len(old):
            raise ValueError(f"{option} must be {len(old)} values with commas between them, but is {shorten(text)}")
        return tuple(_parse(type(item), item, part.strip(), option) for item, part in zip(old, parts, strict=True))
    if hint is bool:
        return choose(option, text.lower(), ("true", "false")) == "true"
    if hint in (int, float, str):
        try:
            return parse_value(hint(text), hint, option)
        except ValueError:
            raise ValueError(f"{option} must be {WORDS[hint]}, but is {shorten(text)}") from None
    inner = [field.name for field in dataclasses.fields(old)] if dataclasses.is_dataclass(old) else ["0", "1"]
    raise ValueError(f"{option} is a group; set one of {', '.join(f'{option.split()[-1]}.{name}' for name in inner)}")
