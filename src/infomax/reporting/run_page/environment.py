"""Section with all that is needed to train the same again: commands, versions, machine, and the recipe."""

import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from infomax.evaluation.results import read_results
from infomax.recipes.registry import get_experiment
from infomax.recipes.schema import Recipe, flat_settings
from infomax.reporting.pages.blocks import Commands, Facts, TableBlock
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, headed, public
from infomax.reporting.run_page.differing import setting_cell
from infomax.reporting.run_page.shown_runs import ShownRun
from infomax.reporting.tables import Cell, make_table
from infomax.runs.public_words import public_data_name

CHANGED = "changed"
"""Mark of a setting that differs from the recipe's own."""


def section(content: Content) -> Section | None:
    """Returns the section; None if there is no run folder."""
    if not content.runs:
        return None
    blocks: list[Block] = []
    for shown in content.runs:
        prefix = content.prefix(shown)
        blocks.append(Commands("\n".join(commands_of(shown)), headed(prefix, "the commands that were typed")))
        blocks.append(Facts(tuple(facts_of(shown, prefix).items())))
        blocks.append(TableBlock(recipe_table(shown, prefix)))
    text = "infomax options RUN prints these settings as a file, with which infomax pretrain --options trains it again."
    return Section("Environment, commands and recipe", text, tuple(blocks))


def commands_of(shown: ShownRun) -> list[str]:
    """Returns the commands of a run as they were typed: of its start, its resumptions and its evaluations."""
    config = shown.config
    words = [entry.get("command") for entry in (config, *config.get("resumed", []))]
    commands = [command_text(argv) for argv in words if isinstance(argv, list) and argv]
    file = shown.run.path / "results.jsonl"
    commands += [row.command for row in (read_results(file) if file.exists() else []) if row.command]
    return [*dict.fromkeys(commands)] or ["the command is not known"]


def command_text(argv: Sequence[Any]) -> str:
    """Returns the words of a process as somebody types them: the program by its name, not by its path."""
    first, *others = map(str, argv)
    program = PurePath(first)
    name = program.name if program.name != "__main__.py" else f"python -m {program.parent.name}"
    return " ".join(
        [name if " " not in name or name.startswith("python -m") else shlex.quote(name), shlex.join(others)]
    ).strip()


def facts_of(shown: ShownRun, prefix: str) -> dict[str, str]:
    """Returns what is known of the process that trained a run, by the words that stand before it."""
    config, machine, launch = shown.config, shown.config.get("machine") or {}, shown.run.launch
    versions = config.get("versions") or {}
    trained_on = f"{public_data_name(shown.run.location.data)}: {config['images']:,} images"
    if split := config.get("train_split"):
        trained_on += f", split {split}"
    hardware = ", ".join(str(machine[key]) for key in ("system", "cpu") if machine.get(key))
    cores = f", {machine['cores']} cores" if machine.get("cores") else ""
    facts = {
        f"{prefix}trained on": trained_on,
        "notes on the data": "; ".join(public(str(note)) for note in config.get("notes", [])),
        "started": str(config.get("started", "")),
        "resumed": ", ".join(str(entry.get("started", "")) for entry in config.get("resumed", [])),
        "machine": f"{hardware}{cores}",
        "GPU": str(launch.get("gpu") or ""),
        "launch": ", ".join(
            f"{key} {setting_cell(value).text}" for key, value in launch.items() if value not in (None, False, [], "")
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": str(config.get("commit") or "not from a checkout"),
        "fingerprint of the images": str(config.get("fingerprint", "")),
    }
    return {name: public(value) for name, value in facts.items() if value}


def recipe_table(shown: ShownRun, prefix: str) -> Any:
    """Returns the table of all settings, those that were changed first, beside the recipe's own values."""
    recipe = shown.recipe
    settings, own = flat_settings(recipe), own_settings(recipe)
    changed = [key for key, value in settings.items() if own is not None and own.get(key) != value]
    lines: list[list[Cell | str]] = []
    for key in [*changed, *(key for key in settings if key not in changed)]:
        value = public(settings[key]) if isinstance(settings[key], str) else settings[key]
        beside = setting_cell((own or {}).get(key)) if key in changed else Cell("")
        lines.append([key, setting_cell(value), beside, CHANGED if key in changed else ""])
    changes = describe_changes(len(changed), own is not None)
    title = headed(prefix, f"recipe {recipe.method.name}/{recipe.name}: {changes}")
    return make_table(["setting", "value", "the recipe's own", ""], lines, title=title)


def describe_changes(count: int, is_known: bool) -> str:
    """Returns words for how many settings were changed."""
    if not is_known:
        return "its own values are not known in this version"
    return "as it is" if not count else f"{count} setting{'' if count == 1 else 's'} changed"


def own_settings(recipe: Recipe) -> dict[str, Any] | None:
    """Returns the settings of the registered recipe of a recipe's name; None if there is none in this version."""
    try:
        experiment = get_experiment(recipe.name, recipe.method.name)
    except ValueError:
        return None
    return flat_settings(experiment.recipe(epochs=recipe.epochs))
