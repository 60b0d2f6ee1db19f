"""The options that train a run again, as a file for ``--options``: the way back from ``config.json``.

In: a run folder. Out: TOML. The options are tried before they are printed: they make the recipe of the run, to the last
setting, or there is an error.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from infomax.data.augmentation.views import VIEW_SETS
from infomax.data.splits import counted
from infomax.models.backbone_names import library_of
from infomax.recipes.customise import customise
from infomax.recipes.experiment import Experiment
from infomax.recipes.pixels import pixels_of, with_pixels
from infomax.recipes.registry import get_experiment
from infomax.recipes.schema import Recipe, flat_settings
from infomax.runs.run_folder import Run
from infomax.runtime.options import option_fields, pick
from infomax.runtime.stages import importing_torch
from infomax.training.loggers import DEFAULT_TOOLS, NONE
from infomax.training.options import ExecutionOptions, MachineOptions, PretrainOptions

OPTION_OF_SETTING = {
    "encoder.backbone": "backbone",
    "batch_size": "batch_size",
    "micro_batch_size": "micro_batch_size",
    "optimizer.learning_rate": "learning_rate",
    "encoder.freeze": "freeze",
    "optimizer.backbone_rate": "backbone_rate",
    "seed": "seed",
    "precision": "precision",
}
"""Settings of a recipe that have an option of their own, but for those of the views."""


@dataclass(frozen=True)
class SavedOptions:
    """A frozen dataclass that holds the options that train a run again."""

    run: Run
    options: Mapping[str, Any]
    """The options by their names, without ``out``."""
    settings: Mapping[str, Any]
    """Settings of the recipe that no option has, by the keys of ``--set``."""

    def toml(self) -> str:
        """Returns the text of a file for ``--options``."""
        launch = self.run.config.get("launch", {})
        lines = [f"# infomax pretrain --options THIS_FILE --out DIR trains {comment(self.run.path)} again."]
        if launch.get("device") == "cpu" and launch.get("threads"):
            threads = counted(launch["threads"], "thread")
            lines.append(f"# The weights are the same bits on a CPU with {threads} for each device.")
        if len(stages := self.run.stages) > 1:
            totals = [sum(stages[: number + 1]) for number in range(1, len(stages))]
            commands = ", then ".join(f"infomax pretrain --out DIR --resume --epochs {total}" for total in totals)
            lines.append(f"# It was extended, which is a command of its own after that: {commands}")
        lines += [f"{name} = {toml_value(value)}" for name, value in self.options.items()]
        if self.settings:
            lines += ["", "[set]", *(f"{key} = {toml_value(value)}" for key, value in self.settings.items())]
        return "\n".join(lines)


def saved_options(run: Run) -> SavedOptions:
    """Returns the options with which ``infomax pretrain`` trains a run again; of an extended run, its first training.

    Raises:
        ValueError: if it is no run folder, its initial encoder cannot be opened or has changed, or no options make its
            recipe in this version.
    """
    config, recipe = run.config, replace(run.recipe, epochs=run.stages[0])
    experiment = get_experiment(recipe.name, recipe.method.name)
    options = {"method": recipe.method.name, "recipe": recipe.name.rpartition("/")[2]}
    options |= {name: value for name, value in vars(run.location).items() if value is not None}
    options |= _recipe_options(experiment, recipe, images=config["images"])
    build = _builder(experiment, recipe, images=config["images"])
    settings = _different_settings(build(options, {}), recipe)
    if "encoder.init_fingerprint" in settings:
        raise ValueError(f"{run.path}: {recipe.encoder.init} is no longer the encoder that it started from")
    rebuilt = build(options, settings)
    if rebuilt != recipe:
        keys = ", ".join(_different_settings(rebuilt, recipe)) or "its method"
        raise ValueError(f"{run.path}: no options make its recipe in this version, because of {keys}")
    return SavedOptions(run, {**options, **_launch_options(config.get("launch", {}))}, settings)


def _recipe_options(experiment: Experiment, recipe: Recipe, *, images: int) -> dict[str, Any]:
    """Returns the options whose settings differ from the registered recipe; the number of epochs is always there."""
    registered = with_pixels(experiment.recipe(images=images, epochs=recipe.epochs), pixels_of(recipe))
    options: dict[str, Any] = _view_options(registered, recipe)
    if recipe.encoder.init is not None:
        options["init"] = recipe.encoder.init
    options["epochs"] = recipe.epochs
    before, after = flat_settings(registered), flat_settings(recipe)
    for key, name in OPTION_OF_SETTING.items():
        is_initials = key == "encoder.backbone" and recipe.encoder.init is not None
        if after[key] != before[key] and after[key] is not None and not is_initials:
            options[name] = after[key]
    return options


def _view_options(registered: Recipe, recipe: Recipe) -> dict[str, Any]:
    """Returns the set of views and the image size that leave the fewest settings of the views to be set."""
    views, size = recipe.views, recipe.views.global_crops[0].size
    counts = f"{len(views.global_crops)}+{len(views.local_crops)}"
    names = (None, *VIEW_SETS, *(f"{name}:{counts}" for name in VIEW_SETS))
    best: tuple[int, dict[str, Any]] | None = None
    for name, side in product(names, (None, size)):
        given = (("views", name), ("image_size", side))
        options: dict[str, Any] = {key: value for key, value in given if value is not None}
        try:
            tried = customise(registered, **options)
        except ValueError:  # as of a network that takes no images of this size
            continue
        parts = (tried.views.global_crops, tried.views.local_crops)
        if [*map(len, parts)] != [len(views.global_crops), len(views.local_crops)]:
            continue
        left = len(_different_settings(tried, replace(tried, views=views, preprocessing=recipe.preprocessing)))
        if best is None or left + len(options) < best[0]:
            best = left + len(options), options
    return {} if best is None else best[1]


def _builder(experiment: Experiment, recipe: Recipe, *, images: int) -> Any:
    """Returns a function that makes the recipe of some options and settings, as a training does."""
    settings_alone = recipe.encoder.init is None and library_of(recipe.encoder.backbone) is None
    initial = None
    if not settings_alone:
        with importing_torch():
            from infomax.training.initial import open_initial

        initial = open_initial(recipe.encoder.init)

    pixels = pixels_of(recipe)

    def build(options: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
        overrides = tuple(f"{key}={setting_text(value)}" for key, value in settings.items())
        changes = pick(PretrainOptions, {**options, "overrides": overrides, "out": Path()}).changes()
        if settings_alone:
            return customise(with_pixels(experiment.recipe(images=images, epochs=recipe.epochs), pixels), **changes)
        from infomax.training.initial import settle_recipe

        return settle_recipe(experiment, images=images, initial=initial, changes=changes, pixels=pixels)

    return build


def _different_settings(recipe: Recipe, wanted: Recipe) -> dict[str, Any]:
    """Returns the settings in which one recipe differs from another, with the other's values."""
    before = flat_settings(recipe)
    return {key: value for key, value in flat_settings(wanted).items() if before.get(key, before) != value}


def _launch_options(launch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the machine and of the execution that differ from their defaults."""
    fields = [field for cls in (MachineOptions, ExecutionOptions) for field in option_fields(cls)]
    options = {
        field.name: launch[field.name] for field in fields if launch.get(field.name, field.default) != field.default
    }
    if "log" in options:
        options["log"] = [*options["log"]] or [NONE]
        if options["log"] == [*DEFAULT_TOOLS]:
            del options["log"]
    if launch.get("keep_epochs"):
        options["keep_epochs"] = [*launch["keep_epochs"]]
    return options


def setting_text(value: Any) -> str:
    """Returns a setting as ``--set`` takes it."""
    return ",".join(map(setting_text, value)) if isinstance(value, list | tuple) else str(value)


def toml_value(value: Any) -> str:
    """Returns a plain value as TOML writes it; None, which TOML does not have, is the text ``none``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps("none" if value is None else str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def comment(text: object) -> str:
    """Returns a text as it may stand in a comment of TOML, on one line."""
    return "".join(character if character.isprintable() else "?" for character in str(text))
