"""Makes lists of the recipes, and the full description of one."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from infomax.evaluation.protocols import PROTOCOLS
from infomax.papers.published import Column
from infomax.planning.gpus import GPUS, training_hours
from infomax.recipes import registry
from infomax.recipes.customise import customise
from infomax.recipes.experiment import Experiment
from infomax.recipes.schema import flat_settings
from infomax.reporting.comparison import format_published
from infomax.reporting.options import RecipeListOptions
from infomax.reporting.tables import Table, make_table
from infomax.runtime.checks import check_number, choose
from infomax.runtime.options import to_argv


def find_recipes(options: RecipeListOptions) -> list[Experiment]:
    """Returns the recipes that have one of the names and pass all filters; all recipes if nothing is asked for.

    Raises:
        ValueError: if a name or a filter fits no recipe at all, naming the nearest one.
    """
    everything = registry.experiments()
    experiments = list(everything.values())
    if options.names:
        named: dict[str, Experiment] = {}
        for name in options.names:
            matching = _named(name, experiments) or [registry.get_experiment(name)]
            named |= {e.name: e for e in matching}
        experiments = list(named.values())
    if options.paper is not None:
        experiments = [e for e in experiments if e.method == _choose_paper(options.paper.lower())]
    if options.method is not None:
        groups = registry.method_groups()
        name = choose("--method", options.method.lower(), [*registry.METHODS, *groups])
        experiments = [e for e in experiments if e.method in groups.get(name, [name])]
    if options.data is not None:
        choose("--data", options.data, sorted({e.data for e in everything.values() if e.data}))
        experiments = [e for e in experiments if e.data == options.data]
    choose("--gpu", options.gpu, GPUS)
    if (limit := options.hours) is not None:
        check_number("--hours", limit, low=0, open_low=True)
        times = {e.name: training_hours(e, options.gpu) for e in experiments}
        experiments = [e for e in experiments if (hours := times[e.name]) is not None and hours[1] <= limit]
    if not experiments:
        raise ValueError("no recipe is all of that; infomax recipes alone lists them")
    return experiments


def _named(name: str, experiments: Sequence[Experiment]) -> list[Experiment]:
    """Returns the recipes that a name stands for: a method's, a group's, or those that fit it as a pattern."""
    groups = {**registry.method_groups(), **{method: [method] for method in registry.METHODS}}
    if methods := groups.get(name.lower()):
        return [e for e in experiments if e.method in methods]
    return [e for e in experiments if fnmatchcase(e.name, name) or fnmatchcase(e.name.split("/")[1], name)]


def _choose_paper(name: str) -> str:
    """Returns the name of a paper's method; raises ValueError if there is no such paper."""
    if name in registry.baselines():
        papers = ", ".join(registry.methods_with_papers())
        raise ValueError(f"--paper is one of {papers}; {name} is a baseline: infomax recipes {name} lists its recipes")
    return choose("--paper", name, registry.methods_with_papers())


def recipe_table(experiments: Sequence[Experiment], *, gpu: str) -> Table:
    """Makes a table with a line for each recipe: what it is, what the paper reports, and what it costs.

    Baselines stand below the four papers' methods, under a line of their own.

    Args:
        experiments: The recipes.
        gpu: Kind of GPU for the hours of one GPU.
    """
    header = ["", "data", "encoder", "epochs", "batch", "EFLOP", f"h, 1 {gpu}", "linear top-1", "in"]
    notes = (
        "EFLOP: 1e18 floating-point operations of the whole training.",
        f"h: estimated for one {gpu}, at the shares of its data sheet's rates that the papers' own runs reached.",
        "n: the number of images, which decides the epochs.",
        "infomax plan says whether a run fits the memory of a GPU.",
        "?: hard to read in the paper. infomax recipes NAME prints one in full.",
    )
    baselines = registry.baselines()
    of_papers = [_recipe_row(e, gpu) for e in experiments if e.method not in baselines]
    of_baselines = [_recipe_row(e, gpu) for e in experiments if e.method in baselines]
    heading = [["baselines:", *[""] * (len(header) - 1)]] if of_papers and of_baselines else []
    return make_table(header, [*of_papers, *heading, *of_baselines], notes=notes)


def _recipe_row(experiment: Experiment, gpu: str) -> list[str]:
    """Returns the texts of a recipe's line."""
    recipe, main = experiment.recipe(), experiment.main_number
    cost = "" if experiment.exaflops is None else f"{experiment.exaflops:g}"
    hours = training_hours(experiment, gpu) or ()
    time = " to ".join(dict.fromkeys(f"{x:.1g}" if x < 10 else f"{float(f'{x:.1e}'):.0f}" for x in hours))
    source, score = "", ""
    if main is not None:
        source = f"{main.table.paper} {main.table.number}"
        score = format_published(main.value, main.deviation) + ("?" if main.row.uncertain else "")
    size = [recipe.encoder.backbone, _images_over_n(experiment) or str(recipe.epochs), str(recipe.batch_size)]
    return [experiment.name, experiment.data or "any", *size, cost, time, score, source]


def _images_over_n(experiment: Experiment) -> str:
    """Returns the epochs of a recipe that sees a number of images, whatever their number is; empty for others."""
    return "" if experiment.images_seen is None else f"{experiment.images_seen:,}/n"


def describe_recipe(experiment: Experiment, overrides: Sequence[str]) -> str:
    """Returns all settings of a recipe, what the paper reports of it, and the commands that reproduce it.

    Args:
        experiment: The recipe.
        overrides: Changes, as ``key=value``; they are marked.
    """
    numbers = [
        f"  {n.table.paper}, {n.table.number}: {n.column.name} {format_published(n.value, n.deviation)}"
        + (f" (uncertain: {n.row.uncertain})" if n.row.uncertain else "")
        for n in experiment.numbers()
    ]
    blocks = [
        f"{experiment.name}: {experiment.description}",
        "\n".join(["To reproduce it:" if numbers else "To train it:", *_commands(experiment, overrides)]),
        "\n".join(["Published:", *numbers]) if numbers else "",
        "\n".join(["Settings:", *_settings_lines(experiment, overrides)]),
    ]
    return "\n\n".join(block for block in blocks if block)


def _commands(experiment: Experiment, overrides: Sequence[str]) -> list[str]:
    """Returns the commands that train and evaluate a recipe."""
    folder = f"runs/{experiment.name.replace('/', '-')}"
    sets = "".join(f" --set {override}" for override in overrides)
    data = f" --data {experiment.data}" if experiment.data else " --data DIR"
    return [
        f"  infomax pretrain --recipe {experiment.name}{data}{sets} --out {folder}",
        f"  infomax evaluate {_measure(experiment.main_column, folder)}",
    ]


def _measure(column: Column | None, folder: str) -> str:
    """Returns the words of ``infomax evaluate`` that measure a run as a published column does; if there is no column,
    by logistic regression."""
    if column is not None:
        for protocol in PROTOCOLS.values():
            if (options := protocol.options_for(column)) is not None:
                return " ".join([protocol.name, folder, *to_argv(options)])
    return f"linear {folder}"


def _settings_lines(experiment: Experiment, overrides: Sequence[str]) -> list[str]:
    """Returns a line for each setting, which marks those that the overrides change."""
    before = flat_settings(experiment.recipe())
    settings = flat_settings(customise(experiment.recipe(), overrides=overrides))
    width = max(map(len, settings))
    lines = []
    epochs_are_chosen = any(override.partition("=")[0].strip() == "epochs" for override in overrides)
    for key, value in settings.items():
        if key == "epochs" and not epochs_are_chosen and (epochs := _images_over_n(experiment)):
            lines.append(f"  {key.ljust(width)}  {epochs}, of n images")
            continue
        change = "" if before[key] == value else f"   (changed from {_format_value(before[key])})"
        lines.append(f"  {key.ljust(width)}  {_format_value(value)}{change}")
    return lines


def _format_value(value: object) -> str:
    """Formats the value of a setting, as ``--set`` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_format_value, value)) or "none"
    if isinstance(value, bool | None):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
