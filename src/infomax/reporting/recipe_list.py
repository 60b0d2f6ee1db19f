"""The recipes as text: a list of them, or one in full."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from infomax.planning.gpus import GPUS
from infomax.planning.gpus import hours as train_hours
from infomax.recipes import registry
from infomax.recipes.customise import customise
from infomax.recipes.experiment import Experiment
from infomax.recipes.schema import flat_settings
from infomax.reporting.comparison import format_published
from infomax.reporting.tables import make_table
from infomax.runtime.checks import check_number, choose


def listed(
    names: Sequence[str], *, paper: str | None, data: str | None, hours: float | None, gpu: str
) -> list[Experiment]:
    """The recipes of these names or patterns, of this paper, for this data set; all, where nothing is asked for.

    Args:
        hours: Only those of a paper that one GPU of the kind ``gpu`` is likely to train in so many, at worst.

    Raises:
        ValueError: if a name or a filter fits none of all recipes, with what is near.
    """
    found = list(registry.experiments().values())
    if names:
        wanted = {}
        for name in names:
            own = [e for e in found if fnmatchcase(e.name, name) or fnmatchcase(e.name.partition("/")[2], name)]
            wanted |= {e.name: e for e in own or [registry.get_experiment(name)]}
        found = list(wanted.values())
    if paper is not None:
        choose("--paper", paper.lower(), registry.METHODS)
        found = [e for e in found if e.method == paper.lower()]
    if data is not None:
        choose("--data", data, sorted({e.data for e in registry.experiments().values() if e.data}))
        found = [e for e in found if e.data == data]
    choose("--gpu", gpu, GPUS)
    if hours is not None:
        check_number("--hours", hours, low=0, open_low=True)
        found = [e for e in found if (times := train_hours(e, gpu)) is not None and times[1] <= hours]
    if not found:
        raise ValueError("no recipe is all of that; infomax recipes alone lists them")
    return found


def as_list(found: Sequence[Experiment], *, gpu: str) -> str:
    """A line each: what it is, what the paper reports and what it costs, in hours of one GPU of this kind."""
    rows = []
    for experiment in found:
        recipe, main = experiment.recipe(), experiment.main
        cost = "" if experiment.exaflops is None else f"{experiment.exaflops:g}"
        times = train_hours(experiment, gpu)
        time = "" if times is None else " to ".join(dict.fromkeys(f"{x:.2g}" if x < 10 else f"{x:.0f}" for x in times))
        where = f"{main.table.paper} {main.table.number}" if main else ""
        score = format_published(main.value, main.deviation) + "?" * bool(main.row.uncertain) if main else ""
        extent = (str(recipe.epochs), str(recipe.batch_size))
        rows.append(
            [experiment.name, experiment.data or "any", recipe.encoder.backbone, *extent, cost, time, score, where]
        )
    header = ["", "data", "encoder", "epochs", "batch", "EFLOP", f"h, 1 {gpu}", "linear top-1", "in"]
    notes = (
        "EFLOP: 1e18 floating-point operations of the whole training.",
        f"h: of arithmetic on one {gpu}, at the shares of the peak rate that the papers' own runs reached.",
        "Whether a run fits its memory says infomax plan.",
        "?: hard to read in the paper. infomax recipes NAME prints one in full.",
    )
    return make_table(header, rows, notes=notes).text()


def in_full(experiment: Experiment, overrides: Sequence[str]) -> str:
    """All settings of a recipe, what the paper reports of it, and the commands that make it.

    Args:
        overrides: Changes, as ``key=value``; they are marked.
    """
    own = flat_settings(experiment.recipe())
    changed = flat_settings(customise(experiment.recipe(), overrides=overrides))
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
        f"  {n.table.paper}, {n.table.number}: {n.column.name} {format_published(n.value, n.deviation)}"
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
