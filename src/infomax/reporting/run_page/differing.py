"""Section of several runs: which they are, and the settings in which they differ."""

from math import isfinite
from typing import Any

from infomax.recipes.schema import flat_settings
from infomax.reporting.pages.blocks import TableBlock
from infomax.reporting.pages.page import Section
from infomax.reporting.run_page.content import Content, public
from infomax.reporting.run_page.shown_runs import ShownRun
from infomax.reporting.tables import Cell, make_table
from infomax.runs.public_words import public_data_name

MAIN = ("batch_size", "epochs", "seed", "precision", "optimizer.name", "optimizer.learning_rate")
"""Settings that are told of runs of different recipes too, which differ in many."""
LONG = 8  # characters of a number from which on it is rounded


def section(content: Content) -> Section | None:
    """Returns the section; None of a single run."""
    runs = content.runs
    if len(runs) < 2:
        return None
    by_run = [settings_of(shown) for shown in runs]
    differing = [
        key for key in dict.fromkeys(key for x in by_run for key in x) if len({str(x.get(key)) for x in by_run}) > 1
    ]
    keys, notes = differing, []
    if "recipe" in differing:  # whose own settings follow from its name
        changed = {change.partition("=")[0] for shown in runs for change in shown.config.get("changes", ())}
        shown_keys = {*by_run[0].keys() - flat_settings(runs[0].recipe).keys(), *MAIN, *changed}
        keys = [key for key in differing if key in shown_keys]
        if len(keys) < len(differing):
            notes.append(
                f"{len(differing) - len(keys)} further settings of these recipes differ; the recipes stand below"
            )
    notes += [f"the {name} is that of all: {by_run[0][name]}" for name in ("data", "backbone") if name not in differing]
    lines = [[key, *(setting_cell(x.get(key)) for x in by_run)] for key in keys]
    table = make_table(["setting", *(shown.name for shown in runs)], lines, notes=notes)
    text = f"{len(runs)} runs, in the order in which they were named. What is the same in all of them is left out."
    return Section("What differs between the runs", text, (TableBlock(table),))


def settings_of(shown: ShownRun) -> dict[str, Any]:
    """Returns what decides a run's result, with how far it is."""
    recipe, settings = shown.recipe, flat_settings(shown.recipe)
    del settings["encoder.backbone"]
    seconds = shown.last("seconds")
    return {
        "recipe": f"{recipe.method.name}/{recipe.name}",
        "data": public_data_name(shown.run.location.data),
        "images": shown.config["images"],
        "backbone": public(recipe.encoder.backbone),
        "trained": shown.progress or f"to its end, {shown.total_steps:,} steps",
        **{key: public(str(value)) if isinstance(value, str) else value for key, value in settings.items()},
        "minutes of training": None if seconds is None else round(seconds / 60, 1),
    }


def setting_cell(value: Any) -> Cell:
    """Returns the cell of a setting, a number of many digits rounded to six."""
    if isinstance(value, list | tuple):
        return Cell(", ".join(setting_cell(item).text for item in value))
    if isinstance(value, bool) or value is None:
        return Cell("-" if value is None else "yes" if value else "no")
    if isinstance(value, int | float):
        text = str(value)
        return Cell(f"{value:.6g}" if len(text) > LONG and isfinite(value) else text, float(value))
    return Cell(str(value))
