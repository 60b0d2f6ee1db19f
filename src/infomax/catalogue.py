"""The recipes as text: a list of them, or one in full."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from infomax import recipes
from infomax.arguments import choose
from infomax.recipes.experiments import Experiment
from infomax.recipes.schema import settings
from infomax.report import printed
from infomax.table import table


def listed(names: Sequence[str], *, paper: str | None, data: str | None) -> list[Experiment]:
    """The recipes of these names or patterns, of this paper, for this data set; all, where nothing is asked for.

    Raises:
        ValueError: if a name or a filter fits none of all recipes, with what is near.
    """
    found = list(recipes.experiments().values())
    if names:
        wanted = {}
        for name in names:
            own = [e for e in found if fnmatchcase(e.name, name) or fnmatchcase(e.name.partition("/")[2], name)]
            wanted |= {e.name: e for e in own or [recipes.get_experiment(name)]}
        found = list(wanted.values())
    if paper is not None:
        choose("--paper", paper.lower(), recipes.METHODS)
        found = [e for e in found if e.method == paper.lower()]
    if data is not None:
        choose("--data", data, sorted({e.data for e in recipes.experiments().values() if e.data}))
        found = [e for e in found if e.data == data]
    if not found:
        raise ValueError("no recipe is all of that; infomax recipes alone lists them")
    return found


def as_list(found: Sequence[Experiment]) -> str:
    """A line each: what it is, what the paper reports and what it costs."""
    rows = []
    for experiment in found:
        recipe, main = experiment.recipe(), experiment.main
        cost = "" if experiment.exaflops is None else f"{experiment.exaflops:g}"
        where = f"{main.table.paper} {main.table.number}" if main else ""
        score = ("" if main is None else printed(main.value, main.deviation)) + (
            "?" if main and main.row.uncertain else ""
        )
        extent = (str(recipe.epochs), str(recipe.batch_size))
        rows.append([experiment.name, experiment.data or "any", recipe.encoder.backbone, *extent, cost, score, where])
    header = ["", "data", "encoder", "epochs", "batch", "EFLOP", "linear top-1", "in"]
    note = "EFLOP: 1e18 floating-point operations of the whole training. ?: hard to read in the paper."
    return f"{table(header, rows)}\n{note} infomax recipes NAME prints one in full."


def in_full(experiment: Experiment, overrides: Sequence[str]) -> str:
    """All settings of a recipe, what the paper reports of it, and the commands that make it.

    Args:
        overrides: Changes, as ``key=value``; they are marked.
    """
    own = settings(experiment.recipe())
    changed = settings(recipes.customise(experiment.recipe(), overrides=overrides))
    width = max(map(len, changed))
    told = [f"  {key.ljust(width)}  {_plain(value)}{_was(own[key], value)}" for key, value in changed.items()]
    folder = f"runs/{experiment.name.replace('/', '-')}"
    sets = "".join(f" --set {override}" for override in overrides)
    data = f" --data {experiment.data}" if experiment.data else " --data DIR"
    train = f"  infomax pretrain --recipe {experiment.name}{data}{sets} --out {folder}"
    judge = f"  infomax evaluate linear {folder}"
    if (main := experiment.main) is not None and main.column.probe:
        judge += f" --probe {main.column.probe}"
    numbers = [
        f"  {n.table.paper}, {n.table.number}: {n.column.name} {printed(n.value, n.deviation)}"
        + (f" (uncertain: {n.row.uncertain})" if n.row.uncertain else "")
        for n in experiment.numbers()
    ]
    blocks = [
        f"{experiment.name}: {experiment.about}",
        "\n".join(["To reproduce it:" if numbers else "To train it:", train, judge]),
        "\n".join(["Published:", *numbers]) if numbers else "",
        "\n".join(["Settings:", *told]),
    ]
    return "\n\n".join(block for block in blocks if block)


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value)) or "none"
    if isinstance(value, bool | None):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _was(old: object, new: object) -> str:
    return "" if old == new else f"   (changed from {_plain(old)})"
